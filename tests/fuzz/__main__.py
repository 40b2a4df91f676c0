"""Fuzz for as long as you like: `python -m tests.fuzz yamux 60`; the first bad input is shown in hex."""

import sys
from itertools import count
from time import monotonic, time

from .inputs import inputs
from .targets import TARGETS


def main(name: str, seconds: float) -> None:
    """Run a target for some seconds, or until an input makes it fail."""
    seed, end, target = int(time()), monotonic() + seconds, TARGETS[name]
    for number, data in zip(count(1), inputs(name, seed), strict=False):
        try:
            target(data)
        except BaseException as error:
            error.add_note(f"seed {seed}, input {number}: {data.hex()}")
            raise
        if monotonic() >= end:
            print(f"{name}: {number} inputs, nothing found")
            break


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]))
