"""A relay's book: who has a place, who has none, and that nothing is forgotten or kept too long."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peertunnel.protocols.circuit import CircuitRefused, Status
from peertunnel.protocols.circuit.book import (
    MAX_CIRCUITS,
    MAX_CIRCUITS_PER_NETWORK,
    MAX_PER_NETWORK,
    MAX_PER_PEER,
    MAX_PER_PEER_AND_NETWORK,
    MAX_PER_TRUSTED_PEER,
    MAX_RESERVATIONS,
    MAX_UNLIMITED_PER_NETWORK,
    STRANGERS_SHARE,
    TTL,
    Book,
    network_of,
)


def refusal_of_reserve(
    book: Book, peer_id: str, network: str = "n", now: float = 0.0, is_trusted: bool = False
) -> Status | None:
    try:
        book.reserve(peer_id, network, now, is_trusted=is_trusted)
    except CircuitRefused as refused:
        return refused.status
    return None


def refusal_of_open(
    book: Book,
    caller: str,
    destination: str,
    is_trusted: bool = False,
    network: str = "",
    *,
    is_limited: bool = True,
) -> Status | None:
    is_limited = is_limited and not is_trusted
    try:
        book.open(
            caller,
            destination,
            network or caller,
            is_trusted=is_trusted,
            is_limited=is_limited,
            now=0.0,
        )
    except CircuitRefused as refused:
        return refused.status
    return None


def test_a_reservation_holds_for_an_hour_and_is_renewed() -> None:
    book = Book()
    book.reserve("a", "n", 0.0)
    assert book.is_reserved("a", TTL - 1) and not book.is_reserved("a", TTL)
    assert not book.is_reserved("b", 0.0)
    book.reserve("a", "n", 100.0)
    assert book.is_reserved("a", TTL + 99) and book.reservations == 1
    book.tick(TTL)
    assert book.reservations == 1
    book.tick(TTL + 100)
    assert book.reservations == 0


def test_a_network_has_its_share_and_who_is_in_may_renew() -> None:
    book = Book()
    for number in range(MAX_PER_NETWORK):
        assert refusal_of_reserve(book, str(number)) is None
    assert refusal_of_reserve(book, "x") is Status.RESERVATION_REFUSED
    assert refusal_of_reserve(book, "0") is None
    assert refusal_of_reserve(book, "x", "another") is None
    assert refusal_of_reserve(book, "x", "n") is Status.RESERVATION_REFUSED
    assert book.is_reserved("x", 0.0)  # where it was before
    book.release("5")
    assert refusal_of_reserve(book, "y") is None


def test_all_of_them_are_bounded_and_expired_ones_make_room() -> None:
    book = Book()
    for number in range(int(MAX_RESERVATIONS * STRANGERS_SHARE)):
        assert refusal_of_reserve(book, str(number), f"n{number}") is None
    assert refusal_of_reserve(book, "x", "nx") is Status.RESERVATION_REFUSED
    for number in range(
        book.reservations, MAX_RESERVATIONS
    ):  # what is kept for a team, be it all in one place
        assert refusal_of_reserve(book, str(number), is_trusted=True) is None
    assert refusal_of_reserve(book, "x", is_trusted=True) is Status.RESERVATION_REFUSED
    assert refusal_of_reserve(book, "x", "nx", TTL) is None
    assert book.reservations == 1


def test_a_circuit_needs_a_reservation_and_two_peers() -> None:
    book = Book()
    book.reserve("d", "n", 0.0)
    assert refusal_of_open(book, "c", "x") is Status.NO_RESERVATION
    assert refusal_of_open(book, "d", "d") is Status.PERMISSION_DENIED
    assert refusal_of_open(book, "c", "d") is None
    with pytest.raises(CircuitRefused):
        book.open("c", "d", "n", is_trusted=False, is_limited=True, now=TTL)


@pytest.mark.parametrize(("is_trusted", "most"), [(False, MAX_PER_PEER), (True, MAX_PER_TRUSTED_PEER)])
def test_either_end_has_its_share_of_circuits(is_trusted: bool, most: int) -> None:
    book = Book()
    for destination in ("d", "e"):
        book.reserve(destination, "n", 0.0)
    for number in range(most):
        assert refusal_of_open(book, f"c{number}", "d", is_trusted) is None
    assert refusal_of_open(book, "x", "d", is_trusted) is Status.RESOURCE_LIMIT_EXCEEDED
    for number in range(most - 1):
        assert refusal_of_open(book, "c0", "e", is_trusted, f"n{number}") is None
    assert refusal_of_open(book, "c0", "e", is_trusted) is Status.RESOURCE_LIMIT_EXCEEDED
    book.close("c0", "d", "c0")
    assert refusal_of_open(book, "x", "d", is_trusted) is None
    assert refusal_of_open(book, "c0", "e", is_trusted) is None


def test_all_circuits_are_bounded() -> None:
    book = Book()
    for number in range(MAX_CIRCUITS):
        is_trusted = number >= MAX_CIRCUITS * STRANGERS_SHARE
        destination = f"d{number // MAX_PER_PEER}"
        book.reserve(destination, destination, 0.0)
        assert not is_trusted or refusal_of_open(book, "c", destination) is Status.RESOURCE_LIMIT_EXCEEDED
        assert refusal_of_open(book, f"c{number}", destination, is_trusted) is None
    book.reserve("x", "x", 0.0)
    assert refusal_of_open(book, "c", "x", is_trusted=True) is Status.RESOURCE_LIMIT_EXCEEDED
    book.close("c0", "d0", "c0")
    assert refusal_of_open(book, "c", "x", is_trusted=True) is None


def check_share_of_a_network(share: int, destinations: list[str]) -> None:
    """Have strangers from one network open their whole share of circuits, and see whom that keeps from the first peer."""
    book, first = Book(), destinations[0]
    for destination in dict.fromkeys(destinations):
        book.reserve(destination, destination, 0.0)
    for number, destination in zip(range(share), destinations, strict=True):
        assert refusal_of_open(book, f"c{number}", destination, network="n") is None
    assert refusal_of_open(book, "x", first, network="n") is Status.RESOURCE_LIMIT_EXCEEDED
    assert refusal_of_open(book, "x", first, network="another") is None
    assert refusal_of_open(book, "x", first, is_trusted=True, network="n") is None
    for peer_id in ("c0", "x"):
        book.close(peer_id, first, "n")
    assert refusal_of_open(book, "y", first, network="n") is None


def test_strangers_from_one_network_have_their_share_of_circuits() -> None:
    share = MAX_CIRCUITS_PER_NETWORK
    check_share_of_a_network(share, [f"d{number}" for number in range(share)])


def test_one_network_does_not_have_all_circuits_of_a_peer() -> None:
    check_share_of_a_network(MAX_PER_PEER_AND_NETWORK, ["d"] * MAX_PER_PEER_AND_NETWORK)


def test_strangers_do_not_have_all_circuits_of_a_peer_without_limits() -> None:
    book = Book()
    for destination in ("d", "e"):
        book.reserve(destination, "n", 0.0)

    def refusal(network: str, destination: str) -> Status | None:
        return refusal_of_open(book, f"c{book.circuits}", destination, network=network, is_limited=False)

    for _ in range(MAX_UNLIMITED_PER_NETWORK):
        assert refusal("n", "d") is None
    assert refusal("n", "d") is refusal("n", "e") is Status.RESOURCE_LIMIT_EXCEEDED
    while book.circuits < MAX_PER_TRUSTED_PEER * STRANGERS_SHARE:
        assert refusal("another", "d") is None
    assert refusal("third", "d") is Status.RESOURCE_LIMIT_EXCEEDED
    assert refusal("third", "e") is None
    while book.circuits < MAX_CIRCUITS * STRANGERS_SHARE:
        assert refusal(f"n{book.circuits}", "e") is None
    book.reserve("f", "n", 0.0)
    assert refusal("fourth", "f") is Status.RESOURCE_LIMIT_EXCEEDED
    for destination in ("d", "e", "f"):  # what is kept for a team, be it all in one place
        assert refusal_of_open(book, "member", destination, is_trusted=True, network="n") is None


peers = st.sampled_from("abcd")


@given(st.lists(st.tuples(st.sampled_from(["reserve", "release", "open", "close", "tick"]), peers, peers)))
def test_its_counts_are_those_of_what_it_was_told(steps: list[tuple[str, str, str]]) -> None:
    book, reserved, running, now = Book(), set[str](), Counter[tuple[str, str]](), 0.0
    for step, peer, other in steps:
        now += 1
        if step == "reserve":
            book.reserve(peer, other, now)
            reserved.add(peer)
        elif step == "release":
            book.release(peer)
            reserved.discard(peer)
        elif step == "open":
            try:
                book.open(peer, other, peer, is_trusted=False, is_limited=True, now=now)
                assert peer != other and other in reserved
                running[peer, other] += 1
            except CircuitRefused:
                is_too_much = running[peer, other] >= MAX_PER_PEER_AND_NETWORK
                assert (
                    peer == other or other not in reserved or is_too_much or running.total() >= MAX_PER_PEER
                )
        elif step == "close" and running[peer, other]:
            book.close(peer, other, peer)
            running[peer, other] -= 1
        assert (book.reservations, book.circuits) == (len(reserved), running.total())
    for peer in "abcd":
        book.release(peer)
    assert book._per_network == Counter()
    for (peer, other), count in running.items():
        for _ in range(count):
            book.close(peer, other, peer)
    assert book._per_peer == book._calls == book._pairs == Counter() and book.circuits == 0


def test_a_network_is_what_one_subscriber_has() -> None:
    assert network_of("192.0.2.7") != network_of("192.0.2.8")
    assert network_of("2001:db8:0:100::1") == network_of("2001:db8:0:1ff::1")
    assert network_of("2001:db8:0:100::1") != network_of("2001:db8:0:200::1")
    assert network_of("fe80::1%eth0") == network_of("fe80::2")
