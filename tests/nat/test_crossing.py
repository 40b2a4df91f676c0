"""What measures the matrix: other people's peers punch holes in it, and `pt` takes the direct paths there are."""

from functools import partial
from itertools import product

import pytest
import trio

from tests.nat.crossing import Trio
from tests.nat.lab.kinds import KINDS, Kind, Nat
from tests.nat.makes import Go, Make, Pt, Rust
from tests.nat.matrix import Cell, can_be_direct, measure_row
from tests.nat.report import section
from tests.nat.together import together

DELAY_MS = 10.0
PATIENCE_SECONDS = 12.0  # two of go-libp2p's attempts, of which the first is usually enough
RELAYED: list[Kind] = ["cone", "symmetric"]


def _nat(kind: Kind) -> Nat:
    return Nat(kind, delay_ms=DELAY_MS)


async def _row(parties: Trio, provider: Kind, consumers: list[Kind]) -> dict[str, Cell]:
    return await measure_row(
        parties,
        _nat(provider),
        {kind: _nat(kind) for kind in consumers},
        lambda kind: PATIENCE_SECONDS if can_be_direct(provider, kind) else 0.5,  # type: ignore[arg-type]
        trio.CapacityLimiter(2),
    )


@pytest.mark.usefixtures("gopeer", "rspeer")
async def test_other_peoples_peers_punch_holes_where_they_can() -> None:
    makes: dict[str, Make] = {"Go": Go(), "Rust": Rust()}
    await together(
        {"-".join(who): partial(_punch, *(makes[name] for name in who)) for who in product(makes, repeat=3)}
    )


async def _punch(provider: Make, consumer: Make, relay: Make) -> None:
    cells = await _row(Trio(provider, consumer, relay), "cone", RELAYED)
    assert [cells[kind].problem for kind in RELAYED] == ["", ""]
    assert [cells[kind].first_path for kind in RELAYED] == ["relayed", "relayed"]
    assert [cells[kind].path for kind in RELAYED] == ["direct", "relayed"]


@pytest.mark.usefixtures("gopeer")
async def test_quic_is_told_from_tcp() -> None:
    both = Go(("quic", "tcp"))
    cells = await _row(Trio(both, both, both), "firewall", ["cone", "udp-blocked"])
    assert {kind: (cell.path, cell.transport) for kind, cell in cells.items()} == {
        "cone": ("direct", "quic"),
        "udp-blocked": ("direct", "tcp"),
    }


async def test_pt_needs_no_relay_when_one_of_two_is_public() -> None:
    cells = await _row(Trio(Pt(), Pt(), Pt()), "none", ["none", "cone", "symmetric", "udp-blocked"])
    assert {cell.problem for cell in cells.values()} == {""}
    assert {(cell.first_path, cell.path) for cell in cells.values()} == {("direct", "direct")}


async def test_a_peer_that_fails_says_why() -> None:
    parties = Trio(Pt(), Pt(), Pt(transports=("smoke-signals",)))
    with pytest.raises(KeyError):
        await _row(parties, "none", ["none"])


def test_what_theory_allows() -> None:
    able = {(one, two) for one in KINDS for two in KINDS if can_be_direct(one, two)}
    assert len(able) == 36 + 6
    assert {two for one, two in able if one == "symmetric"} == {"none", "full-cone", "restricted"}
    assert all((two, one) in able for one, two in able)


def test_a_table_says_what_came_out() -> None:
    text = section(
        {
            ("none", "cone"): Cell(0.91, "direct", "direct", 0.0, "tcp"),
            ("none", "symmetric"): Cell(0.52, "relayed", "punched", 0.256, "quic"),
            ("cone", "cone"): Cell(1.04, "relayed", "relayed", 0.0, "tcp"),
            ("cone", "symmetric"): Cell(None, problem="nobody there"),
        }
    )
    *table, _, summary = text.splitlines()
    assert table == [
        "| | cone | symmetric |",
        "| --- | --- | --- |",
        "| none | direct (0.9) | punched quic +0.26 (0.5) |",
        "| cone | **relayed** (1.0) | **none** |",
    ]
    assert summary.startswith("Direct in 2 of the 3 cells where TCP can be, and in 0 of the 1 others.")
    assert "A byte came back in 3 of 4." in summary
