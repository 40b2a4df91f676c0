"""Provider records: they expire, stay bounded, and a flood from one network costs nobody else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peertunnel.protocols.kademlia import providers
from peertunnel.protocols.kademlia.messages import MAX_ADDRESSES, Contact
from peertunnel.protocols.kademlia.providers import ADDRESS_EXPIRY, EXPIRY, MAX_PER_KEY, Providers

KEY = b"key"
HONEST = Contact(b"honest", (b"here",))


def flooder(number: int) -> Contact:
    return Contact(number.to_bytes(4), (b"there",))


def test_a_record_is_kept_and_renewed_and_expires() -> None:
    records = Providers()
    records.add(KEY, HONEST, None, 0)
    records.add(KEY, Contact(b"honest", (b"elsewhere",)), None, 10)
    assert len(records) == 1
    assert records.of(KEY, 10) == [Contact(b"honest", (b"elsewhere",))]
    assert records.of(KEY, 10 + ADDRESS_EXPIRY) == [Contact(b"honest")]
    assert records.of(KEY, 10 + EXPIRY) == []
    assert len(records) == 0
    assert records.of(b"another", 0) == []


def test_a_sweep_forgets_what_has_expired() -> None:
    records = Providers()
    records.add(KEY, HONEST, None, 0)
    records.add(b"later", HONEST, None, 1)
    records.tick(EXPIRY)
    assert len(records) == 1
    records.remove(b"later", HONEST.peer_id)
    records.remove(b"later", HONEST.peer_id)
    assert len(records) == 0


def test_a_record_has_only_so_many_addresses() -> None:
    records = Providers()
    records.add(KEY, Contact(b"p", tuple(bytes([n]) for n in range(100))), None, 0)
    assert len(records.of(KEY, 0)[0].addresses) == MAX_ADDRESSES


@pytest.mark.parametrize("flooding", ["192.0.2.0/24", None])
def test_ten_thousand_records_of_one_network_push_nobody_else_out(flooding: str | None) -> None:
    records, late = Providers(), Contact(b"late", (b"here",))
    records.add(KEY, HONEST, "198.51.100.0/24", 0)
    for number in range(10_000):
        records.add(KEY, flooder(number), flooding, number)
    records.add(KEY, late, "203.0.113.0/24", 10_000)
    for number in range(10_000, 20_000):
        records.add(KEY, flooder(number), flooding, number)
    found = records.of(KEY, 20_000)
    assert {HONEST, late} <= set(found)
    assert len(found) == len(records) == MAX_PER_KEY


def test_a_flood_from_home_leaves_who_was_there_and_lets_in_who_comes() -> None:
    records = Providers()
    records.add(KEY, HONEST, None, 0)
    for number in range(10_000):
        records.add(KEY, flooder(number), None, number)
    records.add(KEY, Contact(b"late"), None, 10_000)
    for number in range(10_000, 10_000 + MAX_PER_KEY // 2 - 1):
        records.add(KEY, flooder(number), None, number)
    assert {HONEST.peer_id, b"late"} <= {contact.peer_id for contact in records.of(KEY, 10_000)}


def test_a_flood_of_keys_pushes_nobody_else_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(providers, "MAX_RECORDS", 300)
    records = Providers()
    records.add(KEY, HONEST, "198.51.100.0/24", 0)
    for number in range(1000):
        records.add(number.to_bytes(4), flooder(number), "192.0.2.0/24", 0)
    assert len(records) == 300
    assert records.of(KEY, 0) == [HONEST]


@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.integers(0, 40), st.sampled_from([None, "a", "b"]), st.booleans())
    )
)
def test_the_books_are_right(steps: list[tuple[int, int, str | None, bool]]) -> None:
    records = Providers()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(providers, "MAX_PER_KEY", 8)
        patch.setattr(providers, "MAX_RECORDS", 20)
        for now, (key, number, group, comes) in enumerate(steps):
            if comes:
                records.add(bytes([key]), flooder(number), group, now)
            else:
                records.remove(bytes([key]), flooder(number).peer_id)
            found = [records.of(bytes([key]), now) for key in range(4)]
            assert max(map(len, found)) <= 8
            assert sum(map(len, found)) == len(records) <= 20
