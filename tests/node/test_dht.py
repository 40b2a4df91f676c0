"""The DHT among our own hosts: found in either order, at new addresses, past the dead and past liars."""

import itertools
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from types import SimpleNamespace

import pytest
import trio

from peertunnel.discovery import Announcement, dht_membership, dht_network, dht_publisher, dht_search
from peertunnel.discovery.dht_contacts import address_bytes, id_bytes
from peertunnel.host import open_host
from peertunnel.identity import Identity
from peertunnel.peers import Caller, RequestError
from peertunnel.protocols.kademlia.messages import MAX_ADDRESSES, Contact, Message, Type, decode, encode
from peertunnel.protocols.service import Service
from peertunnel.protocols.topic import dht_key
from tests.node.dht import HERE, PATIENCE, PREFIX, Peer, network, peer, until
from tests.node.wire import new_peer, new_service, next_of, pinned, place

PROTOCOL = f"{PREFIX}/kad/1.0.0"


async def ask(asker: Peer, asked: Peer, message: Message) -> Message:
    """Ask a node something directly."""
    answer = await asker.host.request(
        asked.host.peer_id, [asked.address], PROTOCOL, encode(message), limit=65536, within=PATIENCE
    )
    return decode(answer)


async def test_a_provider_is_found_whoever_comes_first() -> None:
    service = new_service()
    async with network(5) as peers, peer(peers[1].address, server=False) as client:
        with client.dht.find(service) as early:
            peers[4].provide(service)
            assert await next_of(early, PATIENCE) == peers[4].candidate
        with peers[3].dht.find(service) as late:
            assert await next_of(late, PATIENCE) == peers[4].candidate


async def test_a_provider_that_moves_is_found_at_its_new_address() -> None:
    service = new_service()
    async with network(3) as peers, peer(peers[0].address, server=False) as provider:
        addresses = [place(provider.host.peer_id, 1)]
        topics = provider.announcement(service).topics
        told = Announcement(provider.host.peer_id, lambda: (addresses[-1],), topics)
        provider.nursery.start_soon(provider.dht.announce, told)
        with peers[2].dht.find(service) as channel:
            assert (await next_of(channel, PATIENCE)).addresses == (addresses[0],)
            addresses.append(place(provider.host.peer_id, 2))
            assert (await next_of(channel, PATIENCE)).addresses == (addresses[1],)


async def test_a_pinned_peer_needs_no_topic() -> None:
    async with network(3) as peers, peer(peers[0].address, server=False) as provider:
        peers[1].provide(new_service())
        provider.provide(pinned(provider.host.peer_id))
        with peers[2].dht.find(pinned(provider.host.peer_id)) as channel:
            assert await next_of(channel, PATIENCE) == provider.candidate


async def test_a_record_outlives_most_of_the_nodes_that_hold_it() -> None:
    service = new_service()
    async with network(3) as peers, trio.open_nursery() as nursery:
        doomed, gone = trio.Event(), trio.Event()

        async def holder() -> None:
            async with peer(peers[0].address):
                await doomed.wait()
            gone.set()

        nursery.start_soon(holder)
        await until(lambda: peers[1].dht.size == 3)
        async with peer(peers[0].address, server=False) as provider:
            provider.provide(service)
            with peers[2].dht.find(service) as channel:
                await next_of(channel, PATIENCE)
            doomed.set()
            await gone.wait()
            async with peer(peers[1].address, server=False) as client:
                with client.dht.find(service) as channel:
                    assert await next_of(channel, PATIENCE) == provider.candidate


async def test_a_liars_providers_do_not_hide_the_true_one() -> None:
    service = new_service()
    async with network(4) as peers, peer(peers[0].address, server=False) as provider:
        provider.provide(service)
        key = dht_key(provider.announcement(service).topics()[0])
        for _ in range(500):
            liar = Contact(id_bytes(new_peer()), address_bytes(["/ip4/127.0.0.1/tcp/1"]))
            peers[1].dht._providers.add(key, liar, None, 0)
        with peers[3].dht.find(service) as channel, trio.fail_after(PATIENCE):
            while (await channel.receive()).peer_id != provider.host.peer_id:
                pass


async def test_a_network_that_is_away_is_joined_once_it_is_back() -> None:
    identity = Identity.ephemeral()
    async with peer(identity=identity) as first:
        address = first.address
    async with peer(address, server=False) as early:
        await trio.sleep(0.2)  # its first try has failed by then, and nothing tells of that
        async with peer(listen=(address.split("/p2p/")[0],), identity=identity):
            await until(lambda: early.dht.size == 1)


async def test_a_client_serves_nobody() -> None:
    async with peer() as node, peer(node.address, server=False) as client:
        await until(lambda: client.dht.size == 1)
        try:
            await ask(node, client, Message(Type.FIND_NODE, b"key"))
        except RequestError:
            pass
        else:
            raise AssertionError("a client answered")
        assert node.dht.size == 0


async def test_a_peer_announces_only_itself_and_what_is_asked_is_answered() -> None:
    own, other = address_bytes([place(new_peer())]), id_bytes(new_peer())
    async with peer() as node, peer(server=False) as client:
        caller = id_bytes(client.host.peer_id)
        record = Message(Type.ADD_PROVIDER, b"key", providers=(Contact(other, own), Contact(caller, own)))
        await client.host.tell(node.host.peer_id, [node.address], PROTOCOL, encode(record), within=PATIENCE)
        found = await ask(client, node, Message(Type.GET_PROVIDERS, b"key"))
        assert [(contact.peer_id, contact.addresses) for contact in found.providers] == [(caller, own)]
        assert (await ask(client, node, Message(Type.PING))).type is Type.PING
        assert (await ask(client, node, Message(Type.GET_VALUE, b"key"))).record is None
        try:
            await ask(client, node, Message(Type.PUT_VALUE, b"key", record=b"value"))
        except RequestError:
            return
        raise AssertionError("a value was taken")


async def test_a_search_ends_with_its_channel_and_the_channel_with_the_node() -> None:
    service: Service = new_service()
    async with peer(listen=HERE) as node:
        channel = node.dht.find(service)
    with channel:
        try:
            await channel.receive()
        except trio.EndOfChannel:
            return
    raise AssertionError("the channel goes on")


def waiting(node: Peer) -> int:
    """Count the tasks, of which one is the membership's, that wait for somebody to ask."""
    return node.dht._network._news.statistics().tasks_waiting


async def test_a_search_ends_with_its_reader_while_there_is_nobody_to_ask(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(dht_search, "_LOOK", 0.01)
    async with peer() as node:
        with node.dht.find(new_service()):
            await until(lambda: waiting(node) > 1)
        await until(lambda: not node.dht._searches)


async def test_a_search_whose_reader_is_gone_asks_nobody_who_comes_later() -> None:
    asked: list[bytes] = []

    def held(key: bytes) -> list[Contact]:
        asked.append(key)
        return []

    async with peer() as node:
        search = dht_search.Search(node.dht._network, held, new_service())
        async with trio.open_nursery() as nursery:
            nursery.start_soon(search.run)
            await until(lambda: waiting(node) > 1)
            search.channel.close()
            node.dht._network.answered(Contact(id_bytes(new_peer()), address_bytes([place(new_peer())])))
    assert not asked


async def test_a_node_that_has_forgotten_a_record_is_told_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dht_publisher, "_FILL", 0.2)
    monkeypatch.setattr(dht_publisher, "_LOOK", 0.05)
    service = new_service()
    async with peer() as holder, peer(holder.address, server=False) as provider:
        provider.provide(service)
        await until(lambda: holder.dht.records == 2)
        for topic in provider.announcement(service).topics():
            holder.dht._providers.remove(dht_key(topic), id_bytes(provider.host.peer_id))
        assert holder.dht.records == 0
        await until(lambda: holder.dht.records == 2)


@pytest.mark.parametrize("hours", [25, -25], ids=["slept", "put back"])
async def test_a_record_is_told_again_when_the_clock_has_leapt(
    monkeypatch: pytest.MonkeyPatch, hours: int
) -> None:
    clock = itertools.count(time.time(), hours * 3600)  # it leaps whenever anybody looks
    monkeypatch.setattr(dht_publisher, "_LOOK", 0.05)
    async with peer() as holder, peer(holder.address, server=False) as provider:
        provider_id = id_bytes(provider.host.peer_id)
        provider.provide(pinned(provider.host.peer_id))
        await until(lambda: holder.dht.records == 1)
        monkeypatch.setattr(dht_publisher, "time", SimpleNamespace(time=lambda: next(clock)))
        holder.dht._providers.remove(dht_key(provider_id), provider_id)
        assert not holder.dht.records
        await until(lambda: holder.dht.records == 1)


async def test_what_we_hold_ourselves_is_withdrawn() -> None:
    service = new_service()
    async with peer() as node:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(node.dht.announce, node.announcement(service))
            await until(lambda: len(node.dht._providers) == 2)
            nursery.cancel_scope.cancel()
        assert len(node.dht._providers) == 0


async def test_an_answer_that_nobody_foresaw_ends_nothing_but_a_greeting_or_a_walk(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(dht_membership, "_FIRST_PAUSE", 0.02)
    answers = 0

    def decode_later(data: bytes) -> Message:
        nonlocal answers
        answers += 1
        if answers in {1, 3}:  # the first greeting, and the walk that follows the second
            raise KeyError
        return decode(data)

    monkeypatch.setattr(dht_network, "decode", decode_later)
    async with peer() as node, peer(node.address, server=False) as client:
        await until(lambda: answers > 3)
        assert client.dht.size == 1


@asynccontextmanager
async def lied_to() -> AsyncIterator[tuple[dht_network.Network, Contact]]:
    """Know a node, and give it as somebody tells of it who wants it forgotten."""
    false = address_bytes(f"/ip4/127.0.0.1/tcp/{port + 1}" for port in range(MAX_ADDRESSES))
    async with peer() as node, open_host(Identity.ephemeral(), ()) as host:
        asking, node_id = dht_network.Network(host, PROTOCOL), id_bytes(node.host.peer_id)
        asking.answered(Contact(node_id, address_bytes([node.address])))
        yield asking, Contact(node_id, false)


async def test_false_addresses_of_a_node_that_is_known_do_not_hide_it() -> None:
    async with lied_to() as (asking, told):
        right = asking.table.addresses(told.peer_id)
        await asking.ask(told, Message(Type.FIND_NODE, b"key"))
        assert asking.table.addresses(told.peer_id)[:1] == right


async def test_nor_do_they_keep_a_record_from_it() -> None:
    async with lied_to() as (asking, told):
        assert await asking.tell(told, Message(Type.ADD_PROVIDER, b"key"))


async def test_a_node_that_makes_up_addresses_does_not_have_the_true_one_forgotten(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(dht_search, "_FIRST_PAUSE", 0.1)
    service, numbers = new_service(), itertools.count(1)
    async with network(4) as peers, peer(peers[0].address, server=False) as provider:
        provider.provide(service)
        await until(lambda: all(member.dht.records for member in peers))
        liar = peers[3].dht._server
        answer = liar.answer

        def lie(caller: Caller, request: bytes) -> bytes | None:
            told = decode(request)
            if told.type is not Type.GET_PROVIDERS:
                return answer(caller, request)
            made_up = address_bytes(f"/ip4/127.0.0.1/tcp/{next(numbers)}" for _ in range(MAX_ADDRESSES))
            provider_id = id_bytes(provider.host.peer_id)
            return encode(replace(told, providers=(Contact(provider_id, made_up),)))

        monkeypatch.setattr(liar, "answer", lie)
        kept: list[str] = []
        with peers[1].dht.find(service) as channel, trio.fail_after(PATIENCE):
            while next(numbers) < 20 * MAX_ADDRESSES or provider.address not in kept:
                told = (await channel.receive()).addresses
                kept = list(dict.fromkeys((*told, *kept)))[:32]  # as a meeting does


async def test_addresses_that_are_made_up_are_counted_within_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dht_search, "_MAX_COUNTED", 100)
    async with peer() as node:
        search = dht_search.Search(node.dht._network, lambda key: [], new_service())
        for _ in range(120):
            made_up = new_peer()
            search._heard_providers(
                Message(
                    Type.GET_PROVIDERS,
                    b"key",
                    providers=(Contact(id_bytes(made_up), address_bytes([place(made_up)])),),
                )
            )
        assert sum(map(len, search._counts.values())) == 100
