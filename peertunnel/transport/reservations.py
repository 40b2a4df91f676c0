"""Reservations: relays that pass circuits on to us, kept as long as we want to be reached (libp2p specs, relay/circuit-v2).

1. Relays are named by the user, or found among the peers that we meet. All that were named are asked: others may know of
   no other way to us. Of those that were found the nearest fill what is missing, and only if nobody reaches us otherwise.
2. A reservation lasts as long as the connection; it is renewed when half of its time is over.
3. A relay that is lost, or that refuses, is tried again after 0.5, 1, 2 … 30 seconds, and another one meanwhile; one that
   was named, after four seconds at the most, whatever else holds.
"""

import logging
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import trio
from libp2p.stream_muxer.exceptions import MuxedConnError, MuxedStreamError

from peertunnel.multiaddrs import address_texts
from peertunnel.peers import RequestError
from peertunnel.protocols.address import split_address
from peertunnel.protocols.circuit import HOP, MAX_MESSAGE, CircuitRefused
from peertunnel.protocols.circuit.client import Reservation, read_reservation, reserve
from peertunnel.protocols.delimited import encode_delimited
from peertunnel.protocols.errors import RemoteProtocolError
from peertunnel.transport.addresses import is_public
from peertunnel.transport.candidates import place_at
from peertunnel.transport.connection import MuxedConnection
from peertunnel.transport.requests import read_message
from peertunnel.transport.visits import Visits

WANTED = 2  # relays at a time, unless the user has named more; go-libp2p's autorelay default
MAX_OFFERED = 32  # relays that are remembered; a found one that has failed makes room for a new one
MAX_ADDRESSES = 4  # of one relay that we announce
TIMEOUT = 10.0  # seconds for a relay to be reached, and again to answer
PING_INTERVAL = 3.0  # seconds between signs of life from a relay
SILENCE = 3.0  # seconds without one, after which it is lost: a round trip and two retransmissions
_FIRST_PAUSE, _LAST_PAUSE = 0.5, 30.0  # seconds until a relay is tried again, doubling
_LAST_PAUSE_NAMED = 4.0  # the same for one that the user has named: without it nobody gets in
_LEAST, _MOST = 10.0, 3600.0  # seconds until a renewal: clocks differ, and a relay may promise anything
_log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class _Relay:
    """A relay that was offered."""

    places: tuple[str, ...]
    is_found: bool
    distance: float = float("inf")  # seconds there and back
    pause: float = _FIRST_PAUSE
    again_at: float = 0.0  # trio's clock
    is_trying: bool = False
    addresses: tuple[str, ...] = field(default_factory=tuple)  # while it holds a reservation for us


class Reservations:
    """Keeps reservations.

    Args:
        own_id: our peer id, base58.
        visits: gives out the connections to relays.

    Attributes:
        takes_found: whether relays are used that the user has not named.
    """

    def __init__(self, own_id: str, visits: Visits) -> None:
        self.takes_found = False
        self._own_id = own_id
        self._visits = visits
        self._relays: dict[str, _Relay] = {}
        self._changed = trio.Event()

    def offer(
        self, peer_id: str, places: Iterable[str], *, is_found: bool = False, distance: float = float("inf")
    ) -> None:
        """Name a relay.

        Args:
            peer_id: base58.
            places: its multiaddrs.
            is_found: the user has not named it.
            distance: seconds for a round trip, if known.
        """
        if peer_id not in self._relays and (peer_id == self._own_id or not self._has_room()):
            return
        relay = self._relays.setdefault(peer_id, _Relay((), is_found))
        relay.places = tuple(dict.fromkeys((*places, *relay.places)))[:MAX_OFFERED]
        relay.is_found, relay.distance = relay.is_found and is_found, min(relay.distance, distance)
        self._changed.set()

    def _has_room(self) -> bool:
        """Return whether there is room for one more, which may be that of a found one that has failed for longest."""
        if len(self._relays) < MAX_OFFERED:
            return True
        failed = {
            peer_id: relay.pause
            for peer_id, relay in self._relays.items()
            if relay.is_found and not relay.is_trying and relay.pause > _FIRST_PAUSE
        }
        if failed:
            del self._relays[max(failed, key=failed.__getitem__)]
        return bool(failed)

    def take_found(self, takes: bool) -> None:
        """Use relays that were found, or do without from their next renewal on."""
        if takes != self.takes_found:
            self.takes_found = takes
            self._changed.set()

    @property
    def found(self) -> tuple[tuple[str, tuple[str, ...]], ...]:
        """The relays that the user has not named, the nearest first: peer id and multiaddrs of each."""
        near = sorted(self._relays.items(), key=lambda item: item[1].distance)
        return tuple((peer_id, relay.places) for peer_id, relay in near if relay.is_found)

    def admits(self, peer_id: str) -> bool:
        """Return whether a relay may pass calls on to us: it was asked to."""
        relay = self._relays.get(peer_id)
        return relay is not None and relay.is_trying

    @property
    def addresses(self) -> tuple[str, ...]:
        """The multiaddrs under which we can be called now, without our own peer id."""
        return tuple(address for relay in self._relays.values() for address in relay.addresses)

    def retry(self) -> None:
        """Try every relay again at once: the network has changed."""
        for relay in self._relays.values():
            relay.again_at, relay.pause = 0.0, _FIRST_PAUSE
        self._changed.set()

    async def run(self) -> None:
        """Keep as many reservations as are wanted, until cancelled."""
        async with trio.open_nursery() as nursery:
            while True:
                self._changed = trio.Event()
                now = trio.current_time()
                idle = [(peer, r) for peer, r in self._relays.items() if self._may_try(r)]
                due = sorted(
                    ((r.is_found, r.pause, r.distance, peer) for peer, r in idle if r.again_at <= now)
                )
                for is_found, *_, peer_id in due:
                    if self._missing or not is_found:
                        self._relays[peer_id].is_trying = True
                        nursery.start_soon(self._hold, peer_id, self._relays[peer_id])
                later = [
                    r.again_at for _, r in idle if r.again_at > now and (self._missing or not r.is_found)
                ]
                with trio.move_on_at(min(later, default=float("inf"))):
                    await self._changed.wait()

    @property
    def _missing(self) -> int:
        """How many more relays are wanted than are asked or held."""
        return max(0, WANTED - sum(relay.is_trying for relay in self._relays.values()))

    def _may_try(self, relay: _Relay) -> bool:
        return not relay.is_trying and (self.takes_found or not relay.is_found)

    def _may_stay(self, relay: _Relay) -> bool:
        """Return whether a reservation may be renewed: a found relay makes way for those that were named."""
        held = sum(bool(other.addresses) for other in self._relays.values())
        return not relay.is_found or (self.takes_found and held <= WANTED)

    async def _hold(self, peer_id: str, relay: _Relay) -> None:
        """Reserve at a relay, and renew it until that fails or the connection ends."""
        try:
            async with self._visits.at_relay(peer_id, relay.places, TIMEOUT) as connection, _kept(connection):
                while not connection.is_closed and self._may_stay(relay):
                    reservation = await reserve_at(connection, self._own_id)
                    relay.addresses = _addresses(peer_id, connection, relay.places, reservation)
                    relay.pause = _FIRST_PAUSE
                    renewal = max(_LEAST, min(_MOST, reservation.expires_at - time.time()) / 2)
                    with trio.move_on_after(renewal):
                        await _watch(connection)
                        break
        except (RequestError, CircuitRefused):
            pass  # it is tried again, and another one meanwhile
        except Exception:  # noqa: BLE001  a task boundary
            _log.exception("a reservation at %s failed", peer_id)
        finally:
            relay.is_trying, relay.addresses = False, ()
            relay.again_at = trio.current_time() + relay.pause
            relay.pause = min(2 * relay.pause, _LAST_PAUSE if relay.is_found else _LAST_PAUSE_NAMED)
            self._changed.set()


async def reserve_at(connection: MuxedConnection, own_id: str) -> Reservation:
    """Reserve, or renew a reservation.

    Args:
        connection: to the relay.
        own_id: our peer id, base58.

    Raises:
        CircuitRefused: the relay doesn't want to.
        RequestError: it did not answer in time, or nothing that makes sense.
    """
    relay = str(connection.peer_id)
    try:
        with trio.fail_after(TIMEOUT):
            stream = await connection.open_tunnel(HOP)
            try:
                await stream.write(encode_delimited(reserve()))
                return read_reservation(await read_message(stream, MAX_MESSAGE), relay, own_id)
            finally:
                stream.abort()
    except trio.TooSlowError as error:
        raise RequestError(f"{relay} did not answer in time") from error
    except (RemoteProtocolError, MuxedConnError, MuxedStreamError) as error:
        raise RequestError(f"{relay} did not answer: {error}") from error


@asynccontextmanager
async def _kept(connection: MuxedConnection) -> AsyncIterator[None]:
    """Have a connection stay though nothing runs on it, also one that the relay has opened."""
    connection.kept += 1
    try:
        yield
    finally:
        connection.kept -= 1


async def _watch(connection: MuxedConnection) -> None:
    """Wait until a relay is lost: who can't be called must know it sooner than a tunnel that stalls."""
    while not connection.event_unavailable.is_set():
        await connection.close_unless_it_answers(SILENCE)
        with trio.move_on_after(PING_INTERVAL):
            await connection.event_unavailable.wait()


def _addresses(
    peer_id: str, connection: MuxedConnection, places: tuple[str, ...], reservation: Reservation
) -> tuple[str, ...]:
    """Give the circuit addresses of a relay: where we reach it, as the user named it, and what is public of its own.

    Of its own only an IP address and a port count: with anything else it could have us announce what nobody can read.
    """
    told = (place.rpartition("/p2p/")[0] for place in address_texts(reservation.addresses, peer_id))
    public = (place for place in told if is_public(place) and place_at(place) is not None)
    called = [str(connection.get_transport_addresses()[0])] if connection.is_initiator else []
    worthwhile = dict.fromkeys((*called, *(split_address(place)[0] for place in places), *public))
    return tuple(f"{place}/p2p/{peer_id}/p2p-circuit" for place in list(worthwhile)[:MAX_ADDRESSES])
