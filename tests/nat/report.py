"""The matrix as tables, for a terminal and for docs/nat.md."""

from collections.abc import Mapping
from datetime import UTC, datetime

from tests.bench.machine import machine
from tests.nat.lab.kinds import KINDS, Kind
from tests.nat.matrix import Cell, can_be_direct

Table = Mapping[tuple[Kind, Kind], Cell]  # by the provider's kind, then the consumer's

_PAGE = """\
# Through routers

Written by `tox -e nat` (`python -m tests.nat`): change nothing by hand, run it.

{date}, {machine}.

## How it is measured

Every machine and every router is a network namespace with nftables rules, see `tests/nat/lab/`. Each link to the
internet takes {delay:g} ms in each direction, so two peers are {round_trip:g} ms apart and each of them
{half:g} ms from the relay. In each row one provider waits
behind its router, and the consumers come one after another, each from behind its own.

| router | which packets it lets in |
| --- | --- |
| none | all; public addresses |
| firewall | answers; public addresses |
| full-cone | all to a port from which something was sent; one port outside for each inside |
| restricted | those from an address that was called; one port outside for each inside |
| cone | answers; one port outside for each inside, the same for all destinations: Linux, most routers at home |
| symmetric | answers; another port outside for each destination: mobile networks, some offices |
| udp-blocked | as cone, and no UDP at all |

A cell says which path the tunnel has in the end. The number with + says how many seconds after the relayed connection
the direct one was there, without it the first connection was direct already. In brackets: seconds from the start of
the consumer's process until a byte had gone to the target and come back. The provider's router is on the left.
**relayed** in bold is where TCP could be direct.

## Where go-libp2p stays relayed

Behind a symmetric router nobody knows at which port the other end would reach it, so DCUtR fails. Two `pt` that have proven
themselves to each other then go on over QUIC (`/peertunnel/punch/1.0.0`): the end behind that router calls the other one
from 256 sockets, for which the router opens 256 ports, and the other end sends packets to its ports, first to those that
follow one seen just now, then to others at random, 2,048 at the most. 256 of 64,512 ports and 1,024 packets miss each other
twice in 100, 2,048 three times in 10,000. The socket that a packet reaches is where the connection begins. It takes 400
packets a second, no more than 20 s, and begins one second after a hole should have been there; DCUtR goes on beside. `python -m
tests.nat --runs 100 --providers cone --consumers symmetric` counts: on 2026-11-28 it was direct in 100 of 100 runs, with a
median of 2.4 s and 6.0 s at the most, and the other way round in 100 of 100, with 2.4 s and 5.0 s; go-libp2p never is. Where
both routers are symmetric the tunnel stays relayed, and `-v` says so.

Both ends must speak QUIC, and IPv4. A relay that speaks TCP and QUIC is called over both, so that both mappings are known.

## Where UDP is slowed down

Some networks let UDP through, but little of it. A transfer over QUIC that for three seconds gets between 16 KiB/s and 2 MiB/s
makes the consumer look: it has up to 1 MiB sent over the same connection, in the same direction, for 3 s at the most (libp2p's
`/perf/1.0.0`, which a provider serves to those it lets in). Where both together stay below 2 MiB/s it calls the provider over
TCP, if it has an address for that, and measures as much there. If TCP carries twice as much, it carries new tunnels until the
network changes, and `pt` says so; running ones stay where they are. Else all stays as it is, for an hour. In the laboratory
(`tests/nat/test_throttle.py`, 20 ms there and back), with UDP held to 128 KiB/s, new tunnels went over TCP 6.3 to 7.0 s after the
transfer began (six runs), and carried 4 MiB in 0.1 s; on a line that has 4 Mbit/s for both they stayed with QUIC.

## When a consumer moves

Over QUIC a transfer goes on when the consumer's router gives it another port or address, and when its machine changes to
another network: the provider learns of it by the consumer's next packet (RFC 9000, section 9). On Linux `pt` is told of each
change of addresses and routes, elsewhere it looks every two seconds. What a router changes nobody tells: a consumer to which
data was coming therefore asks for a sign of life when none has come for 0.2 to 0.4 s. Nine runs of each
(`tests/nat/test_moving.py`: 64 MiB, "slowly" 2 MiB at 0.7 MiB/s, on two busy cores) lost nothing; the longest time in which
nothing arrived, median and worst, in seconds:

| the consumer | receives | sends | receives slowly |
| --- | --- | --- | --- |
| its router forgets it and gives it another port | 0.26, at most 0.39 | 0.10, at most 0.57 | 0.26, at most 0.43 |
| its cable is pulled, another network is there | 0.08, at most 0.62 | 0.07, at most 0.41 | 0.04, at most 0.13 |
| its address goes, another one comes elsewhere | 0.06, at most 0.37 | 0.06, at most 0.10 | 0.03, at most 0.12 |

It is the end that dialled which may move, towards one that lets in who comes: in QUIC, servers stay where they are, and a
router that only lets in answers takes the new port for a stranger. There the connection ends within 14 s, its tunnels are
aborted, and new ones go another way.
"""


def page(tables: Mapping[str, Table], delay_ms: float) -> str:
    """Return the whole of docs/nat.md."""
    head = _PAGE.format(
        date=datetime.now(UTC).date().isoformat(),
        machine=machine(),
        delay=delay_ms,
        round_trip=4 * delay_ms,
        half=2 * delay_ms,
    )
    return head + "".join(f"\n## {title}\n\n{section(table)}" for title, table in tables.items())


def section(table: Table) -> str:
    """Return one table and what it adds up to."""
    columns = [kind for kind in KINDS if any(consumer == kind for _, consumer in table)]
    rows = [kind for kind in KINDS if any(provider == kind for provider, _ in table)]
    lines = ["| | " + " | ".join(columns) + " |", "| --- |" + " --- |" * len(columns)]
    for row in rows:
        cells = [
            _text(row, column, table[row, column]) if (row, column) in table else "" for column in columns
        ]
        lines.append(f"| {row} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + f"\n\n{_sum(table)}\n"


def _text(provider: Kind, consumer: Kind, cell: Cell) -> str:
    if cell.problem:
        return "**none**"
    words = [cell.path]
    if not cell.direct and can_be_direct(provider, consumer):
        words = [f"**{cell.path}**"]
    if cell.direct and cell.transport == "quic":
        words.append("quic")
    if cell.direct and cell.first_path == "relayed":
        words.append(f"+{cell.upgrade:.2f}")
    return " ".join([*words, f"({cell.first_byte:.1f})"])


def _sum(table: Table) -> str:
    able = [place for place in table if can_be_direct(*place)]
    direct = sum(table[place].direct for place in able)
    more = sum(cell.direct for place, cell in table.items() if place not in able)
    text = f"Direct in {direct} of the {len(able)} cells where TCP can be"
    text += f", and in {more} of the {len(table) - len(able)} others" if len(able) < len(table) else ""
    text += f". A byte came back in {sum(not cell.problem for cell in table.values())} of {len(table)}."
    upgrades = sorted(
        cell.upgrade
        for cell in table.values()
        if cell.direct and cell.first_path == "relayed" and cell.upgrade
    )
    if upgrades:
        text += f" From relayed to direct: median {upgrades[len(upgrades) // 2]:.2f} s, longest {upgrades[-1]:.2f} s."
    return text
