"""When mDNS nodes speak, and when they don't: RFC 6762's timing, with a clock that jumps."""

import itertools
import time

import pytest
import trio
from trio.testing import MockClock

from peertunnel.discovery.mdns_peer import tag
from peertunnel.discovery.mdns_wire import encode_query
from peertunnel.interfaces import InterfaceAddress
from tests.node.wire import LOOPBACK, Provider, Wire, new_peer, new_service, pinned


async def test_an_announcement_is_told_twice_a_second_apart(autojump_clock: MockClock, wire: Wire) -> None:
    provider = Provider(new_service())
    start = trio.current_time()
    wire.nursery.start_soon(wire.mdns.announce, provider.announcement)
    await trio.sleep(100)
    assert wire.ear.times(provider.peer_id, start) == [0, 1]


async def test_only_hashes_of_topics_are_told(autojump_clock: MockClock, wire: Wire) -> None:
    service = new_service()
    provider = Provider(service)
    wire.nursery.start_soon(wire.mdns.announce, provider.announcement)
    await trio.sleep(0.1)
    (sighting,) = wire.ear.of(provider.peer_id)
    assert sighting.tags == {tag(topic) for topic in service.topics_to_publish(time.time())}


async def test_an_answer_comes_after_a_little_while(autojump_clock: MockClock, wire: Wire) -> None:
    provider = Provider(new_service())
    wire.nursery.start_soon(wire.mdns.announce, provider.announcement)
    delays = []
    for _ in range(100):  # by chance, but for one in 10**21 times
        await trio.sleep(10)
        asked = trio.current_time()
        wire.ear.ask()
        await trio.sleep(1)
        delays += wire.ear.times(provider.peer_id, asked)
    assert len(delays) == 100
    assert 0.02 <= min(delays) < 0.06 and 0.08 < max(delays) <= 0.12


async def test_many_questions_get_few_answers(autojump_clock: MockClock, wire: Wire) -> None:
    provider = Provider(new_service())
    wire.nursery.start_soon(wire.mdns.announce, provider.announcement)
    await trio.sleep(10)
    asked = trio.current_time()
    for _ in range(1000):
        wire.ear.ask()
        await trio.sleep(0.01)
    answers = wire.ear.times(provider.peer_id, asked)
    assert 10 / 0.4 < len(answers) <= 10 / 0.25 + 1
    assert min(after - before for before, after in itertools.pairwise(answers)) >= 0.249


@pytest.mark.parametrize(("is_ours", "answers"), [(True, 1), (False, 0)])
async def test_browsers_may_ask_for_an_instance(
    autojump_clock: MockClock, wire: Wire, is_ours: bool, answers: int
) -> None:
    provider = Provider(new_service())
    wire.nursery.start_soon(wire.mdns.announce, provider.announcement)
    await trio.sleep(10)
    label = wire.ear.of(provider.peer_id)[0].name[0] if is_ours else b"x" * 34
    asked, query = trio.current_time(), encode_query()
    wire.ear.say(query[:12] + bytes([len(label)]) + label + query[12:])
    await trio.sleep(1)
    assert len(wire.ear.times(provider.peer_id, asked)) == answers


async def test_who_does_not_announce_does_not_answer(autojump_clock: MockClock, wire: Wire) -> None:
    wire.ear.ask()
    await trio.sleep(1)
    assert wire.ear.sightings == [] and len(wire.ear.questions) == 1


async def test_an_unanswered_question_is_asked_every_two_seconds(
    autojump_clock: MockClock, wire: Wire
) -> None:
    start = trio.current_time()
    with wire.mdns.find(new_service()):
        await trio.sleep(10.5)
    assert wire.ear.asked(start) == [0, 1, 3, 5, 7, 9]


async def test_an_answered_question_is_asked_less_and_less(autojump_clock: MockClock, wire: Wire) -> None:
    service = new_service()
    wire.nursery.start_soon((await wire.node()).announce, Provider(service).announcement)
    with wire.mdns.find(service):
        await trio.sleep(400)
    gaps = [round(after - before, 6) for before, after in itertools.pairwise(wire.ear.questions)]
    assert gaps[:7] == [1, 2, 4, 8, 16, 32, 60] and set(gaps[7:]) == {60}


async def test_a_stale_memory_is_no_answer(autojump_clock: MockClock, wire: Wire) -> None:
    peer_id = new_peer()
    wire.ear.tell(peer_id)
    await trio.sleep(1)
    with wire.mdns.find(pinned(peer_id)) as channel:
        assert channel.receive_nowait().peer_id == peer_id
        await trio.sleep(10.5)
    assert len(wire.ear.questions) == 6


async def test_a_live_answer_is_told_even_if_nothing_is_new(autojump_clock: MockClock, wire: Wire) -> None:
    peer_id = new_peer()
    wire.ear.tell(peer_id)
    await trio.sleep(1)
    with wire.mdns.find(pinned(peer_id)) as channel:
        channel.receive_nowait()
        wire.ear.tell(peer_id)
        await trio.sleep(10.5)
        assert channel.receive_nowait().peer_id == peer_id
    assert len(wire.ear.questions) == 4


async def test_a_new_search_asks_at_once(autojump_clock: MockClock, wire: Wire) -> None:
    service = new_service()
    wire.nursery.start_soon((await wire.node()).announce, Provider(service).announcement)
    with wire.mdns.find(service):
        await trio.sleep(100)
        start = trio.current_time()
        with wire.mdns.find(new_service()):
            await trio.sleep(1.5)
    assert wire.ear.asked(start) == [0, 1]


async def test_a_new_interface_is_asked_on_at_once(autojump_clock: MockClock, wire: Wire) -> None:
    here: list[InterfaceAddress] = []
    start = trio.current_time()
    with (await wire.node(lambda: tuple(here))).find(new_service()):
        await trio.sleep(9.5)
        here.append(LOOPBACK)
        await trio.sleep(1)
    assert wire.ear.asked(start) == [10]


async def test_many_searches_ask_few_questions(autojump_clock: MockClock, wire: Wire) -> None:
    for _ in range(100):
        with wire.mdns.find(new_service()):
            await trio.sleep(0.01)
    assert 3 <= len(wire.ear.questions) <= 5


async def test_nobody_asks_when_nobody_searches(autojump_clock: MockClock, wire: Wire) -> None:
    wire.nursery.start_soon(wire.mdns.announce, Provider(new_service()).announcement)
    with wire.mdns.find(new_service()):
        await trio.sleep(0.1)
    await trio.sleep(400)
    assert len(wire.ear.questions) == 1


async def test_who_stops_says_goodbye(autojump_clock: MockClock, wire: Wire) -> None:
    service = new_service()
    provider = Provider(service)
    listener = await wire.node()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(wire.mdns.announce, provider.announcement)
        await trio.sleep(10)
        nursery.cancel_scope.cancel()
    await trio.sleep(0.1)
    assert [sighting.ttl for sighting in wire.ear.of(provider.peer_id)] == [120, 120, 0]
    with listener.find(service) as channel, pytest.raises(trio.WouldBlock):
        channel.receive_nowait()


async def test_a_node_that_stops_says_goodbye_whichever_task_ends_first(
    autojump_clock: MockClock, wire: Wire
) -> None:
    for _ in range(10):
        provider = Provider(new_service())
        async with trio.open_nursery() as nursery:
            node = await wire.node(nursery=nursery)
            nursery.start_soon(node.announce, provider.announcement)
            await trio.sleep(5)
            nursery.cancel_scope.cancel()
        await trio.sleep(0.1)
        assert [sighting.ttl for sighting in wire.ear.of(provider.peer_id)] == [120, 120, 0]
