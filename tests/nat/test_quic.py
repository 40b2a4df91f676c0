"""The matrix again with UDP: QUIC where it goes, TCP where it doesn't, and by chance where go-libp2p stays relayed."""

from pathlib import Path

import pytest
import trio

from tests.nat.crossing import Trio, crossing
from tests.nat.lab.kinds import KINDS, Kind, Nat
from tests.nat.makes import Go, Make, Pt, Rust
from tests.nat.matrix import Cell, measure_row
from tests.tools import need_quic

DELAY_MS = 10.0
PATIENCE_SECONDS = 20.0  # one for DCUtR, and so much as chance takes
RELAYED_SECONDS = 1.0  # to look at a path that stays relayed
AT_ONCE = 4
RACING = 2  # where QUIC must be first: it has 0.1 s, which programs that all start at once would take from it

QUIC: tuple[str, ...] = ("quic",)
BOTH = ("quic", "tcp")


@pytest.fixture(autouse=True)
def quic() -> None:
    need_quic()


async def _row(
    parties: Trio,
    provider: Kind,
    consumers: list[Kind],
    patience: float = PATIENCE_SECONDS,
    at_once: int = AT_ONCE,
) -> dict[str, Cell]:
    nats = {kind: Nat(kind, delay_ms=DELAY_MS) for kind in (*consumers, provider)}
    there: dict[str, Nat] = {kind: nats[kind] for kind in consumers}
    cells = await measure_row(
        parties, nats[provider], there, lambda _: patience, trio.CapacityLimiter(at_once)
    )
    assert not [cell.problem for cell in cells.values() if cell.problem]
    return cells


@pytest.mark.alone  # QUIC's head start in the race of both is a moment, and others may take it
@pytest.mark.timeout(120)
async def test_two_that_speak_both_take_quic_unless_udp_is_blocked() -> None:
    who = Trio(Pt(BOTH), Pt(BOTH), Pt(BOTH))
    cells = await _row(who, "cone", list(KINDS), at_once=RACING)
    assert {kind: cell.transport for kind, cell in cells.items() if cell.direct} == {
        kind: "tcp" if kind == "udp-blocked" else "quic" for kind in KINDS
    }
    assert {cell.path for kind, cell in cells.items() if kind not in ("none", "firewall")} == {"punched"}


@pytest.mark.timeout(120)
async def test_a_provider_without_udp_falls_back_to_tcp() -> None:
    who = Trio(Pt(BOTH), Pt(BOTH), Pt(BOTH))
    cells = await _row(who, "udp-blocked", ["none", "firewall", "cone"])
    assert {(cell.direct, cell.transport) for cell in cells.values()} == {(True, "tcp")}


@pytest.mark.timeout(120)
async def test_a_symmetric_provider_is_met_by_chance_unless_the_other_is_symmetric_too(
    tmp_path: Path,
) -> None:
    async with trio.open_nursery() as nursery:  # most of the time both wait
        nursery.start_soon(_met_by_chance)
        nursery.start_soon(_left_with_the_relay, tmp_path)


async def _met_by_chance() -> None:
    cells = await _row(Trio(Pt(QUIC), Pt(QUIC), Pt(QUIC)), "symmetric", ["cone"])
    assert (cells["cone"].path, cells["cone"].transport) == ("punched", "quic")


async def _left_with_the_relay(tmp_path: Path) -> None:
    symmetric = Nat("symmetric", delay_ms=DELAY_MS)
    async with crossing(Trio(Pt(QUIC), Pt(QUIC), Pt(QUIC)), symmetric, symmetric, tmp_path) as opened:
        for end in (opened.consumer, opened.site.provider):
            told = await end.event("punch-failed")
            assert told.fields["reason"] == "the routers at both ends map each destination to another port"
        assert [step.path for step in opened.steps()] == ["relayed"]


MAKES: dict[str, Make] = {"Go": Go(QUIC), "Rust": Rust(QUIC)}


@pytest.mark.usefixtures("gopeer", "rspeer")
@pytest.mark.parametrize("other", MAKES)
@pytest.mark.parametrize("is_provider", [True, False], ids=["pt provides", "pt consumes"])
async def test_other_peoples_quic_is_punched_to(other: str, is_provider: bool) -> None:
    ours, theirs = Pt(QUIC, partner="another"), MAKES[other]
    ends: tuple[Make, Make] = (ours, theirs) if is_provider else (theirs, ours)
    cells = await _row(Trio(*ends, relay=theirs), "cone", ["cone"])
    assert (cells["cone"].direct, cells["cone"].transport) == (True, "quic")
