"""Meeting by chance, where DCUtR fails: `protocols.punch` on a stream of a circuit, and what both ends do then.

It costs others packets, so it is done only with a peer that has proven itself, when an attempt of DCUtR on the same
circuit seems to fail, with one peer at a time, and for a bounded time. Packets go to no address but one on the
internet that the peer has told in that attempt, and tells again now.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Protocol, TypeVar

import trio
from libp2p.stream_muxer.exceptions import MuxedConnError, MuxedStreamEOF, MuxedStreamError

from peertunnel.protocols.errors import RemoteProtocolError
from peertunnel.protocols.punch import (
    MAX_ADDRESSES,
    MAX_MESSAGE,
    PROTOCOL,
    Agreed,
    Event,
    Initiator,
    Mapping,
    Opened,
    Probed,
    Proposal,
    Responder,
    Role,
)
from peertunnel.transport.candidates import place_at, read_place, target_of
from peertunnel.transport.connection import MuxedConnection
from peertunnel.transport.observed import Observed
from peertunnel.transport.ports import Pace, Sockets, port_given_now, probe
from peertunnel.transport.stream import MuxedStream
from peertunnel.transport.swarm import Network
from peertunnel.transport.tcp import SockAddress

if TYPE_CHECKING:
    from peertunnel.transport.quic.transport import Quic

PATIENCE = 20.0  # seconds for all of it
REST = 20.0  # seconds from the end of what one peer has asked for until the next may ask
E = TypeVar("E", bound=Event)


class ChanceError(Exception):
    """Two peers have not met, and won't."""


class Meeter(Protocol):
    """The host, as it is needed here."""

    network: Network
    quic: "Quic | None"
    observed: Observed


class Chance:
    """Has peers meet by chance, one at a time.

    Args:
        host: dials, listens and knows our addresses.
    """

    def __init__(self, host: Meeter) -> None:
        self._host = host
        self._turn = trio.Lock()
        self._told: dict[MuxedConnection, frozenset[str]] = {}
        self._pace = Pace()
        self._rested_at = float("-inf")

    def note(self, circuit: MuxedConnection, addresses: Iterable[bytes]) -> None:
        """Remember where the peer at the other end of a circuit says that it is: DCUtR begins to try it there."""
        places = [place for place in map(read_place, addresses) if place is not None]
        ips = frozenset(str(ip) for place in places if (ip := target_of(place).ip).is_global)
        self._told = {known: told for known, told in self._told.items() if not known.is_closed}
        self._told[circuit] = ips

    def may_meet(self, circuit: MuxedConnection) -> bool:
        """Return whether a peer is worth it, and may ask for it."""
        return circuit.is_proven and bool(self._told.get(circuit)) and self._host.quic is not None

    def admits(self, circuit: MuxedConnection) -> bool:
        """Return whether a peer may ask for it now: nobody else is at it, and nobody has just been."""
        is_rested = trio.current_time() >= self._rested_at
        return self.may_meet(circuit) and is_rested and not self._turn.locked()

    async def ask(self, circuit: MuxedConnection) -> None:
        """Meet the peer that a circuit came from; cancelled when that has happened.

        Raises:
            ChanceError: it hasn't, and why.
        """
        async with self._turn:
            with trio.move_on_after(PATIENCE):
                end = Initiator(proposal := await self._proposal())
                if not proposal.addresses:
                    raise ChanceError("no relay has seen this node over UDP")
                try:
                    stream = await circuit.open_tunnel(PROTOCOL)
                except MuxedConnError as error:
                    raise ChanceError(str(error)) from error
                end.start()
                await self._meet(_Talk(stream, end))
            raise ChanceError("it took too long")

    async def answer(self, stream: MuxedStream) -> None:
        """Meet a peer that asks for it; see `ask`."""
        async with self._turn:
            try:
                with trio.move_on_after(PATIENCE):
                    await self._meet(_Talk(stream, Responder(await self._proposal())))
            finally:
                self._rested_at = trio.current_time() + REST
            raise ChanceError("it took too long")

    async def _proposal(self) -> Proposal:
        observed = self._host.observed
        seen, mapping = list(observed.quic[: MAX_ADDRESSES - 1]), observed.quic_mapping
        if mapping is not Mapping.STEADY and self._host.quic is not None:
            seen += await port_given_now(self._host.quic, observed.quic_observers)
        places = [place for address in seen if (place := place_at(address)) is not None]
        return Proposal(mapping, tuple(places))

    async def _meet(self, talk: "_Talk") -> None:
        """Take our turns; raises ChanceError, if it isn't cancelled before."""
        agreed: Agreed | None = None
        try:
            agreed = await talk.hear(Agreed)
            places = self._places(talk.stream.muxed_conn, agreed)
            if not agreed.turns:
                raise ChanceError(_HOPELESS[agreed.theirs.mapping])
            was_known = len(agreed.turns) == 1
            for role in agreed.turns:
                await (self._open if role is Role.OPENER else self._probe)(talk, places)
        except MuxedStreamEOF:
            raise ChanceError(_GIVEN_UP) from None
        except (MuxedConnError, MuxedStreamError) as error:
            raise ChanceError(_REFUSED if agreed is None else _GIVEN_UP) from error
        except (RemoteProtocolError, OSError) as error:
            raise ChanceError(str(error)) from error
        finally:
            talk.stream.abort()
        raise ChanceError(_IN_VAIN if was_known else _HOPELESS[Mapping.CHANGING])

    def _places(self, circuit: MuxedConnection, agreed: Agreed) -> list[SockAddress]:
        """Give where the peer's NAT has it, as far as it has told that before."""
        read = [place for place in map(read_place, agreed.theirs.addresses) if place is not None]
        targets = [target for target in map(target_of, read) if target.transport == "quic"]
        told = self._told.get(circuit, frozenset())
        places = [target.address for target in targets if target.ip.version == 4 and str(target.ip) in told]
        if not places:
            raise ChanceError("the peer tells of another address than before")
        return places

    async def _open(self, talk: "_Talk", places: list[SockAddress]) -> None:
        """Be probed."""
        network, quic, peer_id = self._host.network, self._host.quic, talk.stream.muxed_conn.peer_id
        assert quic is not None
        sockets = Sockets(network, quic, self._pace, peer_id, places[0])
        failure: BaseException | None = None
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(sockets.run)
                await sockets.all_called.wait()
                talk.end.opened()
                await talk.hear(Probed)
                nursery.cancel_scope.cancel()
        except* (MuxedConnError, MuxedStreamError, RemoteProtocolError, OSError) as group:
            failure = group
            while isinstance(failure, BaseExceptionGroup):  # the sockets have a nursery of their own
                failure = failure.exceptions[0]
        if failure is not None:
            raise failure  # not to leave as a group

    async def _probe(self, talk: "_Talk", places: list[SockAddress]) -> None:
        """Probe the peer."""
        assert self._host.quic is not None
        (ip, *_), peer_id = places[0], talk.stream.muxed_conn.peer_id
        seen = [port for host, port, *_ in reversed(places) if host == ip]  # the latest one was told last
        await talk.hear(Opened)
        with self._host.network.crossing(peer_id, [(ip, 0)], is_client=False):
            await probe(self._host.quic, self._pace, ip, seen)
        talk.end.probed()
        await talk.say()


_REFUSED = "the peer is busy, or does not know how to be met otherwise"
_GIVEN_UP = "the peer has given up"
_IN_VAIN = "no packet has found its way through the routers"
_HOPELESS = {
    Mapping.CHANGING: "the routers at both ends map each destination to another port",
    Mapping.STEADY: "the routers at both ends keep their ports, and yet nothing came in",
}


class _Talk:
    """An exchange on a stream."""

    def __init__(self, stream: MuxedStream, end: Initiator | Responder) -> None:
        self.stream = stream
        self.end = end
        self._events: list[Event] = []

    async def say(self) -> None:
        """Send what is to be sent."""
        if data := self.end.outgoing():
            await self.stream.write(data)

    async def hear(self, kind: type[E]) -> E:
        """Return what the peer says next, which must be of a kind."""
        await self.say()
        while not self._events:
            self._events = self.end.receive(await self.stream.read(MAX_MESSAGE))
        await self.say()
        event = self._events.pop(0)
        if not isinstance(event, kind):
            raise RemoteProtocolError(f"{event} came when it should not")
        return event
