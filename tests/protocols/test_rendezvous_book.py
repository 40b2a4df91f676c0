"""A rendezvous point's registrations: who may register what, how long, and what is told of it to whom."""

import functools
import itertools

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from peertunnel.protocols.errors import LocalProtocolError, RemoteProtocolError
from peertunnel.protocols.peerid import ed25519_peer_id
from peertunnel.protocols.record import MAX_ENVELOPE, Form, PeerRecord, seal
from peertunnel.protocols.rendezvous import (
    DEFAULT_TTL,
    MAX_PER_PEER,
    MAX_TTL,
    Book,
    Discover,
    Discovered,
    Register,
    Registered,
    Status,
    Unregister,
    book,
    decode,
    encode,
)

RUN = b"run"


@functools.cache
def key(number: int) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(number.to_bytes(32))


@functools.cache
def peer(number: int) -> str:
    return ed25519_peer_id(key(number).public_key().public_bytes_raw())


@functools.cache
def envelope(number: int, sequence: int = 1, size: int = 8, form: Form = Form.STANDARD) -> bytes:
    return seal(PeerRecord(peer(number), sequence, (bytes(size),)), key(number).sign, form)


class Point:
    """A book and its clock."""

    def __init__(self) -> None:
        self.book = Book(RUN)
        self.now = 1000.0

    def register(
        self,
        number: int,
        name: str = "a",
        ttl: int | None = None,
        *,
        sequence: int = 1,
        size: int = 8,
        network: str | None = None,
    ) -> Registered:
        message = Register(name, envelope(number, sequence, size), ttl)
        answer = self.book.answer(peer(number), message, self.now, network)
        assert isinstance(answer, Registered)
        return answer

    def unregister(self, number: int, name: str = "a") -> None:
        assert self.book.answer(peer(number), Unregister(name), self.now) is None

    def discover(self, name: str | None = "a", cookie: bytes = b"", limit: int = 0) -> Discovered:
        answer = self.book.answer(peer(0), Discover(name, limit, cookie), self.now)
        assert isinstance(answer, Discovered)
        return answer

    def found(self, name: str = "a") -> list[int]:
        """Read all pages, and give who is there."""
        known = {envelope(number, sequence): number for number in range(1, 6) for sequence in range(1, 4)}
        return [known[item.envelope] for item in self.discover(name).registrations]


@pytest.fixture
def point() -> Point:
    return Point()


def test_who_registers_is_discovered_in_this_namespace_only(point: Point) -> None:
    assert point.register(1, "a") == Registered(Status.OK, DEFAULT_TTL)
    assert point.register(2, "b", 60) == Registered(Status.OK, 60)
    assert point.discover("a").registrations == (Register("a", envelope(1), DEFAULT_TTL),)
    assert point.discover("b").registrations == (Register("b", envelope(2), 60),)
    assert point.discover("c").registrations == ()
    assert (point.book.size, point.book.peers, point.book.namespaces) == (2, 2, 2)


def test_the_legacy_form_is_taken_too(point: Point) -> None:
    message = Register("a", envelope(1, form=Form.LEGACY))
    assert point.book.answer(peer(1), message, 0) == Registered(Status.OK, DEFAULT_TTL)


def test_nobody_registers_another(point: Point) -> None:
    answer = point.book.answer(peer(2), Register("a", envelope(1)), 0)
    assert isinstance(answer, Registered) and answer.status is Status.NOT_AUTHORIZED
    assert point.book.size == 0


@pytest.mark.parametrize("broken", [b"", b"E", envelope(1)[:-1], bytes(MAX_ENVELOPE + 1)])
def test_a_record_that_is_not_signed_is_refused(point: Point, broken: bytes) -> None:
    answer = point.book.answer(peer(1), Register("a", broken), 0)
    assert isinstance(answer, Registered) and answer.status is Status.INVALID_SIGNED_PEER_RECORD


@pytest.mark.parametrize("name", ["", "n" * 256, "ä" * 128])
def test_a_namespace_has_up_to_255_bytes(point: Point, name: str) -> None:
    assert point.register(1, name).status is Status.INVALID_NAMESPACE
    assert point.register(1, "ä" * 127 + "n").status is Status.OK
    if name:
        assert point.discover(name).status is Status.INVALID_NAMESPACE


@pytest.mark.parametrize("ttl", [0, MAX_TTL + 1, 2**63 - 1])
def test_a_ttl_has_a_limit(point: Point, ttl: int) -> None:
    assert point.register(1, ttl=ttl).status is Status.INVALID_TTL
    assert point.register(1, ttl=MAX_TTL) == Registered(Status.OK, MAX_TTL)


def test_all_namespaces_at_once_are_told_to_nobody(point: Point) -> None:
    point.register(1)
    assert point.discover(None) == Discovered(Status.NOT_AUTHORIZED, reason="name a namespace")


def test_a_registration_ends_with_its_ttl(point: Point) -> None:
    point.register(1, ttl=10)
    point.register(2, ttl=20)
    point.now += 9.5
    assert [item.ttl for item in point.discover().registrations] == [1, 10]
    point.now += 0.5
    assert point.found() == [2]
    assert point.book.size == 2  # until somebody looks
    point.book.tick(point.now)
    assert point.book.size == 1
    point.now += 10
    point.book.tick(point.now)
    assert (point.book.size, point.book.peers, point.book.namespaces) == (0, 0, 0)


def test_a_refresh_lasts_longer_and_is_no_news(point: Point) -> None:
    point.register(1, ttl=10)
    cookie = point.discover().cookie
    point.now += 9
    point.register(1, ttl=10)
    assert point.discover(cookie=cookie).registrations == ()
    point.now += 9
    assert point.found() == [1]


def test_a_newer_record_takes_the_place_of_the_old_one_and_is_news(point: Point) -> None:
    point.register(1, sequence=1)
    cookie = point.discover().cookie
    point.register(1, sequence=3)
    assert [item.envelope for item in point.discover(cookie=cookie).registrations] == [envelope(1, 3)]
    assert len(point.discover().registrations) == point.book.size == 1


def test_an_older_record_is_refused_until_the_newer_one_is_withdrawn(point: Point) -> None:
    point.register(1, sequence=3)
    assert point.register(1, sequence=2).status is Status.INVALID_SIGNED_PEER_RECORD
    assert [item.envelope for item in point.discover().registrations] == [envelope(1, 3)]
    point.unregister(1)
    assert point.register(1, sequence=2).status is Status.OK


def test_who_unregisters_is_gone_and_others_stay(point: Point) -> None:
    point.register(1)
    point.register(2)
    point.unregister(1)
    point.unregister(1, "never")
    point.unregister(3)
    assert point.found() == [2]
    assert point.book.size == 1


@pytest.mark.parametrize("limit", [1, 2, 3, 5, 7])
def test_pages_have_everybody_once_and_then_only_news(point: Point, limit: int) -> None:
    for number in range(1, 6):
        point.register(number)
    pages, cookie = [], b""
    while (answer := point.discover(cookie=cookie, limit=limit)).registrations:
        assert len(answer.registrations) <= limit
        pages += [item.envelope for item in answer.registrations]
        cookie = answer.cookie
    assert pages == [envelope(number) for number in range(1, 6)]
    assert answer.cookie == cookie
    point.register(6)
    assert [item.envelope for item in point.discover(cookie=cookie).registrations] == [envelope(6)]


def test_a_cookie_survives_what_it_stands_for(point: Point) -> None:
    point.register(1, ttl=10)
    cookie = point.discover().cookie
    point.now += 11
    point.book.tick(point.now)
    assert point.discover(cookie=cookie).status is Status.OK
    point.register(2)
    assert [item.envelope for item in point.discover(cookie=cookie).registrations] == [envelope(2)]


def test_only_our_cookies_of_this_namespace_and_run_are_taken(point: Point) -> None:
    point.register(1)
    cookie = point.discover().cookie
    strange = [cookie[:-1], cookie + b"a", b"c", Book(b"RUN")._cookie(1, "a"), point.book._cookie(2, "a")]
    strange.append(point.discover("b").cookie)
    assert {point.discover(cookie=other).status for other in strange} == {Status.INVALID_COOKIE}


def test_a_cookie_has_the_form_that_rust_reads(point: Point) -> None:
    point.register(1, "näme")
    assert point.discover("näme").cookie[8:].decode() == "näme"


def test_a_peer_has_so_many_registrations_and_room_again_when_they_end(point: Point) -> None:
    for number in range(MAX_PER_PEER):
        assert point.register(1, f"n{number}", ttl=10).status is Status.OK
    assert point.register(1, "more").status is Status.UNAVAILABLE
    assert point.register(1, "n0").status is Status.OK
    assert point.register(2, "more").status is Status.OK
    point.now += 10
    assert point.register(1, "more").status is Status.OK
    assert point.book.size == 3


def test_there_is_an_end_to_all_registrations(point: Point, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(book, "MAX_REGISTRATIONS", 3)
    assert [point.register(number, ttl=number).status for number in (1, 2, 3)] == [Status.OK] * 3
    assert point.register(4).status is Status.UNAVAILABLE
    assert point.register(3, sequence=2, ttl=3).status is Status.OK
    point.now += 1
    assert point.register(4).status is Status.OK


def test_one_network_does_not_take_it_all(point: Point, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(book, "MAX_PER_NETWORK", 2)
    for number in (1, 2):
        assert point.register(number, network="n", ttl=number).status is Status.OK
    assert point.register(3, network="n").status is Status.UNAVAILABLE
    for number, network in ((3, "m"), (4, "m"), (5, None), (6, None), (7, None)):
        assert point.register(number, network=network).status is Status.OK
    assert point.register(2, sequence=2, network="m", ttl=2).status is Status.OK  # it has moved
    point.now += 1
    for number in (8, 9):
        assert point.register(number, network="n").status is Status.OK
    assert point.register(10, network="n").status is Status.UNAVAILABLE


def test_the_network_that_has_most_makes_room(point: Point, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(book, "MAX_REGISTRATIONS", 5)
    for number, network in ((1, "n"), (2, "n"), (3, "n"), (4, "m"), (5, "m")):
        assert point.register(number, network=network).status is Status.OK
    assert point.register(6, network="n").status is Status.UNAVAILABLE
    assert point.register(6, network="m").status is Status.UNAVAILABLE, "it would have most then"
    assert point.register(6, network="l").status is Status.OK
    found = [item.envelope for item in point.discover().registrations]
    assert found == [envelope(number) for number in (1, 3, 4, 5, 6)], "not the one that was there before all"
    assert point.register(7, network="l").status is Status.UNAVAILABLE
    assert point.book.size == 5


def test_an_answer_has_at_most_so_many_bytes_and_the_next_one_goes_on(point: Point) -> None:
    size = 7000
    count = book.MAX_ANSWER // size + 3
    for number in range(1, count + 1):
        assert point.register(number, size=size).status is Status.OK
    first = point.discover()
    second = point.discover(cookie=first.cookie)
    found = [item.envelope for item in first.registrations + second.registrations]
    assert found == [envelope(number, 1, size) for number in range(1, count + 1)]
    assert len(encode(first)) < book.MAX_ANSWER + 20 * count and second.registrations


def test_an_answer_has_at_most_so_many_registrations(point: Point, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(book, "MAX_ANSWERED", 2)
    for number in range(1, 6):
        point.register(number)
    assert len(point.discover(limit=1000).registrations) == len(point.discover().registrations) == 2


def test_answers_are_no_questions(point: Point) -> None:
    for message in (Registered(Status.OK), Discovered(Status.OK)):
        with pytest.raises(RemoteProtocolError):
            point.book.answer(peer(1), message, 0)


def test_a_run_has_its_size() -> None:
    with pytest.raises(LocalProtocolError):
        Book(b"")


@given(st.lists(st.binary(max_size=60)))
def test_any_bytes_are_answered_or_refused(requests: list[bytes]) -> None:
    point = Point()
    for data in requests:
        try:
            answer = point.book.answer(peer(1), decode(data), 0)
        except RemoteProtocolError:
            continue
        assert answer is None or decode(encode(answer)) == answer
    assert point.book.size == 0


@given(
    st.lists(st.tuples(st.sampled_from("rud"), st.integers(1, 3), st.sampled_from("ab"), st.integers(1, 30)))
)
def test_it_agrees_with_a_plain_list(steps: list[tuple[str, int, str, int]]) -> None:
    point, model = Point(), dict[tuple[str, int], float]()
    for verb, number, name, seconds in steps:
        if verb == "r":
            point.register(number, name, seconds)
            model[name, number] = point.now + seconds
        elif verb == "u":
            point.unregister(number, name)
            model.pop((name, number), None)
        else:
            point.now += seconds
        if seconds % 2:
            point.book.tick(point.now)
        for name in "ab":
            alive = {n for (space, n), end in model.items() if space == name and end > point.now}
            assert set(point.found(name)) == alive
    point.book.tick(point.now)
    assert point.book.size == sum(end > point.now for end in model.values())
    assert point.book.peers == len({n for (_, n), end in model.items() if end > point.now})


@given(st.lists(st.tuples(st.integers(1, 4), st.booleans()), max_size=30), st.integers(1, 3))
def test_who_polls_with_cookies_misses_nothing(steps: list[tuple[int, bool]], limit: int) -> None:
    point, seen, cookie = Point(), dict[int, int](), b""
    sequences = itertools.count(1)
    newest: dict[int, int] = {}
    by_envelope: dict[bytes, tuple[int, int]] = {}
    for number, looks in steps:
        newest[number] = next(sequences)
        by_envelope[envelope(number, newest[number])] = (number, newest[number])
        point.register(number, sequence=newest[number])
        while looks:
            answer = point.discover(cookie=cookie, limit=limit)
            cookie = answer.cookie
            seen |= dict(by_envelope[item.envelope] for item in answer.registrations)
            looks = bool(answer.registrations)
    while (answer := point.discover(cookie=cookie, limit=limit)).registrations:
        cookie = answer.cookie
        seen |= dict(by_envelope[item.envelope] for item in answer.registrations)
    assert seen == newest
