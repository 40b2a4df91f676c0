"""A process that listens, maps its port, greets who connects, and tells what it is mapped to as JSON lines.

PORT LEASE [SECRET]: LEASE is in seconds, SECRET in hex.
"""

import json
import logging
import signal
import sys
from functools import partial

import trio

from peertunnel.portmap import Listener, PortMapper


def say(kind: str, **fields: object) -> None:
    print(json.dumps({"kind": kind, **fields}), flush=True)


async def greet(stream: trio.SocketStream) -> None:
    async with stream:
        await stream.send_all(b"hello")


async def tell_statuses(mapper: PortMapper) -> None:
    """Say how each port stands, once and then at every change."""
    await mapper.settled()
    said: object = None
    while True:
        statuses = [
            {
                "gateway": str(status.gateway),
                "protocol": status.protocol,
                "external": str(status.mapping.external) if status.mapping else None,
                "lease": status.mapping.lease if status.mapping else None,
                "why_not": status.why_not,
            }
            for status in mapper.statuses
        ]
        if statuses != said:
            said = statuses
            say("statuses", statuses=statuses)
        await trio.sleep(0.05)


async def tell_addresses(mapper: PortMapper) -> None:
    """Say what is mapped, at every change."""
    said: tuple[str, ...] = ()
    while True:
        if mapper.addresses != said:
            said = mapper.addresses
            say("addresses", addresses=list(said))
        await trio.sleep(0.05)


async def main(port: str, lease: str, secret: str = "") -> None:
    logging.basicConfig(level=logging.INFO)
    number = int(port)
    ports = [Listener("tcp", number, 4), Listener("udp", number, 4), Listener("tcp", number, 6)]
    mapper = PortMapper(
        lambda: ports,
        secret=bytes.fromhex(secret) or None,
        lease=int(lease),
    )
    with trio.open_signal_receiver(signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery:
            for host in ("0.0.0.0", "::"):
                [listener] = await trio.open_tcp_listeners(number, host=host)
                nursery.start_soon(partial(trio.serve_listeners, greet, [listener]))
            nursery.start_soon(mapper.run)
            nursery.start_soon(tell_statuses, mapper)
            nursery.start_soon(tell_addresses, mapper)
            async for _ in signals:
                nursery.cancel_scope.cancel()


trio.run(main, *sys.argv[1:])
