"""Those who did not answer are dialled again, but nobody is flooded on the word of strangers."""

import pytest
import trio
from trio.testing import MockClock

from peertunnel.discovery import Candidate
from peertunnel.errors import NotFound
from peertunnel.identity import Identity
from peertunnel.pace import AGAIN, BURST, MAX_PLACES, Pace
from tests.node.board import SERVICE, Board, node_on, now
from tests.node.pair import Log

SECONDS = 30
NAMED = 200  # candidates


def addresses(host: str, count: int) -> list[str]:
    kind = "ip6" if ":" in host else "ip4"
    return [f"/{kind}/{host}/tcp/{port}" for port in range(count)]


async def test_one_network_is_not_dialled_for_ever(autojump_clock: MockClock) -> None:
    pace = Pace()
    flood = addresses("192.0.2.1", 10 * int(BURST))
    assert len(pace.admit(flood)) == BURST
    assert not pace.admit(flood)
    assert pace.admit(addresses("192.0.2.2", 3)) == tuple(addresses("192.0.2.2", 3))
    await trio.sleep(1)
    assert len(pace.admit(flood)) == AGAIN
    await trio.sleep(1000)
    assert len(pace.admit(flood)) == BURST


async def test_one_subscribers_ipv6_addresses_are_one_network() -> None:
    pace = Pace()
    hosts = [f"2001:db8::{number:x}" for number in range(1, 2 * int(BURST))]
    assert len(pace.admit(f"/ip6/{host}/udp/1/quic-v1" for host in hosts)) == BURST


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_this_machine_is_dialled_at_will(host: str) -> None:
    flood = addresses(host, 10 * int(BURST))
    assert len(Pace().admit(flood)) == len(flood)


@pytest.mark.parametrize(
    "address", ["/dns4/example.org/tcp/1", "/ip6zone/eth0/ip6/fe80::1/tcp/1", "/ip4", ""]
)
async def test_any_address_counts(address: str) -> None:
    assert len(Pace().admit([address] * 2 * int(BURST))) == BURST


async def test_few_networks_are_counted() -> None:
    pace = Pace()
    for number in range(2 * MAX_PLACES):
        pace.admit([f"/ip4/10.0.{number >> 8}.{number & 255}/tcp/1"])
    assert len(pace._left) == MAX_PLACES


async def test_many_candidates_at_one_address_are_tried_once_each_and_then_slowly(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    """Nobody else could tell how many packets come to a third party: the dials themselves are counted."""
    monkeypatch.setattr("peertunnel.node.time.time", now)
    board, dials = Board(), list[str]()
    topic = SERVICE.topics_to_publish(now())[0]
    for _ in range(NAMED):
        peer_id = Identity.ephemeral().peer_id
        board.post(topic, Candidate(peer_id, (f"/ip4/192.0.2.1/tcp/1/p2p/{peer_id}",), "board"))
    async with node_on(board) as here, trio.open_nursery() as nursery:

        async def dial(peer_id: str, addresses: tuple[str, ...], within: float) -> None:
            dials.extend(addresses)
            raise NotFound("nobody is there")

        monkeypatch.setattr(here.host, "dial", dial)
        nursery.start_soon(here.meet, SERVICE, Log(), lambda refusal: None)
        await trio.sleep(SECONDS)
        assert NAMED + AGAIN * SECONDS / 2 < len(dials) <= NAMED + BURST + AGAIN * SECONDS
        nursery.cancel_scope.cancel()
