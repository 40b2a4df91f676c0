"""Hole punching with bare sockets: what the routers between two machines allow, whoever asks."""

import select
import socket
import threading
import time
from contextlib import ExitStack, suppress

from tests.nat.lab.machines import Machine
from tests.nat.lab.probes import CONNECT_SECONDS, TCP, UDP, Address, bound, listening, udp_mapping

INTERVAL_SECONDS = 0.05  # between UDP packets
DIAL_SECONDS = 1.0  # for one attempt
REDIAL_SECONDS = 0.1
ACCEPT_SECONDS = 0.1  # between looks whether it is over
HELLO = b"hello"


def udp_punch(left: Machine, right: Machine, server: Machine, seconds: float = 5.0) -> float | None:
    """Send to each other's mapping until both have heard back; returns after how many seconds, or None."""
    with (
        bound(server, UDP, ip=server.ip, shared=False) as there,
        bound(left, UDP) as one,
        bound(right, UDP) as two,
    ):
        outside = udp_mapping(one, there), udp_mapping(two, there)
        if outside[0] is None or outside[1] is None:
            return None
        peers: dict[socket.socket, Address] = {one: outside[1], two: outside[0]}
        return _exchange(peers, there.getsockname(), seconds)


def _exchange(peers: dict[socket.socket, Address], server: Address, seconds: float) -> float | None:
    """Answers go where a packet really came from, so that a router with many mappings can be found, too."""
    began = time.monotonic()
    heard: set[socket.socket] = set()
    acknowledged: set[socket.socket] = set()
    while (now := time.monotonic()) < began + seconds:
        for here, peer in peers.items():
            with suppress(OSError):
                here.sendto(b"ack" if here in heard else b"syn", peer)
        while time.monotonic() < now + INTERVAL_SECONDS:
            for here in select.select([*peers], [], [], INTERVAL_SECONDS)[0]:
                data, source = here.recvfrom(100)
                if source != server:
                    heard.add(here)
                    peers[here] = source
                    acknowledged |= {here} if data == b"ack" else set()
        if len(acknowledged) == len(peers):
            return time.monotonic() - began
    return None


def tcp_punch(
    left: Machine,
    right: Machine,
    server: Machine,
    skew: float = 0.0,
    seconds: float = 5.0,
    listen: bool = False,
) -> float | None:
    """Dial each other from the ports that a server has seen; returns after how many seconds that worked, or None.

    The right side begins `skew` seconds later. With `listen` both also listen on their ports, as libp2p does; without
    it only a simultaneous open can work.
    """
    with ExitStack() as stack:
        seen = [_seen(stack, machine, server) for machine in (left, right)]
        race = _Race(seconds)
        threads = []
        for number, machine in enumerate((left, right)):
            port, peer = seen[number][0], seen[1 - number][1]
            wait = skew if number else 0.0
            threads.append(threading.Thread(target=race.dial, args=(machine, port, peer, wait), daemon=True))
            if listen:
                threads.append(threading.Thread(target=race.accept, args=(machine, port), daemon=True))
        for thread in threads:
            thread.start()
        race.over.wait(seconds)
        took = race.seconds
        race.over.set()
        for thread in threads:
            thread.join()
        return took


def _seen(stack: ExitStack, machine: Machine, server: Machine) -> tuple[int, Address]:
    """Connect to the server and keep that open: the port here, and the address that the server sees."""
    listener = stack.enter_context(listening(server, ip=server.ip))
    here = stack.enter_context(bound(machine, TCP))
    here.settimeout(CONNECT_SECONDS)
    here.connect(listener.getsockname())
    there, address = listener.accept()
    stack.enter_context(there)
    return here.getsockname()[1], address


class _Race:
    """Threads of which the first that hears the other side's hello ends it for all."""

    def __init__(self, seconds: float) -> None:
        self.over = threading.Event()
        self.seconds: float | None = None
        self._began = time.monotonic()
        self._deadline = self._began + seconds

    def dial(self, machine: Machine, port: int, peer: Address, wait: float) -> None:
        self.over.wait(wait)
        while not self._ended():
            with bound(machine, TCP, port) as here, suppress(OSError):
                here.settimeout(DIAL_SECONDS)
                here.connect(peer)
                self._greet(here)
            self.over.wait(REDIAL_SECONDS)

    def accept(self, machine: Machine, port: int) -> None:
        with listening(machine, port) as listener:
            listener.settimeout(ACCEPT_SECONDS)
            while not self._ended():
                with suppress(OSError):
                    self._greet(listener.accept()[0])

    def _greet(self, here: socket.socket) -> None:
        with here:
            here.settimeout(DIAL_SECONDS)
            here.sendall(HELLO)
            if here.recv(len(HELLO)) == HELLO and not self.over.is_set():
                self.seconds = time.monotonic() - self._began
                self.over.set()

    def _ended(self) -> bool:
        return self.over.is_set() or time.monotonic() > self._deadline
