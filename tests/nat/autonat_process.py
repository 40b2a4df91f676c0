"""A process that asks AutoNAT servers whether strangers reach it, and tells what it finds out as JSON lines.

PORT SERVER...: each server a multiaddr ending in /p2p/ and its peer id.
"""

import json
import signal
import sys

import trio

from peertunnel.host import open_host
from peertunnel.identity import Identity
from peertunnel.protocols.address import split_address
from peertunnel.transport.reachability import OwnReachability


def say(own: OwnReachability) -> None:
    told = {"kind": "reachability", "value": own.reachability.value, "addresses": list(own.addresses)}
    print(json.dumps(told), flush=True)


async def main(port: str, *servers: str) -> None:
    async with open_host(Identity.ephemeral(), (f"/ip4/0.0.0.0/tcp/{port}",)) as host:
        own = OwnReachability(host)
        await host.nursery.start(own.run)
        for server in servers:
            place, peer_id = split_address(server)
            await host.dial(peer_id or "", [place], 20)
        with trio.open_signal_receiver(signal.SIGTERM) as signals:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_tell, own)
                async for _ in signals:
                    nursery.cancel_scope.cancel()


async def _tell(own: OwnReachability) -> None:
    while True:
        say(own)
        await own.changed()


trio.run(main, *sys.argv[1:])
