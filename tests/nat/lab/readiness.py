"""Whether a lab can be used: a first packet that is lost costs a test a second.

Links come up after the command that asks for it. Until then packets are lost, often the ARP request or neighbour
solicitation that is repeated only a second later; so an echo goes from every machine to the core and back.
"""

import random
import select
import socket
import struct
import time
from contextlib import ExitStack, suppress

from tests.nat.lab.kinds import LabError
from tests.nat.lab.layout import CORE, Layout
from tests.nat.lab.machines import Machine, Router

SECONDS = 10.0
POLL_SECONDS = 0.002
REPEAT_SECONDS = 0.25
ECHO, ECHO6 = 8, 128  # types of ICMP and of ICMPv6


def wait_links(layout: Layout) -> None:
    """Wait until all devices are up and have a queue."""
    deadline = time.monotonic() + SECONDS
    for machine in layout.machines.values():
        while late := [line for line in machine.run("ip", "-o", "link").splitlines() if not _is_up(line)]:
            if time.monotonic() > deadline:
                raise LabError(f"links of {machine.name} do not come up: {late}")
            time.sleep(POLL_SECONDS)


def _is_up(line: str) -> bool:
    if ": lo:" in line:
        return True
    return "LOWER_UP" in line and " qdisc noop " not in line and " state DOWN " not in line


def wait_echoes(layout: Layout) -> None:
    """Wait until every machine has had an answer from the core, over IPv4 and over IPv6 where it has that."""
    ends = [m for m in layout.machines.values() if not isinstance(m, Router) and m.name != CORE]
    body = struct.pack("!HH", random.randrange(65536), 1)
    waiting: dict[socket.socket, tuple[Machine, bytes, str]] = {}
    with ExitStack() as stack:
        for machine in ends:
            here = stack.enter_context(_raw(machine, socket.AF_INET, socket.IPPROTO_ICMP))
            waiting[here] = machine, _with_checksum(body), layout.gateway
            if machine.ip6s:
                here = stack.enter_context(_raw(machine, socket.AF_INET6, socket.IPPROTO_ICMPV6))
                waiting[here] = machine, struct.pack("!BBH", ECHO6, 0, 0) + body, layout.gateway6
        _ask(waiting, body)


def _ask(waiting: dict[socket.socket, tuple[Machine, bytes, str]], body: bytes) -> None:
    deadline = time.monotonic() + SECONDS
    repeat = 0.0
    while waiting:
        now = time.monotonic()
        if now > deadline:
            raise LabError(f"no echo for {sorted(machine.name for machine, *_ in waiting.values())}")
        if now >= repeat:
            repeat = now + REPEAT_SECONDS
            for here, (_, packet, gateway) in waiting.items():
                with suppress(OSError):
                    here.sendto(packet, (gateway, 0))
        for here in select.select([*waiting], [], [], repeat - now)[0]:
            answer = here.recv(2048)
            if answer.endswith(body) and answer[-8] in (0, ECHO6 + 1):
                del waiting[here]


def _raw(machine: Machine, family: socket.AddressFamily, protocol: int) -> socket.socket:
    return machine.inside(lambda: socket.socket(family, socket.SOCK_RAW, protocol))


def _with_checksum(body: bytes) -> bytes:
    total = (ECHO << 8) + sum(struct.unpack("!HH", body))
    total = (total & 0xFFFF) + (total >> 16)
    return struct.pack("!BBH", ECHO, 0, ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF) + body
