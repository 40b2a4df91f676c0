"""Whether strangers can dial us: AutoNAT servers that we are connected to are asked, a few about each address.

Only peers that we have dialled ourselves count as servers, so that nobody becomes one by calling us.
"""

import logging
from collections.abc import Callable, Collection, Iterable
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Protocol

import trio
from libp2p.peer.id import ID
from multiaddr import Multiaddr

from peertunnel.boundary import contained
from peertunnel.interfaces import interface_addresses
from peertunnel.peers import RequestError
from peertunnel.protocols.autonat import v1
from peertunnel.protocols.autonat.findings import Findings, Reachability, overall
from peertunnel.protocols.autonat.messages import DIAL_BACK, DIAL_REQUEST
from peertunnel.protocols.kademlia.places import Scope
from peertunnel.transport.addresses import dialable
from peertunnel.transport.autonat import DialBacks, ask_v1
from peertunnel.transport.candidates import place_at, reach_of, target_of
from peertunnel.transport.connection import MuxedConnection
from peertunnel.transport.identify import identified
from peertunnel.transport.observed import Observed
from peertunnel.transport.stream import MuxedStream

if TYPE_CHECKING:
    from trio_typing import TaskStatus

MAX_SERVERS = 8  # that are kept; three answers that agree are enough
MAX_LOOKS = 4  # peers at a time that are asked whether they are servers
MAX_PLACES = 8  # addresses of ours that are asked about
MAX_QUESTIONS = 4  # at a time; each may cost 100 kB
INTERVAL = 5.0  # seconds between looks for other addresses, and for what is due
_log = logging.getLogger(__name__)
CONNECT = 10.0  # seconds to a server that we are no longer connected to


class Asker(Protocol):
    """The host, as needed here."""

    peer_id: str
    observed: Observed

    @property
    def listening(self) -> tuple[str, ...]:
        """The multiaddrs that we listen on, wildcards among them."""
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

    def all_connections(self) -> list[MuxedConnection]:
        """Return every living connection."""
        ...

    def visit(
        self, peer_id: str, addresses: Iterable[str], within: float
    ) -> AbstractAsyncContextManager[MuxedConnection]:
        """Use a connection to a peer, the one that stands or a new one; raises RequestError."""
        ...


class OwnReachability:
    """Finds out whether strangers can dial us, while run() runs.

    Args:
        host: dials, listens and knows our addresses.
        preferred: peer ids of servers that are asked before others, such as our own relays.
        mapped: gives the multiaddrs at which a router lets others in for us.
        least: how far an address must reach to be asked about; the specification wants public ones only.
    """

    def __init__(
        self,
        host: Asker,
        preferred: Collection[str] = (),
        *,
        mapped: Callable[[], Iterable[str]] = tuple,
        least: Scope = Scope.WORLD,
    ) -> None:
        self._host = host
        self._preferred = frozenset(preferred)
        self._mapped = mapped
        self._least = least
        self._servers: dict[
            str, tuple[bool, str]
        ] = {}  # by peer id: whether it speaks version 2, and where it is
        self._looks = trio.CapacityLimiter(MAX_LOOKS)
        self._questions = trio.CapacityLimiter(MAX_QUESTIONS)
        self._findings: dict[bytes, Findings] = {}
        self._known: dict[bytes, Reachability] = {}
        self._news = trio.Event()
        self._changed = trio.Event()
        self._nursery: trio.Nursery | None = None

    @property
    def reachability(self) -> Reachability:
        """Whether strangers can dial us at any address."""
        return overall(self._known.values())

    @property
    def needs_relays(self) -> bool:
        """Whether some strangers can't dial us, as far as is known: those without IPv6, or those that we have not called.

        What others have merely seen of us may be open to the servers alone, which answer from where we have called.
        """
        mapped = {place_at(text) for text in self._mapped()}
        return not any(
            known is Reachability.PUBLIC
            and target_of(place).ip.version == 4
            and (place in mapped or self._findings[place].is_own)
            for place, known in self._known.items()
        )

    @property
    def addresses(self) -> tuple[str, ...]:
        """The multiaddrs, without our peer id, at which strangers can dial us."""
        return tuple(
            str(Multiaddr(place)) for place, known in self._known.items() if known is Reachability.PUBLIC
        )

    def retry(self) -> None:
        """Forget what is known, and ask anew: the network has changed."""
        self._findings.clear()
        self._conclude()
        self._news.set()

    async def changed(self) -> None:
        """Wait until more, or something else, is known."""
        await self._changed.wait()

    async def run(self, task_status: "TaskStatus[None]" = trio.TASK_STATUS_IGNORED) -> None:
        """Ask until cancelled; started as soon as servers may dial back."""
        async with trio.open_nursery() as self._nursery:
            dial_backs = DialBacks(self._nursery)
            self._host.serve(DIAL_BACK, dial_backs.accept)
            self._host.watch(self._stands)
            for connection in self._host.all_connections():
                self._stands(connection)
            task_status.started()
            try:
                while True:
                    await contained(self._ask, dial_backs, self._nursery)
                    self._conclude()
                    self._news = trio.Event()
                    with trio.move_on_after(INTERVAL):
                        await self._news.wait()
            finally:
                self._host.stop_serving(DIAL_BACK)
                self._nursery = None

    # -- servers --------------------------------------------------------------------------------------------------

    def _stands(self, connection: MuxedConnection) -> None:
        """Look at a new connection: its peer may be a server."""
        peer_id = str(connection.peer_id)
        is_candidate = connection.is_initiator and connection.way.kind == "direct"
        has_room = len(self._servers) < MAX_SERVERS or peer_id in self._preferred
        is_idle = self._looks.available_tokens > 0 or peer_id in self._preferred
        if self._nursery and is_candidate and peer_id not in self._servers and has_room and is_idle:
            self._nursery.start_soon(contained, self._look, connection)

    async def _look(self, connection: MuxedConnection) -> None:
        """Have a peer tell whether it is a server; one that tells nothing was too busy, perhaps, and is asked again."""
        pause = INTERVAL
        while not (protocols := await self._protocols(connection)) and not connection.is_closed:
            await trio.sleep(pause)
            pause *= 2
        if DIAL_REQUEST in protocols or v1.PROTOCOL in protocols:
            address = str(connection.get_transport_addresses()[0])
            self._servers[str(connection.peer_id)] = (DIAL_REQUEST in protocols, address)
            self._news.set()

    async def _protocols(self, connection: MuxedConnection) -> frozenset[str]:
        async with self._looks:
            return (await identified(connection)).protocols

    # -- questions ------------------------------------------------------------------------------------------------

    async def _ask(self, dial_backs: DialBacks, nursery: trio.Nursery) -> None:
        """Ask what is to be asked now about the addresses that we have now."""
        own = {address.ip for address in interface_addresses()}
        # Not all that is announced: what follows from the answers is among it, and would never be dropped.
        texts = (*self._mapped(), *self._host.observed.addresses, *dialable(self._host.listening))
        found = dict.fromkeys(place for text in texts if (place := place_at(text)) is not None)
        tcp = [place for place in found if target_of(place).transport == "tcp"]
        places = [place for place in tcp if reach_of(place) >= self._least][:MAX_PLACES]
        self._findings = {
            place: self._findings.get(place) or Findings(is_own=target_of(place).ip in own)
            for place in places
        }
        servers = sorted(self._servers, key=lambda server: server not in self._preferred)
        for place, findings in self._findings.items():
            for server in findings.ask(servers, trio.current_time()):
                nursery.start_soon(self._question, dial_backs, server, place, findings)

    async def _question(self, dial_backs: DialBacks, server: str, place: bytes, findings: Findings) -> None:
        if (known := self._servers.get(server)) is None:  # another question has just failed
            findings.told(server, None, trio.current_time())
            return
        is_v2, address = known
        answer: bool | None = None
        try:
            async with self._questions, self._host.visit(server, [address], CONNECT) as connection:
                if connection.way.kind != "direct":
                    pass  # a server can't tell where we are behind a relay
                elif is_v2:
                    answer = await dial_backs.ask(connection, place)
                else:
                    answer = await ask_v1(connection, ID.from_base58(self._host.peer_id), place)
        except RequestError:
            self._servers.pop(server, None)
        except Exception:  # noqa: BLE001  a task boundary
            _log.exception("a question to %s failed", server)
        findings.told(server, answer, trio.current_time())
        self._news.set()

    def _conclude(self) -> None:
        now = trio.current_time()
        known = {place: findings.conclude(self._servers, now) for place, findings in self._findings.items()}
        if known != self._known:
            self._known = known
            self._changed.set()
            self._changed = trio.Event()
