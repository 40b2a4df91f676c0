"""A provider that restarts elsewhere is found again: by a rendezvous point within 10 s, in a DHT within 60 s."""

from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import trio

from tests.interop.peers import Running, pt
from tests.node.pair import echo, target

PATIENCE = 40.0  # seconds for the first meeting, which takes one on an idle machine
ID = "found-again-9f8c3f3a1d5be07c42ad"
PREFIX = "/private"
NODES = 3


async def bounce(consumer: Running, within: float) -> None:
    """See something come back through the tunnel, over new connections if the first are reset."""
    host, _, port = (await consumer.event("listening"))["local"].rpartition(":")
    with trio.fail_after(within):
        while True:
            try:
                async with await trio.open_tcp_stream(host, int(port)) as client:
                    await client.send_all(b"hello")
                    if await client.receive_some() == b"hello":
                        return
            except (trio.BrokenResourceError, OSError):
                continue  # the provider went away with it, or did not come in time


@pytest.mark.parametrize(("way", "within"), [("rendezvous", 10.0), ("dht", 60.0)])
async def test_a_provider_that_restarts_elsewhere(way: str, within: float, tmp_path: Path) -> None:
    """The old one is killed, so that what it announced stays; the new one has another key and another port."""
    async with target(echo) as port, AsyncExitStack() as stack:
        serve = ("relay", "--listen", "/ip4/127.0.0.1/tcp/0", "--dht-prefix", PREFIX)
        via: tuple[str, ...] = ()
        for number in range(NODES if way == "dht" else 1):
            only = ("--no-dht",) if way == "rendezvous" else ("--dht", *via)
            relay = await stack.enter_async_context(pt(tmp_path / f"relay {number}", *serve, *only))
            via = ("--bootstrap", (await relay.event("relay"))["via"])
        place = ("--dht", "--dht-prefix", PREFIX, *via) if way == "dht" else ("--rendezvous", via[1])
        shared = ("--id", ID, *place, "--wait", "60")
        consume = ("bind", "--port", "0", *shared, "--accept-new-key")
        consumer = await stack.enter_async_context(pt(tmp_path / "consumer", *consume))
        async with pt(tmp_path / "old", "tcp", "--port", str(port), *shared) as old:
            await bounce(consumer, PATIENCE)
            old.process.kill()
        async with pt(tmp_path / "new", "tcp", "--port", str(port), *shared) as new:
            await new.event("ready")
            await bounce(consumer, within)
