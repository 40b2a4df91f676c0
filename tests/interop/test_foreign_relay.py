"""Two `pt` through a relay of Go, or of Rust, as it comes: its limits are known, and tunnels go on when one is reached."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from tests.interop.peers import Running, pt, running
from tests.node.pair import echo

LIMIT = 128 * 1024  # bytes of one circuit that a relay carries: each way with Go, in all with Rust
PATIENCE = 30.0  # seconds for what must happen, on a busy machine
ID = ("--id", "around-glue-have-tower-copy-profit")


@asynccontextmanager
async def relay(binary: Path) -> AsyncIterator[str]:
    """Run a relay with its usual limits; give its address."""
    words = [str(binary), "relay", "--listen", "/ip4/127.0.0.1/tcp/0"]
    async with running(words + (["--no-dht"] if binary.name == "gopeer" else [])) as found:
        ready = await found.event("ready")
        yield f"{ready['addresses'][0].partition('/p2p/')[0]}/p2p/{ready['peer_id']}"


async def carry(port: int, size: int) -> int:
    """Send bytes through a tunnel of its own, and count those that come back."""
    received = 0
    async with await trio.open_tcp_stream("127.0.0.1", port) as client, trio.open_nursery() as nursery:

        async def send() -> None:
            try:
                await client.send_all(bytes(size))
            except trio.BrokenResourceError:
                pass  # the relay has cut it, which the other direction shows

        nursery.start_soon(send)
        try:
            while received < size and (part := await client.receive_some()):
                received += len(part)
        except trio.BrokenResourceError:
            pass
    return received


def limits(consumer: Running) -> list[int]:
    """Return what each circuit so far had left when it became the path."""
    return [event["limit_bytes"] for event in consumer.past("path", path="relayed")]


@pytest.mark.parametrize("make", ["gopeer", "rspeer"])
async def test_a_relays_limits_are_known_and_respected(
    make: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    target = listeners[0].socket.getsockname()[1]
    async with trio.open_nursery() as nursery, relay(request.getfixturevalue(make)) as via:
        nursery.start_soon(trio.serve_listeners, echo, listeners)
        only = ("--relay", via, "--relay-only")
        async with pt(tmp_path / "a", *only, "tcp", "--port", str(target), *ID) as provider:
            circuit = (await provider.event("addresses", PATIENCE))["addresses"][0]
            consume = ("bind", "--port", "0", "--peer", circuit, *ID)
            async with pt(tmp_path / "b", *only, *consume) as consumer:
                port = int((await consumer.event("listening"))["local"].rpartition(":")[2])
                await consumer.event("path", PATIENCE, path="relayed")
                with trio.fail_after(PATIENCE):
                    assert await carry(port, 2 * LIMIT) < 2 * LIMIT  # cut by the relay, and seen to be
                    for circuits in (
                        2,
                        3,
                        4,
                    ):  # after the cut one, and whenever half of one is used up, the next
                        while len(limits(consumer)) < circuits:  # noqa: ASYNC110  a process's lines have no event
                            await trio.sleep(0.05)
                        assert await carry(port, LIMIT // 4) == LIMIT // 4
                assert all(0 < left <= LIMIT for left in limits(consumer))
        nursery.cancel_scope.cancel()
