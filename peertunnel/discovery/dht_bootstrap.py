"""The DHT nodes to begin with: multiaddrs, and names that stand for several of them (multiaddr specs, DNSADDR)."""

import logging

import multiaddr.exceptions
import trio
from dns.exception import DNSException
from multiaddr import Multiaddr
from multiaddr.resolvers import DNSResolver

from peertunnel.discovery.dht_contacts import contact_at
from peertunnel.protocols.kademlia.messages import Contact

MAX_NODES = 64  # that a name may stand for; the public one has five, each at some addresses
_RESOLVING = 10.0  # seconds for a name; the resolver tries each name server for five
_FAILURES = (  # no network, no resolver set up, no such name, loops, answers that make no sense
    OSError,
    ValueError,
    DNSException,
    multiaddr.exceptions.Error,
    multiaddr.exceptions.MultiaddrError,
)
_log = logging.getLogger(__name__)


async def resolve(bootstrap: tuple[str, ...]) -> list[Contact]:
    """Give the nodes that the addresses name, each once; those that can't be resolved now are left out."""
    texts: list[str] = []
    async with trio.open_nursery() as nursery:
        for address in bootstrap:
            if address.startswith("/dnsaddr/"):
                nursery.start_soon(_resolve_name, address, texts)
            else:
                texts.append(address)
    found: dict[bytes, Contact] = {}
    for contact in map(contact_at, texts):
        if contact is not None:
            known = found.get(contact.peer_id, Contact(contact.peer_id)).addresses
            found[contact.peer_id] = Contact(contact.peer_id, (*known, *contact.addresses))
    return list(found.values())


async def _resolve_name(address: str, texts: list[str]) -> None:
    with trio.move_on_after(_RESOLVING):
        try:
            found = await DNSResolver().resolve(Multiaddr(address))
        except _FAILURES as error:
            _log.debug("%s was not resolved: %r", address, error)
            return
        texts += [str(place) for place in (found or [])[:MAX_NODES]]
