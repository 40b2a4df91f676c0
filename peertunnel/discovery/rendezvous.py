"""Announcing and finding at rendezvous points (libp2p specs, rendezvous): each is asked for itself, and may be away.

1. Who announces registers a signed record under each topic at each point; again when the addresses change, when the
   time is half over, and when the point has lost its connection, and so perhaps its memory.
2. Who searches asks for each topic at each point every two seconds; cookies keep the answers to what is new.
3. A point that doesn't answer is tried again after 0.5, 1, 2 … 10 seconds.
"""

import logging
import time
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass, field

import trio
from multiaddr import Multiaddr

from peertunnel.discovery import Announcement, Candidate, ending
from peertunnel.discovery.mdns_peer import ip_of
from peertunnel.discovery.rendezvous_point import MAX_ADDRESSES, Point, Refusal, addresses_of
from peertunnel.peers import Peers, RequestError
from peertunnel.protocols.address import AddressError, split_address
from peertunnel.protocols.record import PeerRecord
from peertunnel.protocols.rendezvous import Status
from peertunnel.protocols.service import Service
from peertunnel.protocols.topic import cid

_FIRST_PAUSE, _LAST_PAUSE = 0.5, 10.0  # seconds before a point that didn't answer is asked again, doubling
_LOOK = 1.0  # seconds between looks at our addresses, our topics and the connection
_RENEWAL = 300.0  # seconds until we register again at the latest, should a point have forgotten us unnoticed
_TOUCH = 8.0  # seconds between signs of life: the connection is closed after 10 without any, and it tells of restarts
_POLL = 2.0  # seconds between questions of a search
_SEEKER_POLL = 10.0  # seconds between those of a provider that looks for seekers, as long as it runs
_WITHDRAWAL = 1.0  # seconds to withdraw when we stop
_MAX_PAGES = 10  # of a namespace at a time; the rest comes with the next poll
_MAX_CANDIDATES = 256  # that wait for whoever searches
_MAX_TELLING = 4096  # bytes of our own addresses; half of what an envelope may have
_MAX_TOLD = 1000  # peers whose addresses a search remembers, so as to name them again only if they change
_log = logging.getLogger(__name__)


class Rendezvous:
    """The rendezvous source. Its run() goes into a nursery, beside whatever announces and finds.

    Args:
        peers: the way to the points.
        points: their multiaddrs, each ending in /p2p/ and the peer id; several may lead to one point.

    Raises:
        AddressError: a multiaddr names no peer.
    """

    name = "rendezvous points"

    def __init__(self, peers: Peers, points: tuple[str, ...]) -> None:
        self._peers = peers
        places: defaultdict[str, list[str]] = defaultdict(list)
        for address in points:
            _, peer_id = split_address(address)
            if peer_id is None:
                raise AddressError(f"{address!r} does not say which peer is there")
            places[peer_id].append(address)
        self._points = [Point(peers, peer_id, addresses) for peer_id, addresses in places.items()]
        self._nursery: trio.Nursery | None = None
        self._searches: list[_Search] = []

    async def run(self) -> None:
        """Search until cancelled; what is sought before that waits for it."""
        try:
            with ending(self._searches):
                async with trio.open_nursery() as self._nursery:
                    for search in self._searches:
                        self._nursery.start_soon(self._search, search)
                    await trio.sleep_forever()
        finally:
            self._nursery = None

    async def _search(self, search: "_Search") -> None:
        await search.run()
        self._searches.remove(search)

    async def announce(self, announcement: Announcement) -> None:
        """Register a provider at every point until cancelled, and withdraw it then."""
        async with trio.open_nursery() as nursery:
            for point in self._points:
                nursery.start_soon(_Presence(point, announcement).keep)
            await trio.sleep_forever()

    def find(self, service: Service) -> trio.MemoryReceiveChannel[Candidate]:
        """Look for a service's providers until the channel is closed, so use it in a with block.

        The channel ends at once when the service has no topic, or there is no point.
        """
        send, receive = trio.open_memory_channel[Candidate](_MAX_CANDIDATES)
        if not self._points or not service.topics_to_search(time.time()):
            send.close()
            return receive
        search = _Search(self._peers.peer_id, self._points, service, send)
        self._searches.append(search)
        if self._nursery is not None:
            self._nursery.start_soon(self._search, search)
        return receive


@dataclass(slots=True, eq=False)
class _Presence:
    """One announcement at one point."""

    point: Point
    announcement: Announcement
    record: PeerRecord | None = None
    renew_at: dict[str, float] = field(default_factory=dict)  # by namespace; trio's clock
    touch_at: float = 0.0
    cookie: bytes = b""
    connections: frozenset[object] = frozenset()  # to the point, at the last look

    async def keep(self) -> None:
        """Stay registered until cancelled, and withdraw then."""
        pause = _FIRST_PAUSE
        try:
            while True:
                try:
                    await self._renew()
                except Exception as error:  # noqa: BLE001  a task boundary: it is tried again
                    _note(error, self.point)
                    await trio.sleep(pause)
                    pause = min(2 * pause, _LAST_PAUSE)
                else:
                    pause = _FIRST_PAUSE
                    await trio.sleep(_LOOK)
        finally:
            if self.point.connections:
                with trio.move_on_after(_WITHDRAWAL) as patience:
                    patience.shield = True
                    await self._withdraw()

    async def _renew(self) -> None:
        """Do what is due: register, unregister, or give a sign of life."""
        # Where none of them is left, the point may have been started anew since, and know nobody.
        if not self.connections & self.point.connections:
            self.renew_at = dict.fromkeys(self.renew_at, 0.0)
        addresses = _worth_telling(self.point, self.announcement.addresses())
        if self.record is None or self.record.addresses != addresses:
            self.record = PeerRecord(self.announcement.peer_id, time.time_ns(), addresses)
            self.renew_at = dict.fromkeys(self.renew_at, 0.0)
        wanted = {cid(topic) for topic in self.announcement.topics()} if addresses else set()
        for namespace in sorted(wanted):
            if self.renew_at.setdefault(namespace, 0.0) <= trio.current_time():
                ttl = await self._register(namespace, self.record)
                self.renew_at[namespace] = trio.current_time() + min(ttl / 2, _RENEWAL)
                self.touch_at = trio.current_time() + _TOUCH
        for namespace in sorted(self.renew_at.keys() - wanted):
            await self.point.unregister(namespace)
            del self.renew_at[namespace]
        if wanted and trio.current_time() >= self.touch_at:
            await self._touch(min(wanted))
        self.connections = self.point.connections

    async def _register(self, namespace: str, record: PeerRecord) -> int:
        try:
            return await self.point.register(namespace, record)
        except Refusal as refusal:
            if refusal.status is Status.INVALID_SIGNED_PEER_RECORD:
                # It may have a newer one of ours, if our clock was put back: that one is withdrawn.
                await self.point.unregister(namespace)
            raise

    async def _touch(self, namespace: str) -> None:
        self.touch_at = trio.current_time() + _TOUCH
        try:
            _, self.cookie = await self.point.discover(namespace, self.cookie, limit=1)
        except Refusal as refusal:
            self.cookie = b""
            if (
                refusal.status is Status.INVALID_COOKIE
            ):  # it has forgotten everything, or the topic is a new one
                self.renew_at = dict.fromkeys(self.renew_at, 0.0)

    async def _withdraw(self) -> None:
        async with trio.open_nursery() as nursery:
            for namespace in self.renew_at:
                nursery.start_soon(self._unregister, namespace)

    async def _unregister(self, namespace: str) -> None:
        try:
            await self.point.unregister(namespace)
        except RequestError:
            pass  # it will expire


@dataclass(slots=True, eq=False)
class _Search:
    """One search, at all points."""

    own_id: str
    points: list[Point]
    service: Service
    found: trio.MemorySendChannel[Candidate]

    @property
    def is_over(self) -> bool:
        return self.found.statistics().open_receive_channels == 0

    def close(self) -> None:
        self.found.close()

    async def run(self) -> None:
        """Ask until nobody listens any more."""
        async with trio.open_nursery() as nursery:
            for point in self.points:
                nursery.start_soon(self._ask, point)
        self.close()

    async def _ask(self, point: Point) -> None:
        pause = _FIRST_PAUSE
        cookies: dict[bytes, bytes] = {}
        told: dict[str, PeerRecord] = {}
        while not self.is_over:
            try:
                for topic in self.service.topics_to_search(time.time()):
                    await self._page(point, topic, cookies, told)
            except Exception as error:  # noqa: BLE001  a task boundary: it is tried again
                _note(error, point)
                await trio.sleep(pause)
                pause = min(2 * pause, _LAST_PAUSE)
            else:
                pause = _FIRST_PAUSE
                await trio.sleep(_SEEKER_POLL if self.service.seeks_seekers else _POLL)

    async def _page(
        self, point: Point, topic: bytes, cookies: dict[bytes, bytes], told: dict[str, PeerRecord]
    ) -> None:
        """Read what is new under a topic."""
        for _ in range(_MAX_PAGES):
            try:
                records, cookies[topic] = await point.discover(cid(topic), cookies.get(topic, b""))
            except Refusal:
                cookies.pop(topic, None)  # a point that has been restarted knows no cookies of before
                return
            for record in records:
                await self._offer(record, topic, told)
            if not records:
                return

    async def _offer(self, record: PeerRecord, topic: bytes, told: dict[str, PeerRecord]) -> None:
        """Name a peer as soon as the reader has room, unless nothing has changed since it was named."""
        if record.peer_id == self.own_id or told.get(record.peer_id) == record:
            return
        addresses = addresses_of(record)
        if not addresses or not self.service.matches(record.peer_id, [topic], time.time()):
            return
        if len(told) >= _MAX_TOLD:
            told.clear()
        told[record.peer_id] = record
        with suppress(trio.BrokenResourceError):  # the reader is gone
            await self.found.send(Candidate(record.peer_id, addresses, "rendezvous"))


def _note(error: Exception, point: Point) -> None:
    """Log what is no way of a point to be away or to refuse."""
    if not isinstance(error, RequestError | Refusal):
        _log.error("a question to %s failed", point.peer_id, exc_info=error)


def _worth_telling(point: Point, addresses: tuple[str, ...]) -> tuple[bytes, ...]:
    """Give our addresses as a record wants them; those of this machine only to a point that is on it, too."""
    is_here = all(map(_is_loopback, point.addresses))
    places = [split_address(address)[0] for address in addresses if is_here or not _is_loopback(address)]
    told: list[bytes] = []
    for place in places[:MAX_ADDRESSES]:
        told.append(Multiaddr(place).to_bytes())
        if sum(map(len, told)) > _MAX_TELLING:
            return tuple(told[:-1])
    return tuple(told)


def _is_loopback(address: str) -> bool:
    ip = ip_of(address)
    return ip is not None and ip.is_loopback
