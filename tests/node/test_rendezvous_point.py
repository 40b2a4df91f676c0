"""What a rendezvous point answers, and what of it is believed."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from multiaddr import Multiaddr

from peertunnel.discovery.rendezvous_point import Point, Refusal
from peertunnel.discovery.rendezvous_server import RendezvousServer
from peertunnel.host import Host
from peertunnel.identity import Identity
from peertunnel.peers import Answer, RequestError
from peertunnel.protocols.record import Form, PeerRecord, seal
from peertunnel.protocols.rendezvous import (
    DEFAULT_TTL,
    PROTOCOL,
    Discover,
    Discovered,
    Register,
    Registered,
    Status,
    decode,
    encode,
)
from peertunnel.protocols.topic import cid
from tests.node.points import (
    LOOPBACK,
    PLACES,
    SERVICE,
    announced,
    host,
    point,
    until,
)


@asynccontextmanager
async def answering(answer: Answer) -> AsyncIterator[tuple[Point, Host]]:
    """Give a point that answers in a way of its own, and who asks it."""
    async with host(LOOPBACK) as server, host() as client:
        server.answer(PROTOCOL, answer, limit=10**5)
        yield Point(client, server.peer_id, server.addresses), client


async def test_a_point_that_wants_the_legacy_form_gets_it_and_is_not_asked_twice() -> None:
    asked: list[Form] = []

    def answer(_: object, data: bytes) -> bytes:
        message = decode(data)
        assert isinstance(message, Register)
        # The other type's two bytes are in some signature by chance.
        known = Form.LEGACY.value[1] in message.envelope
        asked.append(Form.LEGACY if known else Form.STANDARD)
        return encode(Registered(Status.OK, 60) if known else Registered(Status.INVALID_SIGNED_PEER_RECORD))

    async with answering(answer) as (point, client):
        record = PeerRecord(client.peer_id, 1, ())
        assert [await point.register("a", record) for _ in range(2)] == [60, 60]
        assert asked == [Form.STANDARD, Form.LEGACY, Form.LEGACY]


async def test_a_refusal_has_its_reason() -> None:
    refused = encode(Registered(Status.UNAVAILABLE, reason="full"))
    async with answering(lambda *_: refused) as (point, client):
        with pytest.raises(Refusal, match="UNAVAILABLE full"):
            await point.register("a", PeerRecord(client.peer_id, 1, ()))


@pytest.mark.parametrize(
    "answer",
    [b"", b"\xff", encode(Discover("a")), encode(Discovered(Status.OK, (), bytes(2000)))],
    ids=["nothing", "no message", "a question", "a long cookie"],
)
async def test_nonsense_is_no_answer(answer: bytes) -> None:
    async with answering(lambda *_: answer) as (point, client):
        with pytest.raises(RequestError):
            await point.discover("a", b"")
        with pytest.raises(RequestError):
            await point.register("a", PeerRecord(client.peer_id, 1, ()))


async def test_only_what_is_proven_and_was_asked_for_is_believed() -> None:
    good = Identity(b"g" * 32)
    async with host(seed=good.seed) as signer:
        record = PeerRecord(good.peer_id, 1, (Multiaddr(PLACES[0]).to_bytes(),))
        envelope = seal(record, signer.sign)
    broken = envelope[:-1] + bytes([envelope[-1] ^ 1])
    answer = Discovered(
        Status.OK,
        (Register("a", broken), Register("b", envelope), Register("a", b""), Register("a", envelope)),
    )
    async with answering(lambda *_: encode(answer)) as (point, _):
        assert await point.discover("a", b"") == ([record], b"")
        assert await point.discover("a", b"", limit=2) == ([], b"")


async def test_a_clock_that_was_put_back_keeps_nobody_out() -> None:
    async with point() as (server, book), host() as provider:
        stale = PeerRecord(provider.peer_id, 2**62, (Multiaddr(PLACES[0]).to_bytes(),))
        at = Point(provider, server.peer_id, server.addresses)
        name = cid(SERVICE.topics_to_publish(0)[0])
        assert await at.register(name, stale) == DEFAULT_TTL
        async with announced(provider, *server.addresses):
            await until(lambda: book.book.size == 2)
            found, _ = await at.discover(name, b"")
            assert [len(record.addresses) for record in found] == [2]


async def test_the_server_stops_answering_when_it_stops() -> None:
    async with host(LOOPBACK) as server, host() as client:
        async with trio.open_nursery() as nursery:
            await nursery.start(RendezvousServer(server).run)
            at = Point(client, server.peer_id, server.addresses)
            assert (await at.discover("a", b""))[0] == []
            nursery.cancel_scope.cancel()
        with pytest.raises(RequestError):
            await at.discover("a", b"")
