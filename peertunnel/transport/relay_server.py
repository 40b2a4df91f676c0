"""A circuit relay: peers reserve, and others reach them through us (libp2p specs, relay/circuit-v2).

1. A peer asks on HOP to be reached through us: the connection it asks on is kept for that.
2. Another one asks on HOP for the first. We call that one with STOP, on the kept connection.
3. If it takes the call, both are told, and the two streams are joined: see `crossing`.
"""

import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Protocol

import trio
from libp2p.stream_muxer.exceptions import MuxedConnError, MuxedStreamError
from multiaddr import Multiaddr

from peertunnel.boundary import repeated
from peertunnel.protocols.circuit import HOP, MAX_MESSAGE, STOP, CircuitRefused, Limit, Status, Voucher
from peertunnel.protocols.circuit import relay as wire
from peertunnel.protocols.circuit.book import STRANGERS_LIMIT, TICK, TTL, Book, network_of
from peertunnel.protocols.delimited import encode_delimited
from peertunnel.protocols.errors import ProtocolError, RemoteProtocolError
from peertunnel.protocols.kademlia.places import farthest, within_reach
from peertunnel.transport.connection import MuxedConnection
from peertunnel.transport.crossing import Crossing
from peertunnel.transport.requests import read_message
from peertunnel.transport.stream import MuxedStream

if TYPE_CHECKING:
    from trio_typing import TaskStatus

SUCCESSION = 1.0  # seconds for the connection of a peer that has reserved on another one to prove alive
HANDSHAKE = 10.0  # seconds for a request, and for the destination's answer; go-libp2p waits 30 and 60
MAX_ASKING = 1024  # streams on which a peer has yet to ask, or waits for an answer
MAX_ASKING_PER_PEER = 32  # of them by one peer
# Of them from one network, since peer ids are free. Where a destination is full of silent callers, the last of so many
# is through in some four seconds (see `handshakes`), and who comes behind them in time, too.
MAX_ASKING_PER_NETWORK = 64
_ALL = "*"  # counts who asks, beside peer ids and networks
_log = logging.getLogger(__name__)


class Relaying(Protocol):
    """What a relay needs of its host."""

    peer_id: str

    @property
    def addresses(self) -> tuple[str, ...]:
        """Our multiaddrs, each ending in /p2p/ and our id."""
        ...

    def start_soon(self, work: Callable[..., Awaitable[object]], *details: object) -> None:
        """Run something in the background, whose failure ends nothing else."""
        ...

    def serve(self, protocol: str, handler: Callable[[MuxedStream], None]) -> None:
        """Hand streams of a protocol to `handler`."""
        ...

    def stop_serving(self, protocol: str) -> None:
        """Refuse new streams of a protocol."""
        ...

    def sign(self, data: bytes) -> bytes:
        """Sign with our key."""
        ...


class RelayServer:
    """Serves HOP while run() runs.

    Args:
        host: whose connections they are.
        is_trusted: whether the circuits of who is at the other end of a connection have no limits.
        limit: of everybody else's circuits, None for none.

    Attributes:
        book: who has reserved, and how many circuits run.
        answers: how many requests were answered, by kind and status, in lower case.
    """

    def __init__(
        self,
        host: Relaying,
        is_trusted: Callable[[MuxedConnection], bool] = lambda connection: False,
        limit: Limit | None = STRANGERS_LIMIT,
    ) -> None:
        self.book = Book()
        self.answers: Counter[tuple[str, ...]] = Counter()
        self._host = host
        self._is_trusted = is_trusted
        self._limit = limit
        self._reserved: dict[str, MuxedConnection] = {}
        self._asking: Counter[str] = Counter()  # by peer id, by network, and all
        self._crossings: set[Crossing] = set()
        self._carried = 0  # bytes, by circuits that have ended

    @property
    def carried(self) -> int:
        """How many bytes of circuits have been sent on so far."""
        return self._carried + sum(crossing.carried for crossing in self._crossings)

    async def run(self, task_status: "TaskStatus[None]" = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled; started as soon as we do."""
        self._host.serve(HOP, self._accept)
        task_status.started()
        try:
            await repeated(TICK, self._tick)
        finally:
            self._host.stop_serving(HOP)

    async def _tick(self) -> None:
        self._forget()
        for crossing in [*self._crossings]:
            if not crossing.is_limited and not any(map(self._is_trusted, crossing.connections)):
                crossing.abort()  # trust was withdrawn

    # -- requests -------------------------------------------------------------------------------------------------

    def _accept(self, stream: MuxedStream) -> None:
        network = _network(stream.muxed_conn)
        of_peer, of_network, in_all = (self._asking[asker] for asker in (stream.peer, network, _ALL))
        if of_peer >= MAX_ASKING_PER_PEER or of_network >= MAX_ASKING_PER_NETWORK or in_all >= MAX_ASKING:
            stream.abort()
            return
        self._count_asking(stream.peer, network, 1)
        self._host.start_soon(self._serve, stream, network)

    def _count_asking(self, peer_id: str, network: str, change: int) -> None:
        for asker in (peer_id, network, _ALL):
            self._asking[asker] += change
            if not self._asking[asker]:
                del self._asking[asker]

    async def _serve(self, stream: MuxedStream, network: str) -> None:
        """Answer the one request on a stream, and carry the circuit if that is what comes of it."""
        crossing = None
        try:
            crossing = await self._answer(stream, network)
        except (MuxedStreamError, trio.TooSlowError):
            stream.abort()
        except Exception:  # noqa: BLE001  a task boundary: one request must not end the relay
            _log.exception("a request by %s failed", stream.peer)
            stream.abort()
        finally:
            self._count_asking(stream.peer, network, -1)
        if crossing is not None:
            await self._carry(crossing, network)

    async def _answer(self, stream: MuxedStream, network: str) -> Crossing | None:
        kind, status = "unknown", Status.OK
        try:
            with trio.fail_after(HANDSHAKE):
                request = wire.read_request(await read_message(stream, MAX_MESSAGE))
            kind = type(request).__name__.lower()
            if stream.muxed_conn.way.kind == "relayed":
                raise CircuitRefused(Status.PERMISSION_DENIED)
            if isinstance(request, wire.Connect):
                return await self._connect(stream, request.peer, network)
            answer = self._reserve(stream.muxed_conn, network)
        except CircuitRefused as refusal:
            status, answer = refusal.status, wire.refuse(refusal.status)
        except RemoteProtocolError:
            status, answer = Status.MALFORMED_MESSAGE, wire.refuse(Status.MALFORMED_MESSAGE)
        self.answers[kind, status.name.lower()] += 1
        await _say(stream, answer)
        await stream.close()
        return None

    # -- reservations ---------------------------------------------------------------------------------------------

    def _reserve(self, connection: MuxedConnection, network: str) -> bytes:
        """Keep a connection for calls to its peer, and return what tells the peer; raises CircuitRefused."""
        self._forget()
        peer_id, limit = str(connection.peer_id), self._limit_of(connection)
        self.book.reserve(peer_id, network, trio.current_time(), is_trusted=limit is None)
        before = self._reserved.get(peer_id)
        if before is not None and before is not connection:
            # If it is dead, the calls that wait on it fail at once.
            self._host.start_soon(before.close_unless_it_answers, SUCCESSION)
        self._let_go(peer_id)
        self._reserved[peer_id] = connection
        connection.kept += 1
        voucher = Voucher(self._host.peer_id, peer_id, int(time.time()) + TTL)
        return wire.grant(voucher, self._told(connection), limit, self._host.sign)

    def _told(self, connection: MuxedConnection) -> Iterable[bytes]:
        """Give those of our addresses that are of use where the peer is, or all if there are none."""
        ours = [Multiaddr(address).to_bytes() for address in self._host.addresses]
        theirs = [address.to_bytes() for address in connection.get_transport_addresses()]
        return within_reach(ours, farthest(theirs)) or ours

    def _forget(self) -> None:
        """End the reservations of peers that are gone, or that have not renewed them."""
        now = trio.current_time()
        self.book.tick(now)
        for peer_id, connection in list(self._reserved.items()):
            if connection.is_closed or not self.book.is_reserved(peer_id, now):
                self.book.release(peer_id)
                self._let_go(peer_id)

    def _let_go(self, peer_id: str) -> None:
        connection = self._reserved.pop(peer_id, None)
        if connection is not None:
            connection.kept -= 1

    # -- circuits -------------------------------------------------------------------------------------------------

    async def _connect(self, stream: MuxedStream, destination: str, network: str) -> Crossing:
        """Call the destination and tell the caller that it has taken the call; raises CircuitRefused."""
        connection = self._reserved.get(destination)
        if connection is None or connection.is_closed:
            self._forget()
            connection = stream.muxed_conn  # the book refuses
        of_caller = self._limit_of(stream.muxed_conn)
        limit = None if of_caller is None else self._limit_of(connection)
        self.book.open(
            stream.peer,
            destination,
            network,
            is_trusted=of_caller is None,
            is_limited=limit is not None,
            now=trio.current_time(),
        )
        called = None
        try:
            called = await _call(connection, stream.peer, limit)
            self.answers["connect", "ok"] += 1
            await _say(stream, wire.connected(limit))
        except BaseException:
            self.book.close(stream.peer, destination, network)
            if called is not None:
                called.abort()
            raise
        return Crossing(stream, called, limit)

    async def _carry(self, crossing: Crossing, network: str) -> None:
        self._crossings.add(crossing)
        try:
            await crossing.run()
        finally:
            self._crossings.discard(crossing)
            self._carried += crossing.carried
            self.book.close(*crossing.peers, network)

    def _limit_of(self, connection: MuxedConnection) -> Limit | None:
        return None if self._is_trusted(connection) else self._limit


def _network(connection: MuxedConnection) -> str:
    remote = connection.get_remote_address()
    return network_of(remote[0]) if remote else ""


async def _call(connection: MuxedConnection, caller: str, limit: Limit | None) -> MuxedStream:
    """Call a destination; return the stream on which it has taken the call. Raises CircuitRefused."""
    try:
        with trio.fail_after(HANDSHAKE):
            stream = await connection.open_tunnel(STOP)
            try:
                await stream.write(encode_delimited(wire.call(caller, limit)))
                wire.check_accepted(await read_message(stream, MAX_MESSAGE))
            except BaseException:
                stream.abort()
                raise
    except (MuxedConnError, MuxedStreamError, ProtocolError, trio.TooSlowError):
        raise CircuitRefused(Status.CONNECTION_FAILED) from None
    return stream


async def _say(stream: MuxedStream, message: bytes) -> None:
    with trio.fail_after(HANDSHAKE):
        await stream.write(encode_delimited(message))
