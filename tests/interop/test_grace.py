"""A `pt` that is asked to stop lets tunnels to foreign peers finish: both Go and Rust end a session that goes away."""

from pathlib import Path

import pytest
import trio

from tests.interop.exchanges import read_all
from tests.interop.tunnels import (
    Consume,
    Provide,
    foreign_consumer,
    foreign_provider,
    pt_consumer,
    pt_provider,
    tunnel,
)
from tests.traffic.streams import MIB, expect, noise, receive_exactly, send

GRACE = ("--grace", "60")  # seconds that no test waits for
PATIENCE = 30.0  # seconds for what must happen, on a busy machine
INTERRUPTED = 130  # the exit code


@pytest.fixture(params=["gopeer", "rspeer"])
def foreign(request: pytest.FixtureRequest) -> Path:
    """Each of them."""
    found: Path = request.getfixturevalue(request.param)
    return found


@pytest.mark.parametrize("stopped", ["provider", "consumer"])
async def test_a_running_tunnel_finishes_within_the_grace(
    foreign: Path, stopped: str, tmp_path: Path
) -> None:
    ends: tuple[Provide, Consume] = (
        (pt_provider(tmp_path, *GRACE), foreign_consumer(foreign))
        if stopped == "provider"
        else (foreign_provider(foreign), pt_consumer(tmp_path, *GRACE))
    )
    async with tunnel(*ends) as joined:
        client, server = await joined.open()
        await client.send_all(b"question")
        assert await receive_exactly(server, 8) == b"question"
        stopping = joined.provider if stopped == "provider" else joined.consumer
        stopping.process.terminate()
        await stopping.event(
            "warning", message="Stopping: tunnels may go on for 60 s; Ctrl-C again ends them now."
        )
        answer = noise(1, 16 * MIB)
        with trio.fail_after(PATIENCE):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(send, server, answer)
                await expect(client, answer)
            await client.send_eof()
            assert await read_all(server) == b""
            assert await stopping.process.wait() == INTERRUPTED
