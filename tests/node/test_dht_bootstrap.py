"""Names that stand for DHT nodes, asked of a real name server: ours, on loopback."""

from collections.abc import AsyncIterator

import dns.asyncresolver
import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import pytest
import trio

from peertunnel.discovery.dht_bootstrap import resolve
from peertunnel.discovery.dht_contacts import address_texts
from peertunnel.identity import Identity
from peertunnel.protocols.peerid import multihash_of

ALICE, BOB = Identity.ephemeral().peer_id, Identity.ephemeral().peer_id
OLD = (
    "QmNnooDu7bfjPFoTZYxMNLWUQJyrVwtbZg5gBMjTezGAJN"  # as the public nodes have them: the hash of an RSA key
)
RECORDS = {
    "_dnsaddr.nodes.example.": [
        f"dnsaddr=/dnsaddr/one.nodes.example/p2p/{ALICE}",
        f"dnsaddr=/ip4/192.0.2.2/tcp/4001/p2p/{BOB}",
        f"dnsaddr=/ip4/192.0.2.3/tcp/4001/p2p/{OLD}",
        "dnsaddr=nonsense",
        "something else",
    ],
    "_dnsaddr.one.nodes.example.": [
        f"dnsaddr=/ip4/192.0.2.1/tcp/4001/p2p/{ALICE}",
        f"dnsaddr=/ip6/2001:db8::1/tcp/4001/p2p/{ALICE}",
        f"dnsaddr=/ip4/192.0.2.9/tcp/4001/p2p/{BOB}",
    ],
    "_dnsaddr.broken.example.": ["SERVFAIL"],
}


def answer(data: bytes) -> bytes | None:
    """Answer a question as a name server does."""
    question = dns.message.from_wire(data)
    name = question.question[0].name.to_text()
    if name == "_dnsaddr.silent.example.":
        return None
    reply = dns.message.make_response(question)
    texts = RECORDS.get(name)
    if texts is None:
        reply.set_rcode(dns.rcode.NXDOMAIN)
    elif texts == ["SERVFAIL"]:
        reply.set_rcode(dns.rcode.SERVFAIL)
    else:
        reply.answer.append(dns.rrset.from_text_list(name, 60, "IN", "TXT", [f'"{text}"' for text in texts]))
    return reply.to_wire()


@pytest.fixture
async def name_server(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    """A name server, and the system's settings leading to it."""
    with trio.socket.socket(trio.socket.AF_INET, trio.socket.SOCK_DGRAM) as sock:
        await sock.bind(("127.0.0.1", 0))

        class Resolver(dns.asyncresolver.Resolver):
            def __init__(self) -> None:
                super().__init__(configure=False)
                self.nameservers = ["127.0.0.1"]
                self.port = sock.getsockname()[1]

        monkeypatch.setattr("dns.asyncresolver.Resolver", Resolver)
        async with trio.open_nursery() as nursery:

            async def serve() -> None:
                while True:
                    data, caller = await sock.recvfrom(4096)
                    if (reply := answer(data)) is not None:
                        await sock.sendto(reply, caller)

            nursery.start_soon(serve)
            yield
            nursery.cancel_scope.cancel()


async def test_a_name_stands_for_several_nodes_at_several_addresses(name_server: None) -> None:
    found = await resolve(("/dnsaddr/nodes.example",))
    texts = {contact.peer_id: set(address_texts(contact, "x")) for contact in found}
    assert set(texts) == {multihash_of(peer_id) for peer_id in (ALICE, BOB, OLD)}
    assert {address.split("/p2p/")[0] for address in texts[multihash_of(ALICE)]} == {
        "/ip4/192.0.2.1/tcp/4001",
        "/ip6/2001:db8::1/tcp/4001",
    }


@pytest.mark.parametrize("name", ["nobody.example", "broken.example", "silent.example"])
async def test_a_name_that_can_not_be_resolved_is_left_out(name: str, name_server: None) -> None:
    address = f"/ip4/127.0.0.1/tcp/4001/p2p/{ALICE}"
    (contact,) = await resolve((f"/dnsaddr/{name}", address))
    assert contact.peer_id == multihash_of(ALICE)
