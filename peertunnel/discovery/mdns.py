"""Finding peers on the LAN and on this machine by multicast DNS (libp2p specs, discovery/mdns; RFC 6762).

1. Every two seconds the interfaces are looked at; each has a socket and a task that listens to it.
2. What is heard goes into one cache; news go from there to whoever searches.
3. Who searches asks: at once, then after 1, 2, 4 … 60 seconds, but every two while nobody has answered.
4. Who announces tells twice, a second apart, and again when something has changed; answers who asks; and
   says goodbye.

Names are random, so nobody probes for them and conflicts don't occur (RFC 6762 section 8 is left out).
"""

import contextlib
import random
import secrets
import socket
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

import trio

from peertunnel.boundary import contained
from peertunnel.discovery import Announcement, Candidate, ending
from peertunnel.discovery.mdns_cache import MAX_PEERS, Neighbour, Neighbours
from peertunnel.discovery.mdns_link import PORT, links, open_link, receive, send
from peertunnel.discovery.mdns_peer import TTL, Sighting, encode_peer, ip_of, sightings, tag
from peertunnel.discovery.mdns_wire import SERVICE, Name, decode, encode_query
from peertunnel.interfaces import InterfaceAddress, interface_addresses
from peertunnel.protocols.address import address_of
from peertunnel.protocols.errors import RemoteProtocolError
from peertunnel.protocols.service import Service

_LOOK = 2.0  # seconds between looks at the interfaces and at what we announce
_REPEAT = 1.0  # seconds from the first announcement to the second (RFC 6762 section 8.3)
_FIRST_INTERVAL, _LAST_INTERVAL = 1.0, 60.0  # seconds between questions, doubling (RFC 6762 section 5.2)
_IMPATIENCE = 2.0  # seconds between questions while nobody has answered
_JITTER = 0.02, 0.12  # seconds before an answer, so that not all speak at once (RFC 6762 section 6)
_SPACING = 0.25  # seconds between two messages of a kind on a link; section 6 lets an answer to a probe do so
_RATE, _BURST = 200, 100  # messages a second and at once that we read from a link; a flood gets lost
# Bytes of a message that counts as one; a long one, which may tell of sixty peers, counts as several.
_SHORT = 512


@dataclass(slots=True, eq=False)
class _Link:
    address: InterfaceAddress
    sock: socket.socket
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    spoke_at: float = float("-inf")
    is_answering: bool = False

    @property
    def is_loopback(self) -> bool:
        return self.address.ip.is_loopback


@dataclass(frozen=True, slots=True)
class _Voice:
    """What one announcement says at the moment; the label is new whenever the rest is."""

    peer_id: str
    addresses: tuple[str, ...]
    tags: tuple[str, ...]
    label: bytes = field(default_factory=lambda: secrets.token_hex(16).encode(), compare=False)

    def messages(self, is_loopback: bool, ttl: int = TTL) -> list[bytes]:
        """Loopback addresses stay on this machine, where they serve when the network is down."""
        here = [a for a in self.addresses if is_loopback or not _names_loopback(a)]
        return encode_peer(self.label + (b"l" if is_loopback else b"n"), here, self.tags, ttl)


@dataclass(slots=True, eq=False)
class _Search:
    service: Service
    found: trio.MemorySendChannel[Candidate]
    is_answered: bool = False

    @property
    def is_over(self) -> bool:
        return self.found.statistics().open_receive_channels == 0

    def close(self) -> None:
        self.found.close()

    def offer(self, neighbour: Neighbour) -> bool:
        now = time.time()
        topics = [topic for topic in self.service.topics_to_search(now) if tag(topic) in neighbour.tags]
        if not self.service.matches(neighbour.peer_id, topics, now):
            return False
        try:
            self.found.send_nowait(Candidate(neighbour.peer_id, neighbour.addresses, "mdns"))
        except (trio.WouldBlock, trio.BrokenResourceError):
            pass  # a reader that is hundreds of candidates behind, or is gone, won't miss one
        return True


class Mdns:
    """The mDNS source. Its run() goes into a nursery, beside whatever announces and finds."""

    name = "mDNS"

    def __init__(
        self,
        interfaces: Callable[[], tuple[InterfaceAddress, ...]] = interface_addresses,
        port: int = PORT,
    ) -> None:
        """Prepare; interfaces tells the addresses to speak from, asked again and again. port: UDP."""
        self._interfaces = interfaces
        self._port = port
        self._own_ips: set[str] = set()
        self._links: dict[InterfaceAddress, _Link] = {}
        self._voices: dict[object, _Voice] = {}
        self._searches: list[_Search] = []
        self._neighbours = Neighbours()
        self._ask_now = trio.Event()

    async def run(self) -> None:
        """Listen and ask until cancelled; what is announced or sought before that waits for it."""
        try:
            with ending(self._searches):
                async with trio.open_nursery() as nursery:
                    self._look(nursery)
                    nursery.start_soon(self._ask)
                    while True:
                        await trio.sleep(_LOOK)
                        self._look(nursery)
        finally:
            # Announcements that are cancelled together with us have said goodbye: the nursery ends a step later.
            for link in self._links.values():
                link.sock.close()
            self._links.clear()

    async def announce(self, announcement: Announcement) -> None:
        """Announce a provider until cancelled, and withdraw it then."""
        speaker = object()
        try:
            while True:
                voice = _voice(announcement)
                if voice != self._voices.get(speaker):
                    self._withdraw(speaker)
                    self._voices[speaker] = voice
                    self._tell(voice, self._links.values())
                    await trio.sleep(_REPEAT)
                    self._tell(voice, self._links.values())
                await trio.sleep(_LOOK)
        finally:
            self._withdraw(speaker)

    def find(self, service: Service) -> trio.MemoryReceiveChannel[Candidate]:
        """Look for a service's providers until the channel is closed, so use it in a with block.

        What was heard before comes at once; it may be out of date, so the question goes out all the same.
        """
        found, candidates = trio.open_memory_channel[Candidate](MAX_PEERS)
        # Seekers ask themselves, and tell of themselves: a provider that looks for them hardly needs to ask.
        search = _Search(service, found, is_answered=service.seeks_seekers)
        for neighbour in self._neighbours.known(trio.current_time()):
            search.offer(neighbour)
        self._searches.append(search)
        self._ask_now.set()
        return candidates

    async def _ask(self) -> None:
        interval = _FIRST_INTERVAL
        while True:
            self._ask_now = trio.Event()
            for search in [search for search in self._searches if search.is_over]:
                self._searches.remove(search)
            if not self._searches:
                await self._ask_now.wait()
                continue
            for link in self._links.values():
                send(link.sock, encode_query())
            asked_at = trio.current_time()
            is_answered = all(search.is_answered for search in self._searches)
            with trio.move_on_after(interval if is_answered else min(interval, _IMPATIENCE)):
                await self._ask_now.wait()
            interval = _FIRST_INTERVAL if self._ask_now.is_set() else min(2 * interval, _LAST_INTERVAL)
            await trio.sleep_until(asked_at + _SPACING)

    def _look(self, nursery: trio.Nursery) -> None:
        """Open what has appeared and drop what is gone; what can't be opened is tried again next time."""
        addresses = self._interfaces()
        self._own_ips = {str(address.ip) for address in addresses}
        wanted = links(addresses)
        for link in [link for address, link in self._links.items() if address not in wanted]:
            self._drop(link)
        for address in wanted:
            if address not in self._links:
                with contextlib.suppress(OSError):
                    self._open(address, nursery)

    def _open(self, address: InterfaceAddress, nursery: trio.Nursery) -> None:
        link = self._links[address] = _Link(address, open_link(address, self._port))
        nursery.start_soon(self._listen, link, nursery)
        for voice in self._voices.values():
            self._tell(voice, [link])
        self._ask_now.set()

    def _drop(self, link: _Link) -> None:
        del self._links[link.address]
        self._neighbours.drop_link(link.address)
        link.scope.cancel()

    async def _listen(self, link: _Link, nursery: trio.Nursery) -> None:
        pace = float("-inf")
        try:
            with link.scope:
                while True:
                    await trio.lowlevel.wait_readable(link.sock.fileno())
                    try:
                        data, source = receive(link.sock)
                    except BlockingIOError:
                        continue
                    if SERVICE[0] not in data.lower():
                        continue  # printers and the like: most of what is said on port 5353
                    await contained(self._receive, data, source, link, nursery)
                    pace = max(pace, trio.current_time() - _BURST / _RATE)
                    pace += (1 + len(data) // _SHORT) / _RATE
                    await trio.sleep_until(pace)
        except OSError:  # the interface broke: it is opened again if it comes back
            if self._links.get(link.address) is link:  # a look may have seen it first
                self._drop(link)
        finally:
            if self._links.get(link.address) is not link:
                link.sock.close()

    async def _receive(self, data: bytes, source: str, link: _Link, nursery: trio.Nursery) -> None:
        try:
            message = decode(data)
        except RemoteProtocolError:
            return
        if message.is_response:
            for sighting in sightings(message):
                self._hear(sighting, source, link)
        elif not link.is_answering and any(map(self._can_answer, message.questions)):
            link.is_answering = True
            nursery.start_soon(self._answer, link)

    def _can_answer(self, question: Name) -> bool:
        """Peers ask for all; browsers of DNS-SD ask once more for each that they have heard of."""
        return any(
            question == SERVICE or (question[1:] == SERVICE and question[0].startswith(voice.label))
            for voice in self._voices.values()
        )

    async def _answer(self, link: _Link) -> None:
        earliest = trio.current_time() + random.uniform(*_JITTER)
        await trio.sleep_until(max(earliest, link.spoke_at + _SPACING))
        link.is_answering = False
        for voice in self._voices.values():
            self._tell(voice, [link])

    def _hear(self, sighting: Sighting, source: str, link: _Link) -> None:
        if sighting.peer_id in {voice.peer_id for voice in self._voices.values()}:
            return
        is_from_here = source in self._own_ips
        usable = tuple(a for a in sighting.addresses if _is_usable(a, is_from_here))
        now = trio.current_time()
        neighbour, is_news = self._neighbours.hear(replace(sighting, addresses=usable), link.address, now)
        for search in self._searches:
            if neighbour is not None and (is_news or not search.is_answered):
                search.is_answered |= search.offer(neighbour)

    def _tell(self, voice: _Voice, to: Iterable[_Link], ttl: int = TTL) -> None:
        for link in to:
            link.spoke_at = trio.current_time()
            for message in voice.messages(link.is_loopback, ttl):
                send(link.sock, message)

    def _withdraw(self, speaker: object) -> None:
        voice = self._voices.pop(speaker, None)
        if voice is not None:
            self._tell(voice, self._links.values(), ttl=0)


def _names_loopback(address: str) -> bool:
    ip = ip_of(address)
    return ip is not None and ip.is_loopback


def _voice(announcement: Announcement) -> _Voice:
    return _Voice(
        announcement.peer_id,
        tuple(address_of(address, announcement.peer_id) for address in announcement.addresses()),
        tuple(tag(topic) for topic in announcement.topics()),
    )


def _is_usable(address: str, is_from_here: bool) -> bool:
    """Nobody elsewhere can mean our loopback; a link-local IPv6 address leads nowhere without its zone."""
    ip = ip_of(address)
    return (
        ip is not None and (is_from_here or not ip.is_loopback) and not (ip.version == 6 and ip.is_link_local)
    )
