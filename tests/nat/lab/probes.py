"""How a router behaves, found out from behind it in the words of RFC 5780."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Literal

from tests.nat.lab.machines import Machine

UDP, TCP = socket.SOCK_DGRAM, socket.SOCK_STREAM
Behaviour = Literal["blocked", "endpoint-independent", "address-dependent", "address-and-port-dependent"]
Address = tuple[str, int]

CONNECT_SECONDS = 2.0  # for what must work
SILENCE_SECONDS = 0.4  # after which nothing is taken to come
TRIES = 3


@dataclass(frozen=True, slots=True)
class Classified:
    """Which mappings a router makes, whom it lets in, and whether the port outside is the one inside."""

    mapping: Behaviour
    filtering: Behaviour
    keeps_port: bool = False


BLOCKED = Classified("blocked", "blocked")


@contextmanager
def bound(
    machine: Machine, kind: socket.SocketKind, port: int = 0, ip: str = "0.0.0.0", shared: bool = True
) -> Iterator[socket.socket]:
    """Make a socket on a machine, bound to a port that others may share."""
    family = socket.AF_INET6 if ":" in ip else socket.AF_INET
    with machine.socket(kind, family) as here:
        if shared:
            here.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            here.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        here.bind((ip, port))
        yield here


def udp_mapping(here: socket.socket, server: socket.socket) -> Address | None:
    """Return what a server sees of a socket, or None if nothing arrives."""
    server.settimeout(SILENCE_SECONDS)
    token = here.getsockname()[1].to_bytes(2, "big") + server.getsockname()[1].to_bytes(2, "big")
    for _ in range(TRIES):
        with suppress(OSError):
            here.sendto(token, server.getsockname())
        with suppress(TimeoutError):
            while True:
                data, (ip, port, *_rest) = server.recvfrom(100)
                if data == token:
                    return ip, port
    return None


def classify_udp(machine: Machine, server: Machine) -> Classified:
    """Find out how UDP is treated, with a server that has two addresses."""
    with ExitStack() as stack:
        first, again, other = (
            stack.enter_context(bound(server, UDP, ip=ip, shared=False))
            for ip in (server.ips[0], server.ips[0], server.ips[1])
        )
        here = stack.enter_context(bound(machine, UDP, shared=False))
        mappings = [udp_mapping(here, first)]
        if mappings[0] is None:
            return BLOCKED
        mappings += [udp_mapping(here, again), udp_mapping(here, other)]
        fresh = stack.enter_context(bound(machine, UDP, shared=False))
        fresh.settimeout(SILENCE_SECONDS)
        outside = udp_mapping(fresh, first)
        assert outside is not None and _arrives(first, fresh, outside), "an answer must get in"
        same_address, new_address = _arrives(again, fresh, outside), _arrives(other, fresh, outside)
        keeps = outside[1] == fresh.getsockname()[1]
        return Classified(_mapping(mappings), _filtering(same_address, new_address), keeps)


def _arrives(there: socket.socket, here: socket.socket, outside: Address) -> bool:
    there.sendto(b"in", outside)
    try:
        return here.recv(100) == b"in"
    except TimeoutError:
        return False


def classify_tcp(machine: Machine, server: Machine) -> Classified:
    """Find out how TCP is treated, with a server that has two addresses."""
    with ExitStack() as stack:
        listeners = [
            stack.enter_context(listening(server, ip=ip))
            for ip in (server.ips[0], server.ips[0], server.ips[1])
        ]
        port = 0
        mappings: list[Address | None] = []
        for listener in listeners:
            here = stack.enter_context(bound(machine, TCP, port))
            port = here.getsockname()[1]
            try:
                mappings.append(_call(stack, here, listener))
            except OSError:
                return BLOCKED
        fresh = stack.enter_context(bound(machine, TCP))
        outside = _call(stack, fresh, listeners[0])
        port = fresh.getsockname()[1]
        stack.enter_context(listening(machine, port))
        same_address, new_address = (_reaches(server, ip, outside) for ip in server.ips[:2])
        return Classified(_mapping(mappings), _filtering(same_address, new_address), outside[1] == port)


@contextmanager
def listening(machine: Machine, port: int = 0, ip: str = "0.0.0.0") -> Iterator[socket.socket]:
    """Listen on a machine, on a port that others may share."""
    with bound(machine, TCP, port, ip) as listener:
        listener.listen()
        listener.settimeout(CONNECT_SECONDS)
        yield listener


def _call(stack: ExitStack, here: socket.socket, listener: socket.socket) -> Address:
    """Connect, keep both ends open, and return what the listener sees."""
    here.settimeout(CONNECT_SECONDS)
    here.connect(listener.getsockname())
    there, (ip, port) = listener.accept()
    stack.enter_context(there)
    return ip, port


def _reaches(server: Machine, ip: str, outside: Address) -> bool:
    with bound(server, TCP, ip=ip) as there:
        there.settimeout(SILENCE_SECONDS)
        try:
            there.connect(outside)
        except OSError:
            return False
        return True


def _mapping(seen: list[Address | None]) -> Behaviour:
    first, again, other = seen
    if first != again:
        return "address-and-port-dependent"
    return "endpoint-independent" if first == other else "address-dependent"


def _filtering(same_address: bool, new_address: bool) -> Behaviour:
    if new_address:
        return "endpoint-independent"
    return "address-dependent" if same_address else "address-and-port-dependent"


def unsolicited_tcp(machine: Machine, ip: str, caller: Machine) -> str:
    """Connect to a machine at an address that it never called from: "open", "silent" or "refused"."""
    with listening(machine, ip=_any(ip)) as listener, bound(caller, TCP, ip=_any(ip)) as here:
        here.settimeout(SILENCE_SECONDS)
        try:
            here.connect((ip, listener.getsockname()[1]))
        except TimeoutError:
            return "silent"
        except ConnectionRefusedError:
            return "refused"
        return "open"


def unsolicited_udp(machine: Machine, ip: str, caller: Machine) -> str:
    """Send to a machine at an address that it never called from: "open", "silent" or "refused"."""
    with bound(machine, UDP, ip=_any(ip)) as listener, bound(caller, UDP, ip=_any(ip)) as here:
        listener.settimeout(SILENCE_SECONDS)
        here.connect((ip, listener.getsockname()[1]))
        here.send(b"in")
        try:
            listener.recv(10)
        except TimeoutError:
            with suppress(ConnectionRefusedError):
                here.send(b"again")
                return "silent"
            return "refused"
        return "open"


def _any(ip: str) -> str:
    return "::" if ":" in ip else "0.0.0.0"
