"""The soak: `python -m tests.soak` writes its own part of docs/performance.md."""

import argparse
import resource
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from random import Random

import trio

from tests.bench import page
from tests.soak.load import Load
from tests.soak.report import HEADING, section
from tests.soak.stage import Stage, stage
from tests.soak.steadiness import Growth, Watch

MINUTES = 20.0
_STRETCHES = 120  # of load in a run
_LONGEST = 10.0  # seconds of load between a kill and a rest


@dataclass(frozen=True, slots=True)
class Result:
    """What came of a soak.

    Attributes:
        minutes: how long it took.
        tunnels: how many of each exchange ended as they should.
        checked: bytes.
        cut: tunnels that a kill cut.
        backs: seconds until each victim's route carried tunnels again, by the route's name.
        growths: the samples of those who last.
        faults: all that should not have been.
    """

    minutes: float
    tunnels: Counter[str]
    checked: int
    cut: int
    backs: dict[str, list[float]]
    growths: list[Growth]
    faults: list[str]


async def soak(minutes: float, seed: int) -> Result:
    """Have everybody carry the load for so long, with a kill and a rest again and again."""
    load, began = Load(Random(seed)), trio.current_time()
    with tempfile.TemporaryDirectory() as home:
        async with trio.open_nursery() as nursery:
            port = await nursery.start(load.serve)
            async with stage(Path(home), f"127.0.0.1:{port}") as everybody:
                watch = Watch(everybody.lasting)
                nursery.start_soon(load.run, everybody.routes)
                load.go()
                backs = await _turns(load, everybody, watch, minutes * 60)
                async with load.rest():
                    nursery.cancel_scope.cancel()
    faults = load.failures + [fault for growth in watch.growths for fault in growth.faults()]
    took = (trio.current_time() - began) / 60
    return Result(took, load.tunnels, load.checked, load.cut, backs, watch.growths, faults)


async def _turns(load: Load, everybody: Stage, watch: Watch, seconds: float) -> dict[str, list[float]]:
    end, stretch = trio.current_time() + seconds, min(_LONGEST, seconds / _STRETCHES)
    backs: dict[str, list[float]] = {route.name: [] for route, _ in everybody.mortal}
    for route, victim in cycle(everybody.mortal):
        await trio.sleep(stretch)
        async with load.rest():
            await watch.sample()
        await trio.sleep(stretch)
        if trio.current_time() > end:
            return backs
        route.is_whole = False
        victim.kill()
        backs[route.name].append(took := await load.back(route))
        route.is_whole = True
        left = max(0.0, end - trio.current_time())
        print(
            f"{left:5.0f} s left; {victim.name}: back after {took:.1f} s; faults: {load.failures}", flush=True
        )
    raise AssertionError("there are always victims")


def main(arguments: Sequence[str]) -> int:
    """Soak, write our part of the page, and fail if anything was lost or grew."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument(
        "--minutes", type=float, default=MINUTES, help="how long; only a whole run is written down"
    )
    parser.add_argument("--seed", type=int, default=0, help="what decides what the clients do")
    options = parser.parse_args(arguments)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    result = trio.run(soak, options.minutes, options.seed)
    text = section(result)
    print(text)
    for fault in result.faults:
        print(f"FAULT: {fault}")
    if options.minutes >= MINUTES:
        page.put(HEADING, text)
    return 1 if result.faults else 0
