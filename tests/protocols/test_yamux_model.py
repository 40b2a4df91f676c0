"""Two sessions beside their model: a few streams with one action after the other, and a thousand with many at once."""

import time
from random import Random

from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule, run_state_machine_as_test

from peertunnel.protocols.yamux import MAX_STREAMS, MAX_UNACKNOWLEDGED

from .yamux_model import ALL, Sessions

TestSessions = Sessions.TestCase
TestSessions.settings = settings(stateful_step_count=40)
PHASES = (Phase.explicit, Phase.reuse, Phase.generate)  # with so many streams, shrinking takes minutes
IN_A_CROWD = settings(max_examples=8, stateful_step_count=30, phases=PHASES)


class Crowd(Sessions):
    """A thousand streams: the rules above act on one, those below on many, in an order that a seed gives."""

    max_opened = 1000
    max_streams = MAX_STREAMS
    seeds = st.integers(0, 2**32 - 1)

    @initialize()
    def start(self) -> None:
        super().start()
        for side in (0, 1):
            self.open_many(side, MAX_UNACKNOWLEDGED)

    @precondition(lambda self: self.opened < self.max_opened)
    @rule(side=Sessions.sides, count=st.integers(1, MAX_UNACKNOWLEDGED + 1))
    def open_many(self, side: int, count: int) -> None:
        for _ in range(min(count, self.max_opened - self.opened)):
            self.open(side)

    @precondition(lambda self: self.opened)
    @rule(seed=seeds, count=st.integers(1, 1000), most=st.sampled_from([1, 100, 20_000]))
    def bustle(self, seed: int, count: int, most: int) -> None:
        """Do many things, to all streams of both ends, and to one of them more than to the others."""
        random = Random(seed)
        one = random.randrange(self.opened)
        for _ in range(count):
            side, number = random.randrange(2), random.choice((one, random.randrange(self.opened)))
            match random.randrange(24):
                case 0:
                    self.finish(side, number, True)
                case 1:
                    self.abort(side, number, True)
                case 2 | 3:
                    self.open_many(side, random.randrange(4))
                case 4 | 5 | 6 | 7:
                    self.deliver(side, random.choice((1, 12, 13, 5000, ALL)), random.random() / 100)
                case 8 | 9 | 10 | 11 | 12 | 13:
                    self.consume(side, number, random.choice((1, 5000, ALL)))
                case _:
                    self.write(side, number, random.randint(0, most), random.random() < 0.5)

    @rule(side=Sessions.sides, seed=seeds, cuts=st.integers(1, 500))
    def dribble(self, side: int, seed: int, cuts: int) -> None:
        """Carry what is under way in small pieces, many of them of one byte."""
        random = Random(seed)
        for _ in range(cuts):
            self.deliver(side, random.choice((1, 1, 2, 11, 12, 13, 100)), 0.0)


def test_a_thousand_streams_in_any_order(soak_seconds: float) -> None:
    """New examples until the time is over, at least one batch of them."""
    began = time.monotonic()
    while True:
        run_state_machine_as_test(Crowd, settings=IN_A_CROWD)
        if time.monotonic() - began >= soak_seconds:
            return
