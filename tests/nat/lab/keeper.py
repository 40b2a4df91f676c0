"""The lab's own process: it holds packets back on slow links, and removes the lab when its owner is gone.

A kernel need not have netem, so each end of a slow link is a TUN device and this process is what lies between.
It reads changes from its stdin, and the end of it as the end of the lab: the owner's death ends it, too.
"""

import fcntl
import json
import os
import random
import select
import signal
import struct
import subprocess
import sys
import time
from collections import deque
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tests.nat.lab.kinds import LabError
from tests.nat.lab.remains import remove

TUNSETIFF = 0x400454CA
IFF_TUN_NO_PI = 0x0001 | 0x1000
PACKET_BYTES = 65536
BATCH = 64  # packets read from a device before the others have their turn
QUEUE = 20000  # packets on their way; later ones are lost
DOWN_SECONDS = 0.001  # pause when a device is down and therefore always ready
START_SECONDS = 10.0
END_SECONDS = 10.0
ROOT = Path(__file__).parents[3]


def open_device(name: str) -> int:
    """Make a TUN device in the namespace of this thread and give its descriptor."""
    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    fcntl.ioctl(descriptor, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TUN_NO_PI))
    return descriptor


@dataclass(slots=True)
class Slow:
    """A link: the descriptors of its two ends, and the milliseconds that a packet takes."""

    link: int
    ends: tuple[int, int]
    delay_ms: float
    jitter_ms: float


class Keeper:
    """The owner's end."""

    def __init__(self, prefix: str, links: list[Slow]) -> None:
        descriptors = [end for link in links for end in link.ends]
        try:
            # Without site-packages, since it starts with each lab.
            self._process = subprocess.Popen(
                [
                    sys.executable,
                    "-S",
                    "-E",
                    "-m",
                    __name__,
                    prefix,
                    json.dumps([asdict(it) for it in links]),
                ],
                cwd=ROOT,
                pass_fds=descriptors,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                start_new_session=True,
            )
        finally:
            for descriptor in descriptors:
                os.close(descriptor)

    @property
    def pid(self) -> int:
        """Its process."""
        return self._process.pid

    def wait_ready(self) -> None:
        """Wait until it forwards."""
        output = self._process.stdout
        assert output is not None
        with output:
            if not select.select([output], [], [], START_SECONDS)[0] or output.read(1) != b"r":
                raise LabError("the lab's keeper did not start")

    def set(self, link: int, delay_ms: float, jitter_ms: float) -> None:
        """Change a link."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([link, delay_ms, jitter_ms]).encode() + b"\n")
        self._process.stdin.flush()

    def close(self) -> None:
        """End it, and thereby the lab."""
        assert self._process.stdin is not None
        with suppress(OSError):
            self._process.stdin.close()
        try:
            self._process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


@dataclass(slots=True)
class Direction:
    """Packets from one end of a link to the other."""

    link: Slow
    source: int
    sink: int
    queue: deque[tuple[float, bytes]] = field(default_factory=deque)
    last: float = 0.0

    def take(self, now: float) -> None:
        """Read what has arrived, and note when it is due; nothing overtakes."""
        try:
            for _ in range(BATCH):
                packet = os.read(self.source, PACKET_BYTES)
                due = now + (self.link.delay_ms + self.link.jitter_ms * random.random()) / 1e3
                self.last = max(due, self.last)
                if len(self.queue) < QUEUE:
                    self.queue.append((self.last, packet))
        except BlockingIOError:
            pass
        except OSError:
            time.sleep(DOWN_SECONDS)

    def give(self, now: float) -> float | None:
        """Write what is due, and tell when the next packet is."""
        while self.queue and self.queue[0][0] <= now:
            with suppress(OSError):
                os.write(self.sink, self.queue.popleft()[1])
        return self.queue[0][0] if self.queue else None


class Orders:
    """What the owner writes, line by line."""

    def __init__(self, links: list[Slow]) -> None:
        self._links = {link.link: link for link in links}
        self._text = b""

    def follow(self) -> bool:
        """Read and do what is there; tells whether there will be more."""
        data = os.read(0, PACKET_BYTES)
        *lines, self._text = (self._text + data).split(b"\n")
        for line in lines:
            number, delay_ms, jitter_ms = json.loads(line)
            self._links[number].delay_ms, self._links[number].jitter_ms = delay_ms, jitter_ms
        return bool(data)


def keep(links: list[Slow]) -> None:
    """Forward until the owner is gone."""
    pairs = [(link, *ends) for link in links for ends in (link.ends, link.ends[::-1])]
    directions = {source: Direction(link, source, sink) for link, source, sink in pairs}
    orders = Orders(links)
    while True:
        next_due = [due for each in directions.values() if (due := each.give(time.monotonic())) is not None]
        patience = max(0.0, min(next_due) - time.monotonic()) if next_due else None
        readable = select.select([0, *directions], [], [], patience)[0]
        now = time.monotonic()
        for descriptor in readable:
            if descriptor:
                directions[descriptor].take(now)
            elif not orders.follow():
                return


def main(prefix: str, links: str) -> None:
    """Run as the lab's process."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    slow = [Slow(**link) for link in json.loads(links)]
    os.write(1, b"r")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    keep(slow)
    for link in slow:
        for end in link.ends:
            os.close(end)
    remove(prefix)


if __name__ == "__main__":
    main(*sys.argv[1:])
