"""How two ends of a service meet: every candidate is tried beside the others, again and again, and has to prove itself.

Both ends announce and both search: a consumer looks for providers and lets providers find it meanwhile; a provider looks
for consumers that seek it. Whoever can reach the other dials. A candidate that is dead, slow or a stranger costs nothing
but its own attempt.
"""

import logging
import random
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Protocol

import trio

from peertunnel.boundary import contained
from peertunnel.discovery import Candidate, Source
from peertunnel.errors import NotFound, Refused
from peertunnel.host import Host
from peertunnel.protocols.service import Service
from peertunnel.transport.connection import MuxedConnection
from peertunnel.transport.dialer import MAX_ADDRESSES

DIAL_TIMEOUT = 5.0  # seconds for one try at a candidate; all its addresses are tried side by side
FIRST_PAUSE = 0.1  # seconds before a candidate that did not answer is tried again
LAST_PAUSE = 1.0  # seconds between tries in the end, so that a provider that returns serves again within 3 s
REFUSED_PAUSE = 1.0  # seconds before a candidate that did not prove itself is tried again, doubling
LAST_REFUSED_PAUSE = 30.0  # seconds in the end; it may be ours by then, with another id
MAX_CANDIDATES = 1024  # peers that are remembered; one that has failed makes room for a new one
FORGETFUL = 30.0  # seconds at least until a source is asked anew where somebody was forgotten
MAX_DIALS = 128  # of them dialled at a time; one that stalls takes 5 s, and then 8 s for its proof
_log = logging.getLogger(__name__)


class Prover(Protocol):
    """Has a peer prove itself."""

    async def prove(self, connection: MuxedConnection) -> None:
        """Check the peer at the other end of a connection; raises NotFound if it is lost, and Refused."""
        ...


@dataclass(frozen=True, slots=True)
class NoProof:
    """Takes whoever answers, for services that are public or that go by the provider's key alone.

    on_proven: called with each connection; raises Refused for one that is not wanted.
    """

    on_proven: Callable[[MuxedConnection], None]

    async def prove(self, connection: MuxedConnection) -> None:
        """Pass a connection on."""
        self.on_proven(connection)


@dataclass(slots=True, eq=False)
class _Candidate:
    """A peer to try."""

    addresses: tuple[str, ...]
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    news: trio.Event = field(default_factory=trio.Event)
    more: trio.Event = field(default_factory=trio.Event)  # addresses; replaced each time
    has_failed: bool = False


class Meeting:
    """A search for the other ends of a service.

    Args:
        host: dials.
        sources: name the candidates.
        wanted: what to look for: the service, or for a provider its seekers.
        prover: checks who answers, and passes on who is right.
        worth_dialling: which of a peer's multiaddrs are worth a try now, asked before each one.
        on_refused: called when a candidate answered and did not prove itself.
        last_pause: seconds between tries at a candidate that does not answer, in the end.
        may_dial: whether a peer may be called at a multiaddr.
    """

    def __init__(
        self,
        host: Host,
        sources: tuple[Source, ...],
        wanted: Service,
        prover: Prover,
        *,
        worth_dialling: Callable[[str, tuple[str, ...]], tuple[str, ...]] = lambda peer_id, addresses: (
            addresses
        ),
        on_refused: Callable[[Refused], None] = lambda refusal: None,
        last_pause: float = LAST_PAUSE,
        may_dial: Callable[[str], bool] = lambda address: True,
    ) -> None:
        self._host = host
        self._sources = sources
        self._wanted = wanted
        self._prover = prover
        self._worth_dialling = worth_dialling
        self._on_refused = on_refused
        self._last_pause = last_pause
        self._may_dial = may_dial
        self._candidates: dict[str, _Candidate] = {}
        self._dials = trio.Semaphore(MAX_DIALS)
        self._repeated = trio.Semaphore(MAX_DIALS // 2)  # of them at who has failed: who is new waits less
        self._forgotten_at = float("-inf")  # when a candidate made room for another, in seconds
        self._failure = trio.Event()  # replaced each time

    async def run(self) -> None:
        """Search until cancelled."""
        async with trio.open_nursery() as nursery:
            for source in self._sources:
                nursery.start_soon(self._follow, source, nursery)
            await trio.sleep_forever()

    async def _follow(self, source: Source, nursery: trio.Nursery) -> None:
        """Take the candidates of one source as they come.

        It names each of them once: where one has made room for another it has to name all again.
        """
        while True:
            began = trio.current_time()
            with source.find(self._wanted) as channel:
                while True:
                    found = None
                    with trio.move_on_after(FORGETFUL):
                        try:
                            found = await channel.receive()
                        except trio.EndOfChannel:
                            return
                    if found is not None and self._may_be(found.peer_id):
                        await contained(self._take, found, nursery)
                    if self._has_forgotten(began) and not channel.statistics().current_buffer_used:
                        break

    def _may_be(self, peer_id: str) -> bool:
        return peer_id != self._host.peer_id and self._wanted.peer_id in (None, peer_id)

    def _has_forgotten(self, began: float) -> bool:
        """Return whether somebody was forgotten since a moment that is not too close."""
        return self._forgotten_at > began and trio.current_time() >= began + FORGETFUL

    async def _take(self, found: Candidate, nursery: trio.Nursery) -> None:
        if found.peer_id not in self._candidates:
            await self._make_room()
        addresses = tuple(filter(self._may_dial, found.addresses))
        known = self._candidates.get(found.peer_id)
        if known is None:
            self._candidates[found.peer_id] = _Candidate(addresses[:MAX_ADDRESSES])
            nursery.start_soon(self._try_on, found.peer_id)
            return
        # What was told last is tried first; what was given before may still be right.
        merged = dict.fromkeys((*addresses, *known.addresses))
        has_more = not merged.keys() <= set(known.addresses)
        known.addresses = tuple(merged)[:MAX_ADDRESSES]
        known.news.set()
        if has_more:
            known.more.set()
            known.more = trio.Event()

    async def _make_room(self) -> None:
        """Wait until there is room for one more, which may be that of one that has failed."""
        while len(self._candidates) >= MAX_CANDIDATES:
            failed = [peer_id for peer_id, candidate in self._candidates.items() if candidate.has_failed]
            if not failed:
                await self._failure.wait()
                continue
            self._candidates.pop(random.choice(failed)).scope.cancel()
            self._forgotten_at = trio.current_time()

    async def _try_on(self, peer_id: str) -> None:
        """Try one candidate for as long as it is wanted, sooner again when something new is known of it."""
        candidate = self._candidates[peer_id]
        with candidate.scope:
            absent, refused = FIRST_PAUSE, REFUSED_PAUSE
            while True:
                candidate.news = trio.Event()
                pause = self._last_pause
                # Who has no address fails, and so makes room.
                if not candidate.addresses or self._worth_dialling(peer_id, candidate.addresses):
                    try:
                        await self._try(peer_id, candidate)
                        absent, refused = FIRST_PAUSE, REFUSED_PAUSE
                        candidate.has_failed = False
                    except NotFound:
                        pause, absent = absent, min(2 * absent, self._last_pause)
                        candidate.has_failed = True
                    except Refused as refusal:
                        self._on_refused(refusal)
                        pause, refused = refused, min(2 * refused, LAST_REFUSED_PAUSE)
                        candidate.has_failed = True
                    except Exception:  # noqa: BLE001  a task boundary: one candidate must not end the search
                        _log.exception("a try at %s failed", peer_id)
                        candidate.has_failed = True
                if candidate.has_failed:
                    self._failure.set()
                    self._failure = trio.Event()
                with trio.move_on_after(pause):
                    await candidate.news.wait()
                    absent = FIRST_PAUSE

    async def _try(self, peer_id: str, candidate: _Candidate) -> None:
        """Dial a candidate, and have it prove itself; raises NotFound and Refused."""
        turn = self._repeated if candidate.has_failed else nullcontext()
        async with turn, self._dials:  # not longer: among many strangers a proof may wait for minutes
            connection = await self._dial(peer_id, candidate)
        is_met = False
        try:
            await self._prover.prove(connection)
            is_met = True
        finally:
            if not is_met:
                with trio.CancelScope(shield=True):
                    await connection.close()

    async def _dial(self, peer_id: str, candidate: _Candidate) -> MuxedConnection:
        """Dial a candidate, and from anew as soon as more addresses of it are told; raises NotFound."""
        outcome: MuxedConnection | NotFound | None = None
        try:
            while outcome is None:
                with trio.CancelScope() as attempt:
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(_cancel_when, candidate.more, attempt)
                        addresses = self._worth_dialling(peer_id, candidate.addresses)
                        outcome = await self._outcome(peer_id, addresses)
                        nursery.cancel_scope.cancel()
        except BaseException:
            if isinstance(outcome, MuxedConnection):  # cancelled as it came
                await outcome.close()
            raise
        if isinstance(outcome, NotFound):
            raise outcome
        return outcome

    async def _outcome(self, peer_id: str, addresses: tuple[str, ...]) -> MuxedConnection | NotFound:
        try:
            return await self._host.dial(peer_id, addresses, DIAL_TIMEOUT)
        except NotFound as error:
            return error  # not to leave the nursery as a group


async def _cancel_when(event: trio.Event, scope: trio.CancelScope) -> None:
    await event.wait()
    scope.cancel()
