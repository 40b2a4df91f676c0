"""Two `pt` and a `pt relay`, from behind every kind of router to every other: a byte flows, and directly where it can."""

from functools import partial
from statistics import median

import pytest
import trio

from tests.nat.crossing import Trio
from tests.nat.lab.kinds import KINDS, Kind, Nat
from tests.nat.makes import Go, Make, Pt, Rust
from tests.nat.matrix import Cell, can_be_direct, measure_row
from tests.nat.together import together

DELAY_MS = 10.0  # of each link: 40 ms there and back
PATIENCE_SECONDS = 15.0  # for a direct path, on a machine that starts other consumers meanwhile
RELAYED_SECONDS = 1.0  # to look at a path that stays relayed
AT_ONCE = 4

OURS = Trio(Pt(), Pt(), Pt())


async def _row(parties: Trio, provider: Nat, consumers: dict[str, Nat], direct: set[str]) -> dict[str, Cell]:
    def patience(name: str) -> float:
        return PATIENCE_SECONDS if name in direct else RELAYED_SECONDS

    cells = await measure_row(parties, provider, consumers, patience, trio.CapacityLimiter(AT_ONCE))
    assert not [cell.problem for cell in cells.values() if cell.problem]
    assert {name for name, cell in cells.items() if cell.direct} >= direct, cells
    return cells


@pytest.mark.timeout(120)
@pytest.mark.parametrize("provider", KINDS)
async def test_a_byte_flows_and_directly_where_theory_allows_it(provider: Kind) -> None:
    consumers: dict[str, Nat] = {kind: Nat(kind, delay_ms=DELAY_MS) for kind in KINDS}
    direct: set[str] = {kind for kind in KINDS if can_be_direct(provider, kind)}
    await _row(OURS, Nat(provider, delay_ms=DELAY_MS), consumers, direct)


@pytest.mark.alone
@pytest.mark.parametrize(
    ("nat", "seconds", "consumers"),
    [
        pytest.param(Nat("cone", delay_ms=10), 1.0, 1, id="RTT 40 ms"),
        pytest.param(Nat("cone", delay_ms=75), 3.0, 1, id="RTT 300 ms"),
        # A SYN that gets lost twice at either end takes 3 s, which happens in 2 of 100: the median counts.
        pytest.param(Nat("cone", delay_ms=10, loss=0.05), 3.0, 3, id="RTT 40 ms, and 5 % lost"),
    ],
)
async def test_the_direct_path_comes_soon_after_the_relayed_one(
    nat: Nat, seconds: float, consumers: int
) -> None:
    names = [f"cone{number}" for number in range(consumers)]
    cells = (await _row(OURS, nat, dict.fromkeys(names, nat), set(names))).values()
    assert {cell.first_path for cell in cells} == {"relayed"}
    assert median(cell.upgrade for cell in cells if cell.upgrade is not None) < seconds


@pytest.mark.parametrize("unsolicited", ["reject", "accept"])
async def test_routers_that_answer_strangers_are_no_obstacle(unsolicited: str) -> None:
    nat = Nat("cone", delay_ms=DELAY_MS, unsolicited=unsolicited)  # type: ignore[arg-type]
    await _row(OURS, nat, {"cone": nat}, {"cone"})


async def test_the_same_prefix_on_both_sides_is_no_obstacle() -> None:
    nat = Nat("cone", delay_ms=DELAY_MS, lan="192.168.1.0/24")
    await _row(OURS, nat, {"cone": nat}, {"cone"})


async def test_a_providers_symmetric_router_leaves_the_relay() -> None:
    nat = Nat("cone", delay_ms=DELAY_MS, behind="symmetric")
    cells = await _row(OURS, nat, {"cone": nat}, set())
    assert cells["cone"].path == "relayed"


async def test_ipv6_goes_through_firewalls_where_ipv4_does_not() -> None:
    nat = Nat("symmetric", delay_ms=DELAY_MS, ipv6=True)
    await _row(OURS, nat, {"ipv6": nat}, {"ipv6"})


MAKES: dict[str, Make] = {"pt": Pt(partner="another"), "Go": Go(), "Rust": Rust()}
MIXED = [
    (provider, relay, consumer)
    for provider in MAKES
    for relay in MAKES
    for consumer in MAKES
    if provider != consumer and "pt" in (provider, relay, consumer)
]


@pytest.mark.timeout(300)
@pytest.mark.usefixtures("gopeer", "rspeer")
async def test_other_peoples_ends_and_relays() -> None:
    await together({"-".join(who): partial(_meet, *who) for who in MIXED})


async def _meet(provider: str, relay: str, consumer: str) -> None:
    nat = Nat("cone", delay_ms=DELAY_MS)
    who = Trio(MAKES[provider], MAKES[consumer], MAKES[relay])
    cells = await _row(who, nat, {"cone": nat, "symmetric": Nat("symmetric", delay_ms=DELAY_MS)}, {"cone"})
    assert cells["symmetric"].path == "relayed"


@pytest.mark.usefixtures("gopeer", "rspeer")
@pytest.mark.parametrize("relay", ["Go", "Rust"])
async def test_two_pt_behind_other_peoples_relays(relay: str) -> None:
    nat = Nat("cone", delay_ms=DELAY_MS)
    await _row(Trio(Pt(), Pt(), MAKES[relay]), nat, {"cone": nat}, {"cone"})
