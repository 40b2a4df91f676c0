"""Hole punching: from a relayed connection to a direct one (libp2p specs, relay/DCUtR).

The side to which the circuit came does it: it first dials the peer, which may be public, and then agrees with it, over the
circuit, when both dial each other. These dials leave from the port that we listen on, whose mapping others have seen.

One thing goes beyond the specification: the initiator also dials as anybody would, from another port. A peer whose NAT
lets in what comes from our address takes such a call as an ordinary one, even where our own NAT hides from the peer which
port we come from; and a public peer is reached before any hole is punched.
"""

import logging
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, repeat
from typing import TYPE_CHECKING, Protocol

import trio
from libp2p.peer.id import ID

from peertunnel.boundary import contained
from peertunnel.protocols.dcutr import PROTOCOL, Synchronised
from peertunnel.protocols.punch import PROTOCOL as CHANCE
from peertunnel.transport.candidates import Target, offered, public_targets, targets
from peertunnel.transport.chance import Chance, ChanceError
from peertunnel.transport.connection import MuxedConnection
from peertunnel.transport.dcutr import ExchangeError, initiate, respond
from peertunnel.transport.hole import Hole
from peertunnel.transport.identify import identified
from peertunnel.transport.observed import Observed
from peertunnel.transport.stream import MuxedStream
from peertunnel.transport.swarm import Network

if TYPE_CHECKING:
    from trio_typing import TaskStatus

    from peertunnel.transport.quic.transport import Quic

ATTEMPTS = 3  # of a round; libp2p specs, relay/DCUtR
ATTEMPT = 5.0  # seconds that both ends dial; as go-libp2p 0.51 does
SUSPENSE = 1.0  # seconds, and two round trips, after which a hole hardly comes: the longest of 84 took 0.7
REFUSAL_PAUSES = (
    0.3,
    1.0,
    3.0,
)  # seconds until a peer that refused to talk of it may have learnt where it is
ROUND_PAUSES = (
    60.0,
    300.0,
    900.0,
)  # seconds from a round that failed to the next; the last one again and again
IDENTIFY = 3.0  # seconds for a peer to tell its addresses; then a hole is punched without them
HEAD_START = 0.1  # seconds, and a round trip, that a public peer has to answer before a hole is punched
RELAPSE = 1.0  # seconds from the loss of a direct connection to the next round
ADDRESS_INTERVAL = 5.0  # seconds between looks for whether our addresses have changed
MAX_ROUNDS = 64  # at a time; further peers wait for their turn
MAX_ANSWERS = 64  # attempts at a time in which we are the responder
MAX_ANSWERS_PER_PEER = 2  # of them with one peer: the last one may still be dialling
_log = logging.getLogger(__name__)


class Puncher(Protocol):
    """The host, as hole punching needs it."""

    network: Network
    quic: "Quic | None"
    observed: Observed

    @property
    def addresses(self) -> tuple[str, ...]:
        """The multiaddrs under which others may reach us now."""
        ...

    def serve(self, protocol: str, handler: Callable[[MuxedStream], None]) -> None:
        """Hand streams of a protocol to a handler."""
        ...

    def stop_serving(self, protocol: str) -> None:
        """Refuse new streams of a protocol."""
        ...

    def watch(self, watcher: Callable[[MuxedConnection], None]) -> None:
        """Have a watcher called with each new connection."""
        ...

    def connections(self, peer_id: str) -> list[MuxedConnection]:
        """Return the living connections to a peer, the newest first."""
        ...


@dataclass(slots=True, eq=False)
class _Effort:
    """What is done to reach one peer. again: there is reason for a new round."""

    again: trio.Event = field(default_factory=trio.Event)


class HolePunching:
    """Makes direct connections to peers that we have relayed ones to, while run() runs.

    Args:
        host: dials, listens and knows our addresses.
        on_failed: called with a peer's id and the reason when chance hasn't helped either, between two of us.
    """

    def __init__(
        self,
        host: Puncher,
        on_failed: Callable[[str, str], None] = lambda peer_id, reason: None,
    ) -> None:
        self._host = host
        self._on_failed = on_failed
        self._nursery: trio.Nursery | None = None
        self._efforts: dict[str, _Effort] = {}  # one for each peer that a circuit has come from
        self._rounds = trio.CapacityLimiter(MAX_ROUNDS)
        self._answers: Counter[str] = Counter()
        self._awaited: dict[str, list[trio.CancelScope]] = {}
        self._chance = Chance(host)

    async def run(self, task_status: "TaskStatus[None]" = trio.TASK_STATUS_IGNORED) -> None:
        """Punch holes until cancelled; started as soon as the protocol is served."""
        async with trio.open_nursery() as self._nursery:
            self._host.serve(PROTOCOL, self._accept)
            self._host.serve(CHANCE, self._accept_chance)
            self._host.watch(self._stands)
            task_status.started()
            try:
                await trio.sleep_forever()
            finally:
                self._host.stop_serving(PROTOCOL)
                self._host.stop_serving(CHANCE)
                self._nursery = None

    def retry(self) -> None:
        """Begin a new round with every peer that we reach through a relay only: the network has changed."""
        for effort in self._efforts.values():
            effort.again.set()

    def _stands(self, connection: MuxedConnection) -> None:
        """Take note of a new connection."""
        peer_id = str(connection.peer_id)
        if self._nursery is None:
            return
        if connection.way.kind != "relayed":
            for scope in self._awaited.get(peer_id, ()):
                scope.cancel()
        elif not connection.is_initiator:
            if peer_id in self._efforts:
                self._efforts[peer_id].again.set()
            else:
                self._efforts[peer_id] = effort = _Effort()
                self._nursery.start_soon(self._strive, peer_id, effort)

    @contextmanager
    def _until_met(self, peer_id: str) -> Iterator[None]:
        """Do something until a direct connection to a peer comes of it."""
        awaited = self._awaited.setdefault(peer_id, [])
        awaited.append(scope := trio.CancelScope())
        try:
            with scope:
                yield
        finally:
            awaited.remove(scope)
            if not awaited:
                del self._awaited[peer_id]

    def _own(self) -> tuple[bytes, ...]:
        return offered(self._host.observed.addresses, self._host.addresses)

    async def _look_again(self) -> None:
        """Find out where we are by now, after an attempt that led to nothing."""
        with trio.move_on_after(IDENTIFY):
            await self._host.observed.look_again(ATTEMPT)

    def _hole(self, peer_id: ID) -> Hole:
        assert self._nursery is not None
        return Hole(self._host.network, self._host.quic, self._nursery, peer_id)

    # -- the initiator --------------------------------------------------------------------------------------------

    async def _strive(self, peer_id: str, effort: _Effort) -> None:
        """Go from round to round while there is a circuit from a peer, and no better way to it."""
        try:
            pauses = chain(ROUND_PAUSES, repeat(ROUND_PAUSES[-1]))
            while (circuit := self._connection(peer_id, is_circuit=True)) is not None:
                if (direct := self._connection(peer_id, is_circuit=False)) is not None:
                    pauses = chain(ROUND_PAUSES, repeat(ROUND_PAUSES[-1]))
                    await _any_of(direct.event_closed, circuit.event_closed)
                    await trio.sleep(RELAPSE)
                    continue
                with self._until_met(peer_id):
                    async with self._rounds:  # who only waits, for a round or a relapse, is in nobody's way
                        effort.again = trio.Event()
                        await contained(self._round, circuit)
                    await self._rest(effort, circuit, next(pauses))
        except Exception:  # noqa: BLE001  a task boundary
            _log.exception("punching a hole to %s failed", peer_id)
        finally:
            del self._efforts[peer_id]

    def _connection(self, peer_id: str, *, is_circuit: bool) -> MuxedConnection | None:
        """Return the newest circuit that came from a peer, or the newest direct connection."""
        for connection in self._host.connections(peer_id):
            if (connection.way.kind == "relayed") == is_circuit and not (
                is_circuit and connection.is_initiator
            ):
                return connection
        return None

    async def _rest(self, effort: _Effort, circuit: MuxedConnection, pause: float) -> None:
        """Wait for the next round: for its time, other addresses of ours, or another circuit when this one ends."""
        own, due = self._own(), trio.current_time() + pause
        while trio.current_time() < due and own == self._own() and not circuit.is_closed:
            with trio.move_on_after(ADDRESS_INTERVAL):
                await effort.again.wait()
                return

    async def _round(self, circuit: MuxedConnection) -> None:
        """Dial the peer, and go on dialling it while holes are punched."""
        async with trio.open_nursery() as nursery:
            await nursery.start(self._reverse, circuit)
            await self._punch(circuit)
            nursery.cancel_scope.cancel()

    async def _reverse(
        self, circuit: MuxedConnection, task_status: "TaskStatus[None]" = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Dial a peer at the public addresses that it tells; started when it should have answered there."""
        began = trio.current_time()
        places: tuple[Target, ...] = ()
        with trio.move_on_after(IDENTIFY):
            places = public_targets((await identified(circuit)).addresses, self._own())
        head_start = HEAD_START + trio.current_time() - began if places else 0.0
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._hole(circuit.peer_id).dial, places)
            await trio.sleep(head_start)
            task_status.started()

    async def _punch(self, circuit: MuxedConnection) -> None:
        """Make a round's attempts."""
        pauses, attempt = list(REFUSAL_PAUSES), 0
        while attempt < ATTEMPTS and not circuit.is_closed:
            if attempt:
                await self._look_again()
            # As in go-libp2p, whose versions before 0.41 had the roles the other way round.
            is_client = attempt + 1 == ATTEMPTS and not await _is_ours(circuit)
            own = self._own()
            try:
                agreed = await initiate(circuit, own)
            except ExchangeError as error:
                _log.debug("%s does not punch: %s", circuit.peer_id, error)
                if not pauses:
                    return
                await trio.sleep(pauses.pop(0))
                continue
            attempt += 1
            self._chance.note(circuit, agreed.addresses)
            async with trio.open_nursery() as nursery:
                if attempt == 1:
                    nursery.start_soon(self._try_chance, circuit, agreed)
                await self._attempt(circuit.peer_id, agreed, own, is_client=is_client)

    async def _try_chance(self, circuit: MuxedConnection, agreed: Synchronised) -> None:
        """Do what the specification doesn't know of, where DCUtR seems to fail; its attempt goes on beside.

        A peer that hasn't proven itself by then has time until the attempt is over.
        """
        for wait in (2 * agreed.round_trip + SUSPENSE, ATTEMPT):
            await trio.sleep_until(agreed.at + wait)
            if self._chance.may_meet(circuit):
                try:
                    await self._chance.ask(circuit)
                except ChanceError as error:
                    self._on_failed(str(circuit.peer_id), str(error))
                return

    async def _attempt(
        self, peer_id: ID, agreed: Synchronised, own: tuple[bytes, ...], *, is_client: bool
    ) -> None:
        places, hole = targets(agreed.addresses, own), self._hole(peer_id)
        with trio.move_on_at(agreed.at + ATTEMPT):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(partial(hole.punch, places, agreed.at, is_client=is_client))
                await trio.sleep_until(
                    agreed.at + agreed.round_trip
                )  # the peer's NAT is open for our address by now
                await hole.dial(places)

    # -- the responder --------------------------------------------------------------------------------------------

    def _accept(self, stream: MuxedStream) -> None:
        """Take a stream of the protocol; only who answers a circuit of ours may open one."""
        circuit, peer_id = stream.muxed_conn, stream.peer
        is_ours = circuit.way.kind == "relayed" and circuit.is_initiator
        is_too_much = self._answers[peer_id] >= MAX_ANSWERS_PER_PEER or self._answers.total() >= MAX_ANSWERS
        if not is_ours or is_too_much or self._nursery is None:
            stream.abort()
            return
        self._answers[peer_id] += 1
        self._nursery.start_soon(self._answer, stream)

    async def _answer(self, stream: MuxedStream) -> None:
        peer_id, own = stream.peer, self._own()
        try:
            with self._until_met(peer_id):
                agreed = await respond(stream, own)
                self._chance.note(stream.muxed_conn, agreed.addresses)
                with trio.move_on_after(ATTEMPT):
                    hole = self._hole(stream.muxed_conn.peer_id)
                    await hole.punch(targets(agreed.addresses, own), agreed.at, is_client=True)
                await self._look_again()
        except ExchangeError as error:
            _log.debug("%s does not punch: %s", peer_id, error)
        except Exception:  # noqa: BLE001  a task boundary
            _log.exception("punching a hole to %s failed", peer_id)
        finally:
            self._answers[peer_id] -= 1
            if not self._answers[peer_id]:
                del self._answers[peer_id]

    def _accept_chance(self, stream: MuxedStream) -> None:
        """Take a stream on which a peer that has proven itself wants to meet by chance, where DCUtR fails."""
        circuit = stream.muxed_conn
        is_ours = circuit.way.kind == "relayed" and circuit.is_initiator
        if not is_ours or self._nursery is None:
            stream.abort()
            return
        self._nursery.start_soon(self._take_chance, stream)

    async def _take_chance(self, stream: MuxedStream) -> None:
        try:
            if self._chance.admits(stream.muxed_conn):
                with self._until_met(stream.peer):
                    await self._chance.answer(stream)
        except ChanceError as error:
            self._on_failed(stream.peer, str(error))
        except Exception:  # noqa: BLE001  a task boundary
            _log.exception("meeting %s by chance failed", stream.peer)
        finally:
            stream.abort()


async def _any_of(*events: trio.Event) -> None:
    """Wait until one of some events has happened."""
    async with trio.open_nursery() as nursery:

        async def wait(event: trio.Event) -> None:
            await event.wait()
            nursery.cancel_scope.cancel()

        for event in events:
            nursery.start_soon(wait, event)


async def _is_ours(circuit: MuxedConnection) -> bool:
    """Return whether the peer is known to be a peertunnel, whose role is always the same."""
    with trio.move_on_after(IDENTIFY):
        return CHANCE in (await identified(circuit)).protocols
    return False
