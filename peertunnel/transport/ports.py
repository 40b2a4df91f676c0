"""Many sockets against many probes: how two ends find one path through a NAT that maps anew for each destination.

The opener calls the prober from many sockets; each call has the NAT open another port, for the prober's address alone.
The prober sends packets to one port after the other. The socket that gets one of them is where the connection begins.
"""

import errno
import random
from collections.abc import Iterable
from itertools import chain
from typing import TYPE_CHECKING

import trio
from libp2p.peer.id import ID

from peertunnel.protocols.punch import FIRST_PORT, LAST_PORT, likely_ports
from peertunnel.transport import identify
from peertunnel.transport.connection import MuxedConnection
from peertunnel.transport.hole import PACKET
from peertunnel.transport.observed import read_observed
from peertunnel.transport.quic.udp import UdpSocket
from peertunnel.transport.swarm import Network
from peertunnel.transport.tcp import SockAddress
from peertunnel.transport.upgrade import UpgradeError
from peertunnel.transport.way import DIRECT, PUNCHED

if TYPE_CHECKING:
    from peertunnel.transport.quic.transport import Quic

SOCKETS = 256  # of the opener; a quarter of the files that a process usually may have
SPARE = 64  # files that are left for others where there are fewer
PROBES = 2048  # of the prober, twice as many as miss 256 sockets 2 times in 100: a NAT at home knows 4,096 flows or more
RATE = 400.0  # packets a second; 500 at the most
BURST = 4  # of them at once
LINGER = 1.5  # seconds after the last probe for the opener's dial: three round trips across the world
LOOK = 2.0  # seconds for an observer to tell where it sees a new socket
MAX_DIALS = 3  # of one opener: one is enough unless its packets are lost
_OUT_OF_FILES = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class Pace:
    """Lets through no more than RATE packets a second, however late they come."""

    def __init__(self) -> None:
        self._count, self._due = 0, 0.0

    async def wait(self) -> None:
        """Wait until one more may leave."""
        if self._count % BURST == 0:
            await trio.sleep_until(self._due)
            self._due = trio.current_time() + BURST / RATE
        self._count += 1


class Sockets:
    """The opener's end.

    Args:
        network: takes the connection.
        quic: dials.
        pace: of our packets.
        peer_id: who must answer.
        to: where the peer's NAT has it.
    """

    def __init__(self, network: Network, quic: "Quic", pace: Pace, peer_id: ID, to: SockAddress) -> None:
        self._network = network
        self._quic = quic
        self._pace = pace
        self._peer_id = peer_id
        self._to = to
        self._sockets: list[UdpSocket] = []
        self._dials = 0
        self.all_called = trio.Event()

    async def run(self) -> None:
        """Call from all sockets, and dial from those that are hit, until one is connected.

        Raises:
            OSError: there is no socket.
        """
        self._sockets = _open()
        try:
            async with trio.open_nursery() as nursery:
                for udp in self._sockets.copy():
                    await self._pace.wait()
                    try:
                        udp.send(random.randbytes(random.randint(*PACKET)), 0, self._to, None)
                    except OSError:
                        continue  # no way there, or an earlier one came to nobody
                    nursery.start_soon(self._watch, udp, nursery.cancel_scope)
                self.all_called.set()
                await trio.sleep_forever()
        finally:
            for udp in self._sockets:
                udp.close()

    async def _watch(self, udp: UdpSocket, others: trio.CancelScope) -> None:
        source = await self._hit(udp)
        if self._dials >= MAX_DIALS:
            return
        self._dials += 1
        self._sockets.remove(udp)  # it lives as long as the connection
        try:
            connection = await self._quic.dial_from(udp, self._peer_id, source, PUNCHED)
            with trio.CancelScope(shield=True):
                if others.cancel_called:  # two were hit, and both dials came through at once
                    return await connection.close()
                others.cancel()
                await self._network.take_in(connection)
        except (OSError, UpgradeError):
            self._dials -= 1  # it was somebody else, or the packets were lost

    async def _hit(self, udp: UdpSocket) -> SockAddress:
        """Wait for a packet from the peer; return where it came from."""
        while True:
            await trio.lowlevel.wait_readable(udp.sock.fileno())
            try:
                _, _, source, _ = udp.receive()
            except OSError:  # also that there is none: what woke us was an error
                udp.failures()
                continue
            if source[0] == self._to[0]:
                return source


def _open() -> list[UdpSocket]:
    """Open as many sockets as there may be."""
    sockets: list[UdpSocket] = []
    try:
        while len(sockets) < SOCKETS:
            sockets.append(UdpSocket(("0.0.0.0", 0)))
    except OSError as error:
        for udp in (spared := sockets[-SPARE:] if error.errno in _OUT_OF_FILES else sockets.copy()):
            udp.close()
            sockets.remove(udp)
        if not spared or error.errno not in _OUT_OF_FILES:
            raise
    return sockets


async def port_given_now(quic: "Quic", observers: Iterable[MuxedConnection]) -> list[str]:
    """Ask somebody who sees us where a new socket is seen: many NATs count, so the next ones will be seen close by."""
    for observer in observers:
        peer_id, place = observer.peer_id, observer.get_remote_address()
        if place is None:
            continue
        with trio.move_on_after(LOOK):
            try:
                connection = await quic.dial_from(UdpSocket(("0.0.0.0", 0)), peer_id, place, DIRECT)
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(connection.start)
                    answer = await identify.request(connection)
                    await connection.close()
                return list(filter(None, [read_observed(answer.observed)]))
            except (OSError, UpgradeError):
                break  # the port is a hint: it goes without
    return []


async def probe(quic: "Quic", pace: Pace, ip: str, seen: list[int]) -> None:
    """Send packets to the ports of an opener, those first that are likely, and wait a little for its dial.

    Args:
        quic: has the port that the opener has called.
        pace: of our packets.
        ip: the opener's NAT.
        seen: ports that it had for others.

    Raises:
        OSError: there is no socket.
    """
    endpoint = quic.endpoint_for((ip, FIRST_PORT))
    likely = likely_ports(seen)
    chance = random.sample(range(FIRST_PORT, LAST_PORT + 1), PROBES)
    for port in list(dict.fromkeys(chain(likely, chance)))[:PROBES]:
        await pace.wait()
        endpoint.send_raw(random.randbytes(random.randint(*PACKET)), (ip, port))
    await trio.sleep(LINGER)
