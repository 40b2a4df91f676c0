"""The dials of one attempt at a hole: both ends' leave at the same moment, and meet on the way.

A dial that is refused, as by a router that answers for whom it does not know, is repeated at once, a random moment later
each time, so that the two ends don't keep missing each other. A handshake that has begun is not cut short when another
one is through: the other end may have settled for this one.

QUIC's client dials as ever; the server only sends packets that mean nothing, so that its NAT lets the client's in.
"""

import errno
import logging
import random
from collections.abc import Sequence
from typing import TYPE_CHECKING

import trio
from libp2p.peer.id import ID

from peertunnel.transport.candidates import Target
from peertunnel.transport.swarm import Network
from peertunnel.transport.tcp import SockAddress, connect
from peertunnel.transport.upgrade import UpgradeError
from peertunnel.transport.way import DIRECT, PUNCHED, Way

if TYPE_CHECKING:
    from peertunnel.transport.quic.transport import Quic

REDIALS = 16  # dials of one target in an attempt: they are a few packets each, and strangers name the target
REDIAL_PAUSES = (0.01, 0.2)  # seconds until a refused dial, or a packet that opens a NAT, is repeated
PACKET = (16, 64)  # random bytes that open a NAT for QUIC; relay/DCUtR leaves their number open
_HOPELESS = (errno.ENETUNREACH, errno.EAFNOSUPPORT, errno.EINVAL, errno.EACCES)
_log = logging.getLogger(__name__)


class Hole:
    """Dials one peer at several places at once.

    Args:
        network: has the port that we listen on, and serves what comes of the dials.
        quic: dials and listens over QUIC, if there is QUIC.
        nursery: where handshakes go on when nobody waits for them any more.
        peer_id: who must be there.
    """

    def __init__(self, network: Network, quic: "Quic | None", nursery: trio.Nursery, peer_id: ID) -> None:
        self._network = network
        self._quic = quic
        self._nursery = nursery
        self._peer_id = peer_id

    async def punch(self, targets: Sequence[Target], at: float, *, is_client: bool) -> None:
        """Dial from the port that we listen on, again and again, until cancelled.

        Args:
            targets: where the peer's NAT has it.
            at: when to begin, on trio's clock; the peer is expected before.
            is_client: whether ours is the client's side of the handshakes.
        """
        addresses = [target.address for target in targets]
        with self._network.crossing(self._peer_id, addresses, is_client=is_client):
            await trio.sleep_until(at)
            async with trio.open_nursery() as nursery:
                for target in targets:
                    if target.transport == "tcp":
                        nursery.start_soon(self._hammer, target.address, is_client)
                    elif is_client:
                        nursery.start_soon(self._dial_quic, target.address, PUNCHED)
                    else:
                        nursery.start_soon(self._open, target.address)
                await trio.sleep_forever()

    async def dial(self, targets: Sequence[Target]) -> None:
        """Dial as anybody would, over TCP from any port; over when all have failed."""
        async with trio.open_nursery() as nursery:
            for target in targets:
                if target.transport == "quic":
                    nursery.start_soon(self._dial_quic, target.address, DIRECT)
                elif self._network.tcp in self._network.transports:
                    nursery.start_soon(self._try, target.address, None, True, DIRECT)

    # -- TCP ------------------------------------------------------------------------------------------------------

    async def _hammer(self, address: SockAddress, is_client: bool) -> None:
        source = self._network.tcp.source(address)
        left = REDIALS if source is not None else 0
        while left:
            failed = await self._try(address, source, is_client, PUNCHED)
            if failed in _HOPELESS:
                return
            if failed != errno.EADDRNOTAVAIL:  # else an earlier dial is still ending, and nothing was sent
                left -= 1
            await trio.sleep(random.uniform(*REDIAL_PAUSES))

    async def _try(
        self, address: SockAddress, source: SockAddress | None, is_client: bool, way: Way
    ) -> int | None:
        """Dial once; return the error number, None if somebody was there."""
        try:
            sock = await connect(address, source)
        except OSError as error:
            return error.errno
        done = trio.Event()

        async def secure() -> None:
            try:
                connection = await self._network.upgrader.upgrade(
                    sock, self._peer_id, is_client=is_client, way=way
                )
                await self._network.take_in(connection)
            except UpgradeError:
                pass  # it was somebody else, or the other end did without this one
            except Exception:  # noqa: BLE001  a task boundary
                _log.exception("a dial of %s failed", address)
            finally:
                done.set()

        self._nursery.start_soon(secure)
        await done.wait()
        return None

    # -- QUIC -----------------------------------------------------------------------------------------------------

    async def _dial_quic(self, address: SockAddress, way: Way) -> None:
        """Dial until somebody answers: lost packets are sent again; the server has no connection before we do."""
        for _ in range(REDIALS if way is PUNCHED else 1):
            if self._quic is None or await self._try_quic(self._quic, address, way):
                return
            await trio.sleep(random.uniform(*REDIAL_PAUSES))

    async def _try_quic(self, quic: "Quic", address: SockAddress, way: Way) -> bool:
        """Dial once; return whether another time is of no use: a router may refuse what comes too early (ICMP)."""
        try:
            connection = await quic.endpoint_for(address).dial(self._peer_id, address, way)
            with trio.CancelScope(shield=True):
                await self._network.take_in(connection)
        except UpgradeError:
            return False  # it was somebody else, or nobody
        except OSError:
            pass  # we can't dial there
        except Exception:  # noqa: BLE001  a task boundary: the other dials go on
            _log.exception("a dial of %s failed", address)
        return True

    async def _open(self, address: SockAddress) -> None:
        """Have our NAT let in the peer's packets."""
        if self._quic is None:
            return
        try:
            endpoint = self._quic.endpoint_for(address)
        except OSError:
            return
        while True:
            endpoint.send_raw(random.randbytes(random.randint(*PACKET)), address)
            await trio.sleep(random.uniform(*REDIAL_PAUSES))
