"""No byte of a thousand streams is lost, doubled or out of order, and nothing is left of them."""

import os
import resource
from collections.abc import Iterator
from random import Random

import pytest
import trio

from peertunnel.config import Transports
from peertunnel.protocols.yamux import MEMORY_CAP
from peertunnel.transport.connection import MuxedConnection
from peertunnel.transport.yamux import YamuxConnection
from tests.node.crowd import AT_ONCE, crowd
from tests.node.pair import PATIENCE, until
from tests.tools import need_quic

transports = pytest.mark.parametrize("transport", ["tcp", "quic"], indirect=True)
MIB = 1024 * 1024


@pytest.fixture(autouse=True)
def many_descriptors() -> Iterator[None]:
    """Room for four sockets a stream."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limits[1], limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)


@pytest.fixture
def random(request: pytest.FixtureRequest) -> Random:
    """What decides everything; its seed is shown when a test fails."""
    seed = request.config.getoption("--seed") or int.from_bytes(os.urandom(4))
    print(f"--seed {seed}")
    return Random(seed)


@pytest.fixture
def transport(request: pytest.FixtureRequest) -> Transports:
    """TCP, or QUIC where it was built."""
    wanted: Transports = request.param
    if wanted == "quic":
        need_quic()
    return wanted


def descriptors() -> int:
    """Count what this process has open."""
    return len(os.listdir("/proc/self/fd"))


def assert_empty(connection: MuxedConnection) -> None:
    """Nothing of the streams is left in a session."""
    assert not connection._negotiating
    if isinstance(connection, YamuxConnection):
        session = connection.session
        assert session.open_streams == session.streams_unacknowledged == session._peer_streams == 0
        assert not session._unread and session._growth._left == MEMORY_CAP


@pytest.mark.timeout(0)  # it has deadlines of its own, behind the time that it was given
@transports
async def test_a_thousand_streams_at_random(
    random: Random, transport: Transports, soak_seconds: float
) -> None:
    async with crowd(random, transport) as streams:
        before = descriptors()
        await streams.bustle(soak_seconds)
        print(
            f"{streams.ended} ways ended, {streams.cut} were reset, {streams.carried / MIB:.0f} MiB arrived"
        )
        assert streams.ended > AT_ONCE and streams.cut
        await until(lambda: not any(connection.has_streams for connection in streams.connections))
        await until(lambda: descriptors() <= before)
        for connection in streams.connections:
            assert connection.reason == ""
            assert_empty(connection)


@transports
async def test_a_thousand_streams_of_a_lost_connection(random: Random, transport: Transports) -> None:
    async with crowd(random, transport) as streams, trio.open_nursery() as nursery:
        before = descriptors()
        nursery.start_soon(streams.cut_when_full)
        await streams.bustle(PATIENCE)
        assert streams.cut > AT_ONCE // 2
        await until(lambda: descriptors() <= before)
