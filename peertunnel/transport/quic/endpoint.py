"""All QUIC connections of one UDP socket: what comes from the reactor goes through the engine to them, and back.

One turn of work takes what happened, lets connections read on, and sends; calls that come in between only add to it. The
engine's timers are kept by a task, which sleeps while datagrams keep coming.
"""

import errno
import logging
import math
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

import trio
from libp2p.peer.id import ID

from peertunnel.protocols.certificate import peer_of
from peertunnel.protocols.errors import RemoteProtocolError
from peertunnel.transport.quic import _engine
from peertunnel.transport.quic.connection import QuicConnection
from peertunnel.transport.quic.udp import UdpSocket
from peertunnel.transport.reactor import READ, WRITE, Reactor
from peertunnel.transport.router import Router
from peertunnel.transport.tcp import SockAddress
from peertunnel.transport.upgrade import UpgradeError
from peertunnel.transport.way import DIRECT, Way

BATCHES = 16  # sends and receives of up to 64 KiB before others get their turn
FEW_BATCHES = 2  # the same while messages are expected, which stand behind all of them
HUSH = 0.2  # seconds without data amid a transfer; once or twice that, and its receiver speaks up
REFUSAL_PAUSE = 0.1  # seconds between looks at whose port is said to be closed: anybody may say so
_LATE = 0.5  # seconds behind time, after which it is not the peer who was silent
_REFUSED = 0x12A  # the code of a close for a wrong certificate: QUIC's for TLS' alert bad_certificate
_NOWHERE = (
    errno.ECONNREFUSED,
    errno.ENETUNREACH,
    errno.EHOSTUNREACH,
    errno.EACCES,
    errno.EPERM,
    errno.EADDRNOTAVAIL,
    errno.EINVAL,
)
_log = logging.getLogger(__name__)

Accept = Callable[[QuicConnection], None]


@dataclass(eq=False, slots=True)
class _Dial:
    """A handshake of ours."""

    peer_id: ID
    to: SockAddress
    way: Way
    done: trio.Event = field(default_factory=trio.Event)
    connection: QuicConnection | None = None
    reason: str = "closed"


class Endpoint:
    """A UDP socket with its connections; `run` runs it.

    Args:
        udp: the socket; belongs to the endpoint from now on.
        engine: the engine, which knows nobody yet.
        reactor: watches the socket.
        router: serves the streams that peers open.
        accept: takes a connection that a peer has opened; it must not wait.

    Attributes:
        name: the address that the socket is bound to.
        resumed: connections whose readers have caught up.
        pinging: connections that wait for an acknowledgement.
        messages_until: seconds; until then messages are expected, on some stream, which should not wait behind bulk.
    """

    def __init__(
        self, udp: UdpSocket, engine: _engine.Endpoint, reactor: Reactor, router: Router, accept: Accept
    ) -> None:
        self.engine = engine
        self.name = udp.name
        self.resumed: set[QuicConnection] = set()
        self.pinging: set[QuicConnection] = set()
        self.messages_until = -math.inf
        self._now = (
            trio.lowlevel.current_clock().current_time
        )  # trio.current_time looks for it anew each time
        self._udp = udp
        self._reactor = reactor
        self._router = router
        self._accept: Accept | None = accept
        self._registration = reactor.register(udp.sock, self)
        self._connections: dict[int, QuicConnection] = {}
        self._dials: dict[int, _Dial] = {}
        self._unsent: tuple[bytes, int, SockAddress, str | None] | None = None
        self._timer = trio.CancelScope()
        self._heard: set[int] = set()  # connections of ours by which data has come of late
        self._hears = trio.Event()
        self._refused_at = -math.inf
        self._is_working = self._is_flushing = False

    async def run(self) -> None:
        """Serve the socket until cancelled; connections that are still open are closed then."""
        try:
            self._registration.add(READ)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._mind_silence)
                await self._keep_time()
        finally:
            for connection in list(self._connections.values()):
                connection.on_lost("")
            for dial in self._dials.values():
                dial.done.set()
            self.flush_now()  # what was closed last tells its peer
            self.close()

    def stop_accepting(self) -> None:
        """Refuse new connections from now on."""
        self._accept = None
        self.engine.stop_accepting()

    def close(self) -> None:
        """Close the socket."""
        self._registration.wait_for(0)
        self._udp.close()

    async def _keep_time(self) -> None:
        while True:
            due = self.engine.timeout()
            with trio.CancelScope(deadline=float("inf") if due is None else due) as self._timer:
                await trio.sleep_forever()
            now = trio.current_time()
            if due is not None and now - due > _LATE:
                self._receive()  # we were stopped ourselves: what peers sent meanwhile is read first
            self.engine.handle_timeouts(now)
            self.flush()

    async def _mind_silence(self) -> None:
        """Ask for a sign of life where a transfer stalls.

        When a router has given a client another port, its peer hears of that by its next packet alone, and who only
        receives sends none.
        """
        while True:
            await self._hears.wait()
            self._hears = trio.Event()
            while before := self._heard:
                self._heard = set()
                await trio.sleep(HUSH)
                for number in before - self._heard:
                    self.engine.ping(number)
                self.flush()

    # -- the socket -----------------------------------------------------------------------------------------------

    def on_readable(self) -> None:
        """Read what came, and do what follows from it."""
        self._receive()
        self.flush()

    def on_writable(self) -> None:
        """Send on."""
        self._registration.remove(WRITE)
        self.flush()

    def on_failure(self, error: Exception) -> None:
        """Go on: what failed has been logged, and peers send again what got lost."""
        self._is_working = False

    def _receive(self) -> None:
        now = self._now()
        for number in range(BATCHES):
            if number == FEW_BATCHES and now < self.messages_until:
                return
            try:
                data, stride, source, local = self._udp.receive()
            except BlockingIOError:
                return
            except OSError:
                self._note_failures()
                continue
            if data:
                self.engine.receive(data, stride, source, local, now)
            if self._udp.is_batched and len(data) <= stride and not self._udp.has_more():
                return  # a single one: mostly there are no more

    def send_raw(self, data: bytes, to: SockAddress) -> None:
        """Send a datagram that is none of QUIC's, such as one that opens a NAT; it may get lost."""
        self._leaves((data, 0, to, None))

    def flush(self) -> None:
        """Do all that is to be done, together with what else the reactor's present events give."""
        if not self._is_flushing and not self._is_working:
            self._is_flushing = True
            self._reactor.soon(self)

    def flush_now(self) -> None:
        """Do all that is to be done now; a call from within comes too early, and is made up for."""
        self._is_flushing = False
        if self._is_working:
            return
        self._is_working = True
        try:
            due = self._work()
        finally:
            self._is_working = False
        if due is not None and due < self._timer.deadline:
            self._timer.deadline = due

    def _work(self) -> float | None:
        """Take turns with the engine while there is anything to do, and return when it is to be called again.

        A bounded number of batches leaves at a time, and none while the system takes none.
        """
        for connection in list(self.pinging):
            connection.on_received()
        sent = 0
        if self._unsent is not None and self._leaves(self._unsent):
            self._unsent = None
        while True:
            now = self._now()
            most = FEW_BATCHES if now < self.messages_until else BATCHES
            may_send = sent < most and self._unsent is None
            events, batch, due = self.engine.turn(self._udp.segments if may_send else 0, now)
            if events:
                self._take(events)
            if batch is not None:
                sent += 1
                if not self._leaves(batch):
                    self._unsent = batch
            if self.resumed:
                self._resume()
            elif not events and batch is None:
                break
        if not may_send:
            self._registration.add(WRITE)
        return due

    def _leaves(self, batch: tuple[bytes, int, SockAddress, str | None]) -> bool:
        """Send a batch; return False where it has to wait. One that is lost the engine sends again."""
        for _ in range(2):
            try:
                self._udp.send(*batch)
                return True
            except BlockingIOError:
                return False
            except OSError as error:
                if not self._note_failures():
                    if batch[3] is None:  # else our own address has gone, which says nothing of the peer's
                        self._give_up(batch[2], error.errno or 0)
                    return True
                # It was an earlier datagram that came to nobody, perhaps at quite another address.
        return True

    def _note_failures(self) -> bool:
        failures = self._udp.failures()
        for number, to in failures:
            self._give_up(to, number)
        return bool(failures)

    def _give_up(self, to: SockAddress, number: int) -> None:
        """End the dials of an address where nobody is; what stands already has to give a sign of life."""
        for connection, dial in self._dials.items():
            if number in _NOWHERE and dial.to[:2] == to[:2] and not dial.done.is_set():
                dial.reason = os.strerror(number)
                dial.done.set()
                self._reactor.yield_soon()
                self.engine.close(connection, 0, trio.current_time())
        if number == errno.ECONNREFUSED and self._now() > self._refused_at + REFUSAL_PAUSE:
            self._refused_at = self._now()
            for connected in self._connections.values():
                if connected.get_remote_address() == to[:2]:
                    connected.doubt()

    # -- what the engine tells ------------------------------------------------------------------------------------

    def _take(self, events: list[tuple[str, int, int | None, str]]) -> None:
        """Hand on what happened: first that peers read no further, which says more of an end that comes with it."""
        for kind, number, stream_id, reason in events:
            connection = self._connections.get(number)
            try:
                if kind == "connected":
                    self._connected(number)
                elif kind == "lost":
                    self._lost(number, connection, reason)
                elif connection is not None:
                    if kind == "readable" and connection.is_initiator:
                        self._heard.add(number)
                        self._hears.set()
                    connection.on_event(kind, stream_id)
            except Exception as error:  # noqa: BLE001  a task boundary: peers drive what happens in here
                self._fail(number, error)

    def _resume(self) -> None:
        resumed, self.resumed = self.resumed, set()
        for connection in resumed:
            try:
                connection.resume()
            except Exception as error:  # noqa: BLE001  a task boundary, as above
                self._fail(connection.number, error)

    def _fail(self, number: int, error: Exception) -> None:
        """End a connection in which something unforeseen went wrong, and no other."""
        connection = self._connections.get(number)
        _log.error("a connection to %s failed", connection and connection.peer_id, exc_info=error)
        try:
            self._lost(number, connection, f"internal error: {error!r}")
        except Exception:  # noqa: BLE001  a task boundary, as above
            _log.exception("giving up failed, too")
        self.engine.close(number, 0, trio.current_time())

    def _connected(self, number: int) -> None:
        """Find out who a new connection leads to, before anything of it is used."""
        dial = self._dials.get(number)
        try:
            peer_id = peer_of(self.engine.peer_certificate(number) or b"", datetime.now(UTC))
            if dial is not None and peer_id != str(dial.peer_id):
                raise RemoteProtocolError(f"the peer is {peer_id}")
        except RemoteProtocolError as error:
            self.engine.close(number, _REFUSED, trio.current_time())
            self._lost(number, None, str(error))
            return
        connection = QuicConnection(
            self,
            number,
            ID.from_base58(peer_id),
            dial is not None,
            self._reactor,
            self._router,
            DIRECT if dial is None else dial.way,
        )
        self._connections[number] = connection
        if dial is not None:
            dial.connection = connection
            dial.done.set()
        elif self._accept is not None:
            self._accept(connection)
        else:
            connection.on_lost("")
        self._reactor.yield_soon()

    def _lost(self, number: int, connection: QuicConnection | None, reason: str) -> None:
        self._reactor.yield_soon()
        if connection is not None:
            connection.on_lost(reason)
        elif (dial := self._dials.get(number)) is not None and not dial.done.is_set():
            dial.reason = reason
            dial.done.set()

    # -- connections ----------------------------------------------------------------------------------------------

    async def dial(self, peer_id: ID, to: SockAddress, way: Way = DIRECT) -> QuicConnection:
        """Connect to a peer; the connection is not started yet.

        Args:
            peer_id: who must answer.
            to: where.
            way: how the datagrams get there.

        Raises:
            UpgradeError: nobody answered, or it was somebody else.
        """
        try:
            number = self.engine.connect(to, trio.current_time())
        except ValueError as error:
            raise UpgradeError(str(error)) from error
        dial = self._dials[number] = _Dial(peer_id, to, way)
        try:
            self.flush()
            await dial.done.wait()
        except BaseException:  # cancelled: somebody else was faster
            if dial.connection is not None:
                dial.connection.on_lost("")
            raise
        finally:
            del self._dials[number]
            if dial.connection is None:
                self.engine.close(number, 0, trio.current_time())
                self.flush()
        if dial.connection is None:
            raise UpgradeError(dial.reason)
        return dial.connection

    def release(self, connection: QuicConnection) -> None:
        """Close a connection in the engine, if it isn't, and forget it."""
        self.pinging.discard(connection)
        if self._connections.pop(connection.number, None) is not None:
            self.engine.close(connection.number, 0, trio.current_time())
            self.flush()

    def rebound(self) -> None:
        """Tell peers where we are now: our address has changed."""
        for number in self._connections:
            self.engine.rebound(number)
        self.flush()
