"""Finding peers by mDNS: on loopback, with a clock that jumps."""

import errno
import ipaddress
import os
import time
from typing import NoReturn

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from peertunnel.discovery.mdns_peer import encode_peer, tag
from peertunnel.discovery.mdns_wire import MAX_MESSAGE, Message, decode, encode_query
from peertunnel.interfaces import InterfaceAddress
from peertunnel.protocols.service import Service
from tests.node.wire import LOOPBACK, Provider, Wire, new_peer, new_service, next_of, pinned, place

HEAD_STARTS = [0.0, 0.3, 1.5, 100.0, 1000.0]


@pytest.mark.parametrize("head_start", HEAD_STARTS)
async def test_the_provider_may_come_first(autojump_clock: MockClock, wire: Wire, head_start: float) -> None:
    service = new_service()
    provider = Provider(service)
    wire.nursery.start_soon(wire.mdns.announce, provider.announcement)
    await trio.sleep(head_start)
    with (await wire.node()).find(service) as channel:
        assert await next_of(channel, 0.5) == provider.candidate


@pytest.mark.parametrize("head_start", HEAD_STARTS)
async def test_the_consumer_may_come_first(autojump_clock: MockClock, wire: Wire, head_start: float) -> None:
    service = new_service()
    provider = Provider(service)
    with wire.mdns.find(service) as channel:
        await trio.sleep(head_start)
        wire.nursery.start_soon((await wire.node()).announce, provider.announcement)
        assert await next_of(channel, 0.1) == provider.candidate


async def test_what_was_heard_before_is_known_at_once(autojump_clock: MockClock, wire: Wire) -> None:
    service = new_service()
    provider = Provider(service)
    wire.nursery.start_soon((await wire.node()).announce, provider.announcement)
    await trio.sleep(5)
    with wire.mdns.find(service) as channel:
        assert channel.receive_nowait() == provider.candidate


async def test_a_pinned_peer_needs_no_topic(autojump_clock: MockClock, wire: Wire) -> None:
    peer_id = new_peer()
    with wire.mdns.find(pinned(peer_id)) as channel:
        wire.ear.tell(peer_id)
        assert (await next_of(channel, 0.1)).peer_id == peer_id


async def test_nobody_else_is_a_candidate(autojump_clock: MockClock, wire: Wire) -> None:
    service, peer_id = new_service(), new_peer()
    right = tuple(tag(topic) for topic in service.topics_to_publish(time.time()))
    elsewhere = Service("a peer", service.root, new_peer())
    with wire.mdns.find(service) as channel, wire.mdns.find(elsewhere) as pinned_elsewhere:
        wire.ear.tell(new_peer(), tags=(tag(b"another"),))
        wire.ear.tell(peer_id, tags=right)
        assert (await next_of(channel, 0.1)).peer_id == peer_id
        await wait_all_tasks_blocked()
        for nothing_more in (channel, pinned_elsewhere):
            with pytest.raises(trio.WouldBlock):
                nothing_more.receive_nowait()


async def test_we_are_no_candidate_for_ourselves(autojump_clock: MockClock, wire: Wire) -> None:
    service = new_service()
    wire.nursery.start_soon(wire.mdns.announce, Provider(service).announcement)
    with wire.mdns.find(service) as channel, pytest.raises(trio.TooSlowError):
        await next_of(channel, 10)


async def test_a_restarted_provider_is_found_at_its_new_address(
    autojump_clock: MockClock, wire: Wire
) -> None:
    service = new_service()
    before = Provider(service, 4001)
    after = Provider(service, 4002, before.peer_id)
    with wire.mdns.find(service) as channel:
        for provider in (before, after):
            async with trio.open_nursery() as nursery:
                node = await wire.node(nursery=nursery)
                nursery.start_soon(node.announce, provider.announcement)
                assert await next_of(channel, 0.1) == provider.candidate
                nursery.cancel_scope.cancel()


async def test_a_provider_that_was_killed_is_found_at_its_new_address(
    autojump_clock: MockClock, wire: Wire
) -> None:
    peer_id = new_peer()
    with wire.mdns.find(pinned(peer_id)) as channel:
        for label, port in ((b"x", 4001), (b"y", 4002)):
            wire.ear.tell(peer_id, port, label=label)
            assert (await next_of(channel, 0.1)).addresses[0] == place(peer_id, port)
            await trio.sleep(5)


async def test_a_change_of_addresses_is_told(autojump_clock: MockClock, wire: Wire) -> None:
    service = new_service()
    provider = Provider(service)
    wire.nursery.start_soon((await wire.node()).announce, provider.announcement)
    with wire.mdns.find(service) as channel:
        assert await next_of(channel, 1) == provider.candidate
        await trio.sleep(10)
        provider.addresses = (place(provider.peer_id, 4002),)
        assert await next_of(channel, 2.1) == provider.candidate
    assert len({sighting.name for sighting in wire.ear.of(provider.peer_id)}) == 2, (
        "go-libp2p does not look twice at a name"
    )


async def test_a_link_local_address_without_a_zone_is_no_use(autojump_clock: MockClock, wire: Wire) -> None:
    service = new_service()
    provider = Provider(service)
    useful = provider.addresses
    provider.addresses = (f"/ip6/fe80::1/tcp/4001/p2p/{provider.peer_id}", *useful)
    wire.nursery.start_soon((await wire.node()).announce, provider.announcement)
    with wire.mdns.find(service) as channel:
        assert (await next_of(channel, 1)).addresses == useful


@pytest.mark.parametrize(
    "noise",
    [b"", b"_p2p", b"_p2p" + bytes(MAX_MESSAGE + 99), b"\x04_p2p" * 99, encode_query()[:-1]],
    ids=["empty", "too short", "too long", "nonsense", "cut off"],
)
async def test_noise_does_no_harm(autojump_clock: MockClock, wire: Wire, noise: bytes) -> None:
    service = new_service()
    provider = Provider(service)
    with wire.mdns.find(service) as channel:
        wire.ear.say(noise)
        await trio.sleep(0.1)
        wire.nursery.start_soon((await wire.node()).announce, provider.announcement)
        assert await next_of(channel, 0.1) == provider.candidate


async def test_a_flood_is_read_slowly(autojump_clock: MockClock, wire: Wire) -> None:
    service = new_service()
    right = tuple(tag(topic) for topic in service.topics_to_publish(time.time()))
    with wire.mdns.find(service) as channel:
        await trio.sleep(10)
        for _ in range(150):
            wire.ear.tell(new_peer(), tags=right)
        await wait_all_tasks_blocked()
        assert channel.statistics().current_buffer_used == pytest.approx(100, abs=2)
        await trio.sleep(0.3)
        assert channel.statistics().current_buffer_used == 150


async def test_long_messages_are_read_more_slowly(autojump_clock: MockClock, wire: Wire) -> None:
    service = new_service()
    right = tuple(tag(topic) for topic in service.topics_to_publish(time.time()))
    with wire.mdns.find(service) as channel:
        await trio.sleep(10)
        for _ in range(75):
            peer_id = new_peer()
            (message,) = encode_peer(b"x", [place(peer_id, port) for port in range(4001, 4009)], right, 120)
            assert 512 < len(message) < 1024
            wire.ear.say(message)
        await wait_all_tasks_blocked()
        assert channel.statistics().current_buffer_used == pytest.approx(50, abs=2)
        await trio.sleep(0.3)
        assert channel.statistics().current_buffer_used == 75


async def test_a_reader_that_falls_far_behind_does_no_harm(autojump_clock: MockClock, wire: Wire) -> None:
    peer_id = new_peer()
    with wire.mdns.find(pinned(peer_id)) as channel:
        for number in range(600):
            wire.ear.tell(peer_id, label=b"%c" % (97 + number % 2), port=4001 + number)
            await trio.sleep(0.01)
        with wire.mdns.find(pinned(peer_id)) as fresh:
            assert (await next_of(fresh, 0.1)).addresses[0] == place(peer_id, 4600)
        assert channel.statistics().current_buffer_used == 512


async def test_a_reader_that_is_gone_does_no_harm(autojump_clock: MockClock, wire: Wire) -> None:
    peer_id = new_peer()
    with wire.mdns.find(pinned(peer_id)):
        await trio.sleep(0.1)
    wire.ear.tell(peer_id)
    await trio.sleep(0.1)
    with wire.mdns.find(pinned(peer_id)) as channel:
        assert channel.receive_nowait().peer_id == peer_id


async def test_an_interface_may_come_later_and_go(autojump_clock: MockClock, wire: Wire) -> None:
    service = new_service()
    provider = Provider(service)
    here: list[InterfaceAddress] = []
    there: list[InterfaceAddress] = []
    announcer, finder = await wire.node(lambda: tuple(here)), await wire.node(lambda: tuple(there))
    wire.nursery.start_soon(announcer.announce, provider.announcement)
    with finder.find(service) as channel:
        await trio.sleep(100)
        here.append(LOOPBACK)
        there.append(LOOPBACK)
        assert await next_of(channel, 2.5) == provider.candidate
        there.clear()
        await trio.sleep(3)
        unheard = new_peer()
        wire.ear.say(*encode_peer(b"x", [f"/ip4/192.0.2.1/tcp/4001/p2p/{unheard}"], (), 120))
        await trio.sleep(0.1)
        for forgotten in (service, pinned(unheard)):
            with finder.find(forgotten) as later, pytest.raises(trio.WouldBlock):
                later.receive_nowait()


async def test_an_interface_that_cannot_be_opened_is_no_obstacle(
    autojump_clock: MockClock, wire: Wire
) -> None:
    service = new_service()
    provider = Provider(service)
    nowhere = InterfaceAddress("eth9", 0, ipaddress.ip_address("192.0.2.77"))
    announcer = await wire.node(lambda: (nowhere, LOOPBACK))
    wire.nursery.start_soon(announcer.announce, provider.announcement)
    with wire.mdns.find(service) as channel:
        assert await next_of(channel, 0.1) == provider.candidate


async def test_a_message_that_fails_unforeseen_costs_only_itself(
    autojump_clock: MockClock, wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider, failures = Provider(new_service()), [KeyError("unforeseen")]

    def fail_once(data: bytes) -> Message:
        if failures:
            raise failures.pop()
        return decode(data)

    monkeypatch.setattr("peertunnel.discovery.mdns.decode", fail_once)
    with wire.mdns.find(pinned(provider.peer_id)) as channel:
        for _ in range(2):
            wire.ear.tell(provider.peer_id)
        assert await next_of(channel, 0.1) == provider.candidate


async def test_an_interface_may_break_just_as_it_is_seen_to_go(
    autojump_clock: MockClock, wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = [LOOPBACK]

    def receive(_: object) -> NoReturn:
        there.clear()
        node._look(wire.nursery)
        raise OSError(errno.ENETDOWN, os.strerror(errno.ENETDOWN))

    node = await wire.node(lambda: tuple(there))
    (link,) = node._links.values()
    wire.ear.ask()
    monkeypatch.setattr("peertunnel.discovery.mdns.receive", receive)
    await wait_all_tasks_blocked()
    assert link.sock.fileno() == -1 and not node._links


async def test_searches_end_with_the_node(autojump_clock: MockClock, wire: Wire) -> None:
    async with trio.open_nursery() as nursery:
        channel = (await wire.node(nursery=nursery)).find(new_service())
        nursery.cancel_scope.cancel()
    with channel:
        assert [candidate async for candidate in channel] == []
