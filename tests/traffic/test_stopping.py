"""SIGTERM lets tunnels finish for a while, a second one does not, and nothing is left behind."""

import errno
import socket
from pathlib import Path

import pytest
import trio

from tests.interop.exchanges import read_until_reset
from tests.interop.peers import Running
from tests.interop.tunnels import Tunnel, tunnel
from tests.traffic.processes import consumer, provider, until
from tests.traffic.streams import MIB, expect, noise, receive_exactly, send

LONG = 60  # seconds of grace that no test waits for
SHORT = 1  # seconds of grace that a test outlasts
PATIENCE = 30.0  # seconds for what must happen, on a busy machine
INTERRUPTED = 130  # the exit code

ends = pytest.mark.parametrize("stopped", ["provider", "consumer"])


def end_of(joined: Tunnel, name: str) -> Running:
    """Give one of the two processes."""
    return joined.provider if name == "provider" else joined.consumer


async def ended(process: Running) -> int:
    """Give the exit code of a process that is to end."""
    with trio.fail_after(PATIENCE):
        return await process.process.wait()


def is_free(joined: Tunnel) -> bool:
    """Return whether the consumer's port can be listened on, on both loopback addresses."""
    port = joined.local[1]
    try:
        with (
            socket.create_server(("127.0.0.1", port)),
            socket.create_server(("::1", port), family=socket.AF_INET6),
        ):
            return True
    except OSError as error:
        return error.errno == errno.EADDRNOTAVAIL  # a machine without ::1


@ends
async def test_a_running_tunnel_finishes_within_the_grace(tmp_path: Path, stopped: str) -> None:
    grace = ("--grace", str(LONG))
    async with tunnel(provider(tmp_path, *grace), consumer(tmp_path, *grace)) as joined:
        client, far = await joined.open()
        await client.send_all(b"question")
        assert await receive_exactly(far, 8) == b"question"
        stopping = end_of(joined, stopped)
        stopping.process.terminate()
        await stopping.event("warning")
        if stopped == "consumer":
            assert await until(lambda: is_free(joined), PATIENCE)
        else:
            await joined.consumer.event("path", path="none")  # new connections wait for another one
        answer = noise(1, 16 * MIB)
        with trio.fail_after(PATIENCE):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(send, far, answer)
                await expect(client, answer)
            await client.send_eof()
            await expect(far, b"")
        assert await ended(stopping) == INTERRUPTED


@ends
async def test_a_tunnel_that_outlasts_the_grace_is_reset(tmp_path: Path, stopped: str) -> None:
    grace = ("--grace", str(SHORT))
    async with tunnel(provider(tmp_path, *grace), consumer(tmp_path, *grace)) as joined:
        client, far = await joined.open()
        await client.send_all(b"question")
        assert await receive_exactly(far, 8) == b"question"
        stopping = end_of(joined, stopped)
        stopping.process.terminate()
        with trio.fail_after(PATIENCE):
            await read_until_reset(client)
            await read_until_reset(far)
        assert await ended(stopping) == INTERRUPTED


@ends
async def test_the_second_signal_ends_everything_at_once(tmp_path: Path, stopped: str) -> None:
    grace = ("--grace", str(LONG))
    async with tunnel(provider(tmp_path, *grace), consumer(tmp_path, *grace)) as joined:
        client, far = await joined.open()
        await client.send_all(b"question")
        assert await receive_exactly(far, 8) == b"question"
        stopping = end_of(joined, stopped)
        stopping.process.terminate()
        await stopping.event("warning")
        stopping.process.terminate()
        assert await ended(stopping) == INTERRUPTED
        with trio.fail_after(PATIENCE):
            await read_until_reset(client)
            await read_until_reset(far)
        assert stopped == "provider" or is_free(joined)
