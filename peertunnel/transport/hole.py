"""The dials of one attempt at a hole: both ends' leave at the same moment, and meet on the way.

A dial that is refused, as by a router that answers for whom it does not know, is repeated at once, a random moment later
each time, so that the two ends don't keep missing each other. A handshake that has begun is not cut short when another
one is through: the other end may have settled for this one.
"""

import errno
import random
from collections.abc import Sequence
from contextlib import AbstractContextManager

import trio
from libp2p.peer.id import ID

from peertunnel.transport.swarm import Network
from peertunnel.transport.tcp import SockAddress, connect
from peertunnel.transport.upgrade import UpgradeError, upgrade
from peertunnel.transport.way import DIRECT, PUNCHED, Way

REDIALS = 16  # dials of one target in an attempt: they are a few packets each, and strangers name the target
REDIAL_PAUSES = (0.01, 0.2)  # seconds until a refused dial is repeated; as the specification has it for QUIC
_HOPELESS = (errno.ENETUNREACH, errno.EAFNOSUPPORT, errno.EINVAL, errno.EACCES)


class Hole:
    """Dials one peer at several places at once.

    Args:
        network: has the port that we listen on, and serves what comes of the dials.
        nursery: where handshakes go on when nobody waits for them any more.
        peer_id: who must be there.
    """

    def __init__(self, network: Network, nursery: trio.Nursery, peer_id: ID) -> None:
        self._network = network
        self._nursery = nursery
        self._peer_id = peer_id

    def expecting(self, targets: Sequence[SockAddress], *, is_client: bool) -> AbstractContextManager[None]:
        """Keep to our role should the peer's dial come first: from as early on as the peer may dial; see `punch`."""
        return self._network.crossing(self._peer_id, targets, is_client=is_client)

    async def punch(self, targets: Sequence[SockAddress], *, is_client: bool) -> None:
        """Dial from the port that we listen on, again and again, until cancelled; within `expecting`.

        Args:
            targets: where the peer's NAT has it.
            is_client: whether ours is the client's side of the handshakes.
        """
        async with trio.open_nursery() as nursery:
            for target in targets:
                nursery.start_soon(self._hammer, target, is_client)
            await trio.sleep_forever()

    async def dial(self, targets: Sequence[SockAddress]) -> None:
        """Dial as anybody would, from any port; over when all have failed."""
        async with trio.open_nursery() as nursery:
            for target in targets:
                nursery.start_soon(self._try, target, None, True, DIRECT)

    async def _hammer(self, target: SockAddress, is_client: bool) -> None:
        source = self._network.tcp.source(target)
        for _ in range(REDIALS if source is not None else 0):
            if await self._try(target, source, is_client, PUNCHED) in _HOPELESS:
                return
            await trio.sleep(random.uniform(*REDIAL_PAUSES))

    async def _try(
        self, target: SockAddress, source: SockAddress | None, is_client: bool, way: Way
    ) -> int | None:
        """Dial once; return the error number, None if somebody was there."""
        try:
            sock = await connect(target, source)
        except OSError as error:
            return error.errno
        done = trio.Event()

        async def secure() -> None:
            try:
                connection = await upgrade(
                    self._network.upgrader, sock, self._peer_id, is_client=is_client, way=way
                )
                await self._network.take_in(connection, "outbound" if is_client else "inbound")
            except UpgradeError:
                pass  # it was somebody else, or the other end did without this one
            finally:
                done.set()

        self._nursery.start_soon(secure)
        await done.wait()
        return None
