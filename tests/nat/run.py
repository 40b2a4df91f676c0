"""The command line: measure, show, write."""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import trio

from tests.interop import build
from tests.nat.crossing import Trio
from tests.nat.lab.kinds import KINDS, Kind, Nat
from tests.nat.makes import Go, Make, Pt, Rust
from tests.nat.matrix import Cell, measure_row
from tests.nat.repeated import repeat
from tests.nat.report import Table, page, section

PAGE = Path(__file__).parents[2] / "docs/nat.md"
BOTH = ("quic", "tcp")
MAKES: dict[str, Make] = {
    "pt": Pt(),
    "pt-quic": Pt(("quic",)),
    "pt-both": Pt(BOTH),
    "go": Go(),
    "go-quic": Go(("quic",)),
    "go-both": Go(BOTH),
    "rust": Rust(),
    "rust-quic": Rust(("quic",)),
}
SUBJECTS = {
    "pt, TCP": "pt/pt/pt",
    "pt, TCP and QUIC": "pt-both/pt-both/pt-both",
    "go-libp2p, TCP": "go/go/go",
    "go-libp2p, TCP and QUIC": "go-both/go-both/go-both",
}
BY_CHANCE = "pt-quic/pt-quic/pt-quic"
DELAY_MS = 10.0
PATIENCE_SECONDS = 20.0  # go-libp2p gives up after three attempts of five seconds


def main(arguments: Sequence[str]) -> int:
    """Measure what is asked for; with nothing asked for, everything, and write the page."""
    options = _parser().parse_args(arguments)
    build.main(["gopeer", *(["rspeer"] if "rust" in "".join(options.trios) else [])])
    if options.runs:
        for names in options.trios or [BY_CHANCE]:
            trio.run(_repeat, parties(names), options)
        return 0
    chosen = {trio_name: trio_name for trio_name in options.trios} or SUBJECTS
    tables: dict[str, Table] = {}
    for title, names in chosen.items():
        tables[title] = trio.run(
            _measure, parties(names), options.providers, options.consumers, options.at_once
        )
        print(f"\n{title}\n\n{section(tables[title])}", flush=True)
        for place, cell in tables[title].items():
            if cell.problem:
                print(*place, cell.problem, sep="\n", file=sys.stderr)
    if not options.trios:
        PAGE.write_text(page(tables, DELAY_MS))
    return 0


def parties(names: str) -> Trio:
    """Return who takes part, named PROVIDER/RELAY/CONSUMER; they know of each other."""
    provider, relay, consumer = (MAKES[name] for name in names.split("/"))
    if provider.name != consumer.name:
        provider, consumer = (
            replace(it, partner="another") if isinstance(it, Pt) else it for it in (provider, consumer)
        )
    return Trio(provider, consumer, relay, unlimited=True)


async def _measure(
    who: Trio, providers: Sequence[Kind], consumers: Sequence[Kind], at_once: int
) -> dict[tuple[Kind, Kind], Cell]:
    """Measure all rows side by side: most of the time they wait."""
    attention = trio.CapacityLimiter(at_once)
    table: dict[tuple[Kind, Kind], Cell] = {}

    nats = {kind: Nat(kind, delay_ms=DELAY_MS) for kind in KINDS}
    there: dict[str, Nat] = {kind: nats[kind] for kind in consumers}

    async def row(provider: Kind) -> None:
        cells = await measure_row(who, nats[provider], there, lambda _: PATIENCE_SECONDS, attention)
        table.update({(provider, consumer): cells[consumer] for consumer in consumers})

    async with trio.open_nursery() as nursery:
        for provider in providers:
            nursery.start_soon(row, provider)
    return table


async def _repeat(who: Trio, options: argparse.Namespace) -> None:
    """Measure again and again what may come out otherwise the next time."""
    for provider in options.providers:
        for consumer in options.consumers:
            here, there = (Nat(kind, delay_ms=DELAY_MS) for kind in (provider, consumer))
            runs = await repeat(who, here, there, options.runs, PATIENCE_SECONDS, options.at_once)
            print(runs, flush=True)
            for cell in runs.cells:
                if cell.problem:
                    print(cell.problem, file=sys.stderr)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.nat", description=__doc__)
    parser.add_argument(
        "trios",
        nargs="*",
        metavar="PROVIDER/RELAY/CONSUMER",
        help=f"of {', '.join(MAKES)}; only shown, not written",
    )
    for option in ("--providers", "--consumers"):
        parser.add_argument(option, nargs="+", choices=KINDS, default=KINDS, metavar="KIND")
    parser.add_argument("--runs", type=int, default=0, help="only count how often a path becomes direct")
    parser.add_argument("--at-once", type=int, default=2, help="consumers that start at a time")
    return parser
