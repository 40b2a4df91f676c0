"""Fuzz for as long as you like: `python -m tests.fuzz yamux 60`; the first bad input is printed in hex."""

import sys
from itertools import count
from time import monotonic, time

from .inputs import inputs
from .targets import TARGETS


def main(name: str, seconds: float) -> int:
    """Run a target for some seconds; return 1 at the first input that it fails."""
    seed, end, target = int(time()), monotonic() + seconds, TARGETS[name]
    for number, data in zip(count(1), inputs(name, seed), strict=False):
        try:
            target(data)
        except BaseException:
            print(f"seed {seed}, input {number}: {data.hex()}", file=sys.stderr)
            raise
        if monotonic() >= end:
            print(f"{name}: {number} inputs, nothing found")
            break
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], float(sys.argv[2])))
