"""A process that announces a peer by mDNS, or prints each candidate that it finds, as JSON lines.

announce PEER_ID ROOT LISTEN…, find ROOT, or find-peer PEER_ID; ROOT is a service's root secret in hex.
"""

import json
import signal
import sys
import time
from collections.abc import Collection

import trio

from peertunnel.discovery import Announcement
from peertunnel.discovery.mdns import Mdns
from peertunnel.protocols.service import Service
from peertunnel.transport.addresses import dialable


def say(kind: str, **fields: object) -> None:
    print(json.dumps({"kind": kind, **fields}), flush=True)


async def announce(mdns: Mdns, peer_id: str, service: Service, listen: Collection[str]) -> None:
    say("ready")
    await mdns.announce(
        Announcement(peer_id, lambda: dialable(listen), lambda: service.topics_to_publish(time.time()))
    )


async def find(mdns: Mdns, service: Service) -> None:
    with mdns.find(service) as candidates:
        say("ready")
        async for candidate in candidates:
            first, *more = candidate.addresses
            say("found", peer_id=candidate.peer_id, first=first, more=more)


async def tell(mdns: Mdns, story: str, *arguments: str) -> None:
    match story, arguments:
        case "announce", (peer_id, root, *listen):
            await announce(mdns, peer_id, Service("", bytes.fromhex(root)), listen)
        case "find", (root,):
            await find(mdns, Service("", bytes.fromhex(root)))
        case "find-peer", (peer_id,):
            await find(mdns, Service("", None, peer_id))


async def main(*arguments: str) -> None:
    mdns = Mdns()
    with trio.open_signal_receiver(signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(mdns.run)
            nursery.start_soon(tell, mdns, *arguments)
            async for _ in signals:
                nursery.cancel_scope.cancel()


trio.run(main, *sys.argv[1:])
