"""Circuits: connections to peers through a relay (libp2p specs, relay/circuit-v2), made of one stream to it.

The stream is spliced to one end of a pair of local sockets, and the other end is secured and multiplexed as any
connected socket is: handshakes, half-closes, back-pressure and aborts are those of every other connection.
"""

import logging
import socket
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import trio
from libp2p.peer.id import ID
from libp2p.stream_muxer.exceptions import MuxedConnError, MuxedStreamError
from multiaddr import Multiaddr

from peertunnel.peers import RequestError
from peertunnel.protocols.circuit import HOP, MAX_MESSAGE, STOP, CircuitRefused, Status, client, destination
from peertunnel.protocols.circuit import Limit as CircuitLimit
from peertunnel.protocols.delimited import encode_delimited
from peertunnel.protocols.errors import RemoteProtocolError
from peertunnel.protocols.peerid import PeerIdError, parse_peer_id
from peertunnel.transport.connection import MuxedConnection
from peertunnel.transport.handshakes import MAX_HANDSHAKES, Handshakes
from peertunnel.transport.race import Attempt
from peertunnel.transport.requests import read_message
from peertunnel.transport.stream import MuxedStream
from peertunnel.transport.swarm import Network
from peertunnel.transport.upgrade import UpgradeError
from peertunnel.transport.visits import Dialler, Visits
from peertunnel.transport.way import Limit, Way

HEAD_START = 0.25  # seconds that direct addresses get, as IPv6 gets before IPv4 (RFC 8305, section 8)
RELAY_TIMEOUT = 10.0  # seconds for a relay to be reached, and again for it to reach the peer
MAX_CALLS = 256  # circuits to us through one relay whose handshakes are under way, or wait for their turn
MAX_CALLS_PER_CALLER = MAX_HANDSHAKES // 4  # of a relay's handshakes; one peer makes nobody wait
BUFFER = 1024 * 1024  # bytes between the stream and the inner session, each way: one batch
_LINGER = 2.0  # seconds without a byte that leaves, after which an ended connection's circuit is given up
_MARK = "/p2p-circuit"
_log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class _Calls:
    """The calls that one relay passes on; a hostile one, which makes up calls and callers, is in no other's way."""

    count: int = 0
    callers: Counter[str] = field(default_factory=Counter)  # whose handshakes are under way
    handshakes: Handshakes = field(default_factory=Handshakes)
    turn: trio.Lock = field(default_factory=trio.Lock)  # the first that waits is the first that begins

    @contextmanager
    def one_of(self, caller: str) -> Iterator[None]:
        """Count a handshake as one of a caller's; raises CircuitRefused if it has too many."""
        if self.callers[caller] >= MAX_CALLS_PER_CALLER:
            raise CircuitRefused(Status.RESOURCE_LIMIT_EXCEEDED)
        self.callers[caller] += 1
        try:
            yield
        finally:
            self.callers[caller] -= 1
            if not self.callers[caller]:
                del self.callers[caller]


class Circuits:
    """Dials through relays, and takes the calls that come through them.

    Args:
        network: secures and serves the connections.
        dialler: the host.
        visits: gives out the connections to relays.
        admits: whether a circuit that comes through a relay (by its peer id) is taken.
    """

    def __init__(
        self, network: Network, dialler: Dialler, visits: Visits, admits: Callable[[str], bool]
    ) -> None:
        self._network = network
        self._dialler = dialler
        self._visits = visits
        self._admits = admits
        self._calls: dict[str, _Calls] = {}  # by relay; there are as many as are admitted, at the most
        self._carried: set[trio.Event] = set()  # the ends of those that are carried

    # -- to others ------------------------------------------------------------------------------------------------

    def can_dial(self, address: Multiaddr) -> bool:
        """Return whether an address leads through a relay that is named."""
        text = str(address)
        tail = text.partition(_MARK)[2]
        return bool(relay_of(text)) and (not tail or tail.startswith("/p2p/"))

    async def plan(self, peer_id: ID, addresses: Sequence[Multiaddr]) -> list[Attempt]:
        """Return an attempt for each relay, with all addresses that it is said to have."""
        await trio.lowlevel.checkpoint()
        relays: dict[str, list[str]] = {}
        for text in map(str, addresses):
            place, relay = text.partition(_MARK)[0].rpartition("/p2p/")[0], relay_of(text)
            if relay and relay != str(peer_id):
                relays.setdefault(relay, []).extend([place] if place else [])
        return [
            Attempt(Multiaddr(f"/p2p/{relay}{_MARK}"), self._attempt(peer_id, relay, places), HEAD_START)
            for relay, places in relays.items()
        ]

    def _attempt(
        self, peer_id: ID, relay: str, places: list[str]
    ) -> Callable[[], Awaitable[MuxedConnection]]:
        async def run() -> MuxedConnection:
            return await self._call(peer_id, relay, places)

        return run

    async def _call(self, peer_id: ID, relay: str, places: list[str]) -> MuxedConnection:
        try:
            async with self._visits.at_relay(relay, places, RELAY_TIMEOUT) as connection:
                _check_direct(connection)
                stream = await connection.open_tunnel(HOP)
                try:
                    with trio.fail_after(RELAY_TIMEOUT):
                        await stream.write(encode_delimited(client.connect(str(peer_id))))
                        limit = client.read_connected(await read_message(stream, MAX_MESSAGE))
                except BaseException:
                    stream.abort()
                    raise
        except CircuitRefused as error:
            raise UpgradeError(f"the relay says: {error}") from error
        except trio.TooSlowError as error:
            raise UpgradeError("the relay did not answer in time") from error
        except (RequestError, MuxedConnError, MuxedStreamError, RemoteProtocolError) as error:
            raise UpgradeError(f"the relay: {error}") from error
        return await self._secure(stream, peer_id, limit, is_client=True)

    # -- from others ----------------------------------------------------------------------------------------------

    def accept(self, stream: MuxedStream) -> None:
        """Take a stream on which a relay passes a call on."""
        is_direct = stream.muxed_conn.way.kind != "relayed"  # a circuit leads into no other
        if not is_direct or not self._admits(stream.peer):
            stream.abort()
            return
        calls = self._calls.setdefault(stream.peer, _Calls())
        if calls.count >= MAX_CALLS:
            stream.abort()
            return
        calls.count += 1
        self._dialler.start_soon(self._answer, stream, calls)

    async def _answer(self, stream: MuxedStream, calls: _Calls) -> None:
        try:
            async with calls.turn:
                await calls.handshakes.make_room()
                place = calls.handshakes.begin()
            with calls.handshakes.run(place):
                await self._take(stream, calls)
        except CircuitRefused as refusal:
            await self._refuse(stream, refusal.status)
        except RemoteProtocolError:
            await self._refuse(stream, Status.MALFORMED_MESSAGE)
        except (MuxedStreamError, UpgradeError, trio.TooSlowError):
            stream.abort()
        except Exception:  # noqa: BLE001  a task boundary
            _log.exception("a call through %s failed", stream.peer)
            stream.abort()
        finally:
            calls.count -= 1
            if not calls.count:
                del self._calls[stream.peer]

    async def _take(self, stream: MuxedStream, calls: _Calls) -> None:
        """Take a call, and serve the connection that comes of it; raises CircuitRefused if its caller has too many."""
        with trio.fail_after(RELAY_TIMEOUT):
            caller, limit = destination.read_stop(await read_message(stream, MAX_MESSAGE))
            with calls.one_of(caller):
                await stream.write(encode_delimited(destination.accept_stop()))
                connection = await self._secure(stream, ID.from_base58(caller), limit, is_client=False)
                await self._network.take_in(connection)

    async def _refuse(self, stream: MuxedStream, status: Status) -> None:
        try:
            await stream.write(encode_delimited(destination.refuse(status)))
            await stream.close()
        except MuxedStreamError:
            pass  # the relay is gone

    # -- both -----------------------------------------------------------------------------------------------------

    async def _secure(
        self, stream: MuxedStream, peer_id: ID, limit: CircuitLimit | None, *, is_client: bool
    ) -> MuxedConnection:
        """Make a connection of a stream that has become a circuit; raises UpgradeError."""
        relay = stream.muxed_conn
        way = Way("relayed", str(relay.peer_id), _limit(limit, stream))
        address = Multiaddr(f"{relay.get_transport_addresses()[0]}/p2p/{relay.peer_id}{_MARK}")
        try:
            ours, theirs = _pair()
        except OSError as error:
            stream.abort()
            raise UpgradeError(f"there is no room for a circuit here: {error.strerror}") from error
        ended = trio.Event()
        self._network.start_soon(self._carry, stream, theirs, ended)
        try:
            connection = await self._network.secure(ours, peer_id, way, address, is_client=is_client)
        except BaseException:
            ended.set()
            raise
        self._network.start_soon(_follow, connection, ended)
        return connection

    async def _carry(self, stream: MuxedStream, sock: socket.socket, ended: trio.Event) -> None:
        """Join the stream to our pair of sockets until either has ended, or what the connection has sent has left."""
        done = trio.Event()
        self._carried.add(done)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_end, stream, ended, nursery.cancel_scope)
                await stream.splice(sock)
                nursery.cancel_scope.cancel()
        finally:
            self._carried.remove(done)
            done.set()

    async def settled(self) -> None:
        """Wait until nothing of circuits, whose connections have ended, has to be handed to their relays any more."""
        for done in [*self._carried]:
            await done.wait()


async def _end(stream: MuxedStream, ended: trio.Event, scope: trio.CancelScope) -> None:
    """Give a circuit up whose connection has ended, once no more of it leaves."""
    await ended.wait()
    sent = -1
    while stream.sent_bytes > sent:
        sent = stream.sent_bytes
        await trio.sleep(_LINGER)
    scope.cancel()


async def _follow(connection: MuxedConnection, ended: trio.Event) -> None:
    await connection.event_closed.wait()
    ended.set()


def _pair() -> tuple[socket.socket, socket.socket]:
    pair = socket.socketpair()
    for sock in pair:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER)
    return pair


def _limit(limit: CircuitLimit | None, stream: MuxedStream) -> Limit | None:
    if limit is None:
        return None
    ends_at = trio.current_time() + limit.seconds if limit.seconds else None
    # The specification limits each direction; rust-libp2p counts both together, and we can't tell whose relay it is.
    return Limit(limit.bytes or None, ends_at, lambda: stream.sent_bytes + stream.received_bytes)


def _check_direct(relay: MuxedConnection) -> None:
    if relay.way.kind == "relayed":
        raise UpgradeError("the relay can itself be reached through a relay only")


def relay_of(address: str) -> str | None:
    """Return the peer id of the relay that a multiaddr leads through: "" if it isn't named, None if there is none."""
    head, mark, _ = address.partition(_MARK)
    if not mark:
        return None
    try:
        return parse_peer_id(head.rpartition("/p2p/")[2])
    except PeerIdError:
        return ""


__all__ = ["HOP", "STOP", "Circuits", "relay_of"]
