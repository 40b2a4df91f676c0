"""More tunnels at once than a foreign peer takes on one connection: those beyond wait, and no other is harmed."""

import resource
from functools import partial
from pathlib import Path

import pytest
import trio

from peertunnel.protocols.yamux import FEW_STREAMS
from tests.interop.exchanges import read_all
from tests.interop.tunnels import foreign_provider, pt_consumer, tunnel
from tests.traffic.streams import receive_exactly

TUNNELS = 560  # rust-yamux ends a connection at more than 512 streams
ITS_OWN = 8  # streams that Rust may have open itself: it keeps one for its pings
SECONDS = 90  # on a busy machine


@pytest.fixture(autouse=True)
def _many_descriptors() -> None:
    """Have room for both ends of each tunnel."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


async def test_more_tunnels_than_rust_takes_at_a_time(rspeer: Path, tmp_path: Path) -> None:
    """None of those that are open is lost, and those that wait come as others end."""
    async with tunnel(foreign_provider(rspeer), pt_consumer(tmp_path, "--wait", str(SECONDS))) as joined:

        async def use(number: int) -> None:
            async with await joined.connect() as client:
                await client.send_all(number.to_bytes(2))
                assert await receive_exactly(client, 2) == number.to_bytes(2)

        with trio.fail_after(SECONDS):
            async with trio.open_nursery() as nursery:
                held = []
                for number in range(TUNNELS):
                    nursery.start_soon(use, number)
                    if number < FEW_STREAMS - ITS_OWN:  # one by one, since Rust drops some of a burst
                        held.append(await joined.target.accept())
                for place in range(TUNNELS):
                    async with held[place] as server:
                        await server.send_all(await receive_exactly(server, 2))
                        assert await read_all(server) == b""
                    if len(held) < TUNNELS:
                        held.append(await joined.target.accept())
        assert len(joined.consumer.past("path")) == 1, "the connection has stood all the time"


async def test_a_burst_of_questions_whose_end_comes_with_them(rspeer: Path, tmp_path: Path) -> None:
    """Rust may drop some again and again, but not one of them looks as if it had been answered with nothing."""
    answered = 0
    async with tunnel(foreign_provider(rspeer), pt_consumer(tmp_path, "--wait", str(SECONDS))) as joined:

        async def ask() -> None:
            nonlocal answered
            async with await joined.connect() as client:
                await client.send_all(b"question")
                await client.send_eof()
                try:
                    assert await read_all(client) == b"answer"
                    answered += 1
                except trio.BrokenResourceError:
                    pass  # a reset, which nobody takes for an answer

        async def answer(server: trio.SocketStream) -> None:
            async with server:
                assert await read_all(server) == b"question"
                await server.send_all(b"answer")

        with trio.fail_after(SECONDS):
            async with trio.open_nursery() as serving:
                serving.start_soon(partial(trio.serve_listeners, answer, [joined.target]))
                async with trio.open_nursery() as nursery:
                    for _ in range(FEW_STREAMS):
                        nursery.start_soon(ask)
                serving.cancel_scope.cancel()
    assert answered > 0
