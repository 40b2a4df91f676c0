"""Dialling: all addresses of a peer, one shortly after the other, and the first that proves to be the peer wins.

Happy Eyeballs (RFC 8305): families alternate, an attempt that fails starts the next one at once, and one that has not
decided yet does not hold the others up. An attempt counts as won only after the handshake: another host behind a
reused private address must not win the race.
"""

import os
import socket
from collections.abc import Awaitable, Callable, Sequence
from itertools import chain, zip_longest

import trio
from libp2p.peer.id import ID
from multiaddr import Multiaddr

from peertunnel.transport.upgrade import UpgradeError
from peertunnel.transport.yamux import MuxedConnection

ATTEMPT_DELAY = 0.1  # seconds between attempts; the least that RFC 8305, section 5 recommends
MAX_ADDRESSES = 32  # addresses of one peer that are tried; more than any honest peer has

SockAddress = tuple[str, int] | tuple[str, int, int, int]
Upgrade = Callable[[socket.socket, ID], Awaitable[MuxedConnection]]


class DialError(Exception):
    """No address led to the peer; `reasons` says why, address by address."""

    def __init__(self, reasons: Sequence[tuple[str, str]]) -> None:
        self.reasons = tuple(reasons)
        super().__init__(
            "; ".join(f"{address}: {reason}" for address, reason in reasons) or "no usable address"
        )


def is_dialable(address: Multiaddr) -> bool:
    """Return whether an address is one that we can dial: an IP address or a name, and a TCP port."""
    names = [protocol.name for protocol in address.protocols()]
    return names[:2] in (
        ["ip4", "tcp"],
        ["ip6", "tcp"],
        ["dns", "tcp"],
        ["dns4", "tcp"],
        ["dns6", "tcp"],
    ) and (names[2:] in ([], ["p2p"]))


async def dial(
    peer_id: ID, addresses: Sequence[Multiaddr], upgrade: Upgrade, within: float
) -> MuxedConnection:
    """Connect to a peer by whichever address works first.

    Args:
        peer_id: who must answer.
        addresses: where it may be; those that we cannot dial are passed over.
        upgrade: secures a connected socket.
        within: seconds for all of it.

    Raises:
        DialError: no address led to the peer in time.
    """
    race = _Race(peer_id, upgrade)
    with trio.move_on_after(within):
        targets = await _resolve(
            [address for address in addresses if is_dialable(address)][:MAX_ADDRESSES], race
        )
        await race.run(targets)
    if race.winner is None:
        raise DialError(race.reasons or [(str(address), "timed out") for address in addresses])
    return race.winner


class _Race:
    def __init__(self, peer_id: ID, upgrade: Upgrade) -> None:
        self.winner: MuxedConnection | None = None
        self.reasons: list[tuple[str, str]] = []
        self._peer_id = peer_id
        self._upgrade = upgrade

    async def run(self, targets: Sequence[tuple[Multiaddr, SockAddress]]) -> None:
        async with trio.open_nursery() as nursery:
            for address, target in targets:
                failed = trio.Event()
                nursery.start_soon(self._attempt, address, target, failed, nursery.cancel_scope)
                with trio.move_on_after(ATTEMPT_DELAY):
                    await failed.wait()

    async def _attempt(
        self, address: Multiaddr, target: SockAddress, failed: trio.Event, race: trio.CancelScope
    ) -> None:
        try:
            sock = await _connect(target)
            connection = await self._upgrade(sock, self._peer_id)
        except (OSError, UpgradeError) as error:
            self.reasons.append((str(address), getattr(error, "strerror", None) or str(error)))
            failed.set()
            return
        if self.winner is None:
            self.winner = connection
            race.cancel()
        else:
            await connection.close()


async def _connect(target: SockAddress) -> socket.socket:
    sock = socket.socket(socket.AF_INET6 if len(target) == 4 else socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        try:
            sock.connect(target)
        except BlockingIOError:
            await trio.lowlevel.wait_writable(sock.fileno())
            if code := sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                raise OSError(code, os.strerror(code)) from None
    except BaseException:
        sock.close()
        raise
    return sock


async def _resolve(addresses: Sequence[Multiaddr], race: _Race) -> list[tuple[Multiaddr, SockAddress]]:
    """Return socket addresses, IPv6 and IPv4 in turn, in the order given within each family."""
    found: dict[int, list[tuple[Multiaddr, SockAddress]]] = {4: [], 2: []}
    for address in addresses:
        name = address.protocols()[0].name
        host, port = str(address.value_for_protocol(name)), int(str(address.value_for_protocol("tcp")))
        family = {"ip6": socket.AF_INET6, "dns6": socket.AF_INET6, "dns": socket.AF_UNSPEC}.get(
            name, socket.AF_INET
        )
        try:
            infos = await trio.socket.getaddrinfo(host, port, family, socket.SOCK_STREAM)
        except OSError as error:
            race.reasons.append((str(address), error.strerror or str(error)))
            continue
        for *_, target in infos:
            found[4 if len(target) == 4 else 2].append((address, target))
    return [target for target in chain(*zip_longest(found[4], found[2])) if target is not None]
