"""How two ends meet: whoever can reach the other dials, strangers cost nothing but their own attempt, keys are remembered."""

import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from peertunnel import meeting
from peertunnel.access import Access
from peertunnel.cli.asking import Owner
from peertunnel.discovery import Announcement, Candidate
from peertunnel.endpoints import TcpEndpoint
from peertunnel.errors import Refused, StoreError
from peertunnel.events import ErrorOccurred, Ready, Warned
from peertunnel.expose import expose
from peertunnel.host import Host, open_host
from peertunnel.identity import Identity
from peertunnel.keeper import Keeper
from peertunnel.known import KnownPeers
from peertunnel.meeting import MAX_CANDIDATES, Meeting, NoProof
from peertunnel.node import TUNNEL, Node, NodeOptions, no_provider
from peertunnel.protocols.auth import PROTOCOL as AUTH
from peertunnel.protocols.service import Service
from peertunnel.transport.connection import MuxedConnection
from peertunnel.transport.quic import why_not
from tests.node.pair import LOOPBACK, PATIENCE, Log, echo, target, until
from tests.tools import lack

ROOT = b"r" * 32
SERVICE = Service("service", ROOT)


class Board:
    """A source that everybody shares: what is announced under a topic is found under it."""

    name = "the board"

    def __init__(self) -> None:
        self.posted: dict[bytes, list[Candidate]] = {}
        self._readers: list[tuple[Service, trio.MemorySendChannel[Candidate]]] = []

    async def announce(self, announcement: Announcement) -> None:
        """Post an announcement until cancelled."""
        mine = [
            (topic, Candidate(announcement.peer_id, announcement.addresses(), "board"))
            for topic in announcement.topics()
        ]
        for topic, candidate in mine:
            self.post(topic, candidate)
        try:
            await trio.sleep_forever()
        finally:
            for topic, candidate in mine:
                self.posted[topic].remove(candidate)

    def post(self, topic: bytes, candidate: Candidate) -> None:
        """Post a candidate."""
        self.posted.setdefault(topic, []).append(candidate)
        for service, channel in self._readers:
            if topic in service.topics_to_search(_now()):
                with contextlib.suppress(trio.BrokenResourceError):  # whoever read has met somebody
                    channel.send_nowait(candidate)

    def find(self, service: Service) -> trio.MemoryReceiveChannel[Candidate]:
        """Give what is posted now and later."""
        send, receive = trio.open_memory_channel[Candidate](1 << 16)
        for topic in service.topics_to_search(_now()):
            for candidate in self.posted.get(topic, ()):
                send.send_nowait(candidate)
        self._readers.append((service, send))
        return receive


def _now() -> float:
    return 1_800_000_000.0


@asynccontextmanager
async def node_on(
    board: Board, listen: tuple[str, ...] = LOOPBACK, identity: Identity | None = None, **options: object
) -> AsyncIterator[Node]:
    """Run a node whose only source is the board."""
    who = identity or Identity.ephemeral()
    async with open_host(who, listen) as host:
        yield Node(host, (board,), NodeOptions(identity=who, **options))  # type: ignore[arg-type]


@asynccontextmanager
async def provider_on(
    board: Board, listen: tuple[str, ...] = LOOPBACK, identity: Identity | None = None
) -> AsyncIterator[Node]:
    """Run a provider of an echo."""
    async with target(echo) as port, node_on(board, listen, identity) as node, trio.open_nursery() as nursery:
        log = Log()

        async def provide() -> None:
            place = TcpEndpoint(None, port)
            await expose(node, SERVICE, place, log, access=Access(), grace=0, stop=trio.Event())

        nursery.start_soon(provide)
        await log.wait(Ready)
        yield node
        nursery.cancel_scope.cancel()


async def is_served(connection: MuxedConnection) -> bool:
    """Return whether a tunnel carries bytes there and back."""
    stream = await connection.open_tunnel(TUNNEL)
    await stream.write(b"hello")
    return await stream.read(5) == b"hello"


@pytest.fixture(autouse=True)
def _same_day(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("peertunnel.node.time.time", _now)


@pytest.mark.parametrize("provider_listens", [True, False])
@pytest.mark.parametrize("consumer_listens", [True, False])
async def test_whoever_can_reach_the_other_dials(provider_listens: bool, consumer_listens: bool) -> None:
    """Only if neither listens, they can't meet directly."""
    if not (provider_listens or consumer_listens):
        return
    board = Board()
    async with (
        provider_on(board, LOOPBACK if provider_listens else ()) as there,
        node_on(board, LOOPBACK if consumer_listens else ()) as here,
    ):
        with trio.fail_after(PATIENCE):
            connection = await here.meet(SERVICE, Log(), lambda refusal: None)
        assert str(connection.peer_id) == there.peer_id
        assert connection.is_initiator is provider_listens or consumer_listens
        assert await is_served(connection)


@asynccontextmanager
async def squatter(accept: Callable[[Host], None] = lambda host: None) -> AsyncIterator[Host]:
    """Run a peer that listens and knows no secret."""
    async with open_host(Identity.ephemeral(), LOOPBACK) as host:
        accept(host)
        yield host


async def test_strangers_that_stall_do_not_hold_up_the_provider() -> None:
    """Peers that answer and then say nothing, ahead of the one that is right, and as many that are not there."""

    def stall(host: Host) -> None:
        host.serve(AUTH, lambda stream: None)

    board = Board()
    topic = SERVICE.topics_to_publish(_now())[0]
    async with squatter(stall) as first, squatter() as second:
        for host in (first, second):
            board.post(topic, Candidate(host.peer_id, host.addresses, "board"))
        for _ in range(100):
            peer_id = Identity.ephemeral().peer_id
            board.post(topic, Candidate(peer_id, (f"/ip4/127.0.0.1/tcp/1/p2p/{peer_id}",), "board"))
        async with provider_on(board) as there, node_on(board) as here:
            with trio.fail_after(PATIENCE):
                connection = await here.meet(SERVICE, Log(), lambda refusal: None)
            assert str(connection.peer_id) == there.peer_id


async def test_a_stranger_that_grants_no_streams_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """The try would take as long as its connection lives."""
    if (reason := why_not()) is not None:
        lack(reason)
    monkeypatch.setattr("peertunnel.transport.quic.transport.STREAMS", 0)
    monkeypatch.setattr("peertunnel.auth.PROOF_TIMEOUT", 0.1)
    board, refused = Board(), trio.Event()
    async with (
        open_host(Identity.ephemeral(), LOOPBACK, "quic") as stranger,
        node_on(board) as here,
        trio.open_nursery() as nursery,
    ):
        topic = SERVICE.topics_to_publish(_now())[0]
        board.post(topic, Candidate(stranger.peer_id, stranger.addresses, "board"))
        nursery.start_soon(here.meet, SERVICE, Log(), lambda refusal: refused.set())
        with trio.fail_after(PATIENCE):
            await refused.wait()
        nursery.cancel_scope.cancel()


async def test_more_strangers_than_are_remembered_do_not_displace_the_provider() -> None:
    board = Board()
    topic = SERVICE.topics_to_publish(_now())[0]
    async with node_on(board) as here, trio.open_nursery() as nursery:
        met: list[MuxedConnection] = []
        has_met = trio.Event()

        async def meet() -> None:
            met.append(await here.meet(SERVICE, Log(), lambda refusal: None))
            has_met.set()

        nursery.start_soon(meet)
        for _ in range(MAX_CANDIDATES + 200):
            peer_id = Identity.ephemeral().peer_id
            board.post(topic, Candidate(peer_id, (f"/ip4/127.0.0.1/tcp/1/p2p/{peer_id}",), "board"))
        async with provider_on(board) as there:
            with trio.fail_after(PATIENCE):
                await has_met.wait()
            assert str(met[0].peer_id) == there.peer_id


async def test_another_key_with_the_right_secret_is_not_taken_unless_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("peertunnel.meeting.REFUSED_PAUSE", 0.01)
    known = KnownPeers(tmp_path / "known_peers")
    board = Board()
    old, new = Identity.ephemeral(), Identity.ephemeral()
    async with provider_on(board, identity=old), node_on(board, known=known) as here:
        with trio.fail_after(PATIENCE):
            await here.meet(SERVICE, Log(), lambda refusal: None)
    async with provider_on(board, identity=new):
        async with node_on(board, known=known) as here, trio.open_nursery() as nursery:
            log, refusals = Log(), list[Refused]()
            nursery.start_soon(here.meet, SERVICE, log, refusals.append)
            await until(lambda: len(refusals) > 4)
            (warning,) = log.all(Warned)
            advice = "run pt bind with --accept-new-key"  # whoever is told: pt ping has no such option
            assert new.peer_id in warning.message and advice in warning.message
            keeper = Keeper(here, SERVICE, Log())
            nursery.start_soon(keeper.run)
            await until(lambda: keeper.refusal is not None)
            told = no_provider(SERVICE, 1.0, keeper.refusal)
            assert told.message == "The provider of service has another key than before."
            assert told.exit_code == 4 and advice in told.hint
            nursery.cancel_scope.cancel()
        for accepted in (True, False):  # once it is taken it is known
            async with node_on(board, known=known, accept_new_key=accepted) as here:
                with trio.fail_after(PATIENCE):
                    connection = await here.meet(SERVICE, Log(), lambda refusal: None)
                assert str(connection.peer_id) == new.peer_id


async def test_a_search_that_is_cancelled_as_a_dial_succeeds_leaves_no_connection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    board, dialled = Board(), list[MuxedConnection]()
    async with squatter() as stranger, node_on(board) as here:
        dial_once = here.host.dial

        async def dial(*details: Any) -> MuxedConnection:
            dialled.append(await dial_once(*details))
            scope.cancel()
            return dialled[0]

        monkeypatch.setattr(here.host, "dial", dial)
        topic = SERVICE.topics_to_publish(_now())[0]
        board.post(topic, Candidate(stranger.peer_id, stranger.addresses, "board"))
        with trio.CancelScope() as scope:
            await here.meet(SERVICE, Log(), lambda refusal: None)
        assert [connection.is_closed for connection in dialled] == [True]


async def test_keys_that_cannot_be_read_any_more_do_not_end_a_node_that_runs(tmp_path: Path) -> None:
    known = KnownPeers(path := tmp_path / "known_peers")
    board, log, refused = Board(), Log(), trio.Event()
    async with node_on(board, known=known) as here, trio.open_nursery() as nursery:
        async with provider_on(board) as there:
            with trio.fail_after(PATIENCE):
                await here.meet(SERVICE, log, lambda refusal: None)
                path.chmod(0o644)
                for _ in range(2):
                    again = await here.meet(SERVICE, log, lambda refusal: None)
                    assert str(again.peer_id) == there.peer_id
            assert isinstance(complaint := log.events.pop(), ErrorOccurred) and not log.events
            assert str(path) in complaint.message and "chmod 600" in complaint.hint
        async with provider_on(board):
            nursery.start_soon(here.meet, SERVICE, log, lambda refusal: refused.set())
            with trio.fail_after(PATIENCE):
                await refused.wait()
            nursery.cancel_scope.cancel()


async def test_keys_that_cannot_be_read_end_a_search_in_which_nothing_runs_yet(tmp_path: Path) -> None:
    path = tmp_path / "known_peers"
    path.write_text("garbage\n")
    path.chmod(0o600)
    board = Board()
    async with node_on(board, known=KnownPeers(path)) as here, provider_on(board):
        with trio.fail_after(PATIENCE), pytest.raises(StoreError, match="line 1"):
            await here.meet(SERVICE, Log(), lambda refusal: None)


async def test_an_owner_who_cannot_be_asked_is_told_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PT_HOME", str(tmp_path))
    (tmp_path / "accepted_peers").write_text("garbage\n")
    board, log, refused = Board(), Log(), trio.Event()
    async with (
        node_on(board) as here,
        target(echo) as port,
        node_on(board) as there,
        trio.open_nursery() as nursery,
    ):
        access = Access(ask=Owner(SERVICE, log).ask)

        async def provide() -> None:
            await expose(
                there, SERVICE, TcpEndpoint(None, port), log, access=access, grace=0, stop=trio.Event()
            )

        nursery.start_soon(provide)
        nursery.start_soon(here.meet, SERVICE, Log(), lambda refusal: refused.set())
        with trio.fail_after(PATIENCE):
            await refused.wait()
        assert "accepted_peers" in (await log.wait(ErrorOccurred))[0].message
        nursery.cancel_scope.cancel()


async def test_a_refusal_is_told() -> None:
    """Whoever looks with a wrong id for a peer that was named learns that it was found."""
    board = Board()
    async with provider_on(board) as there, node_on(board) as here, trio.open_nursery() as nursery:
        refused = trio.Event()
        wrong = Service("service", b"w" * 32)
        board.post(wrong.topics_to_publish(_now())[0], Candidate(there.peer_id, there.addresses, "board"))
        nursery.start_soon(here.meet, wrong, Log(), lambda refusal: refused.set())
        with trio.fail_after(PATIENCE):
            await refused.wait()
        nursery.cancel_scope.cancel()


async def test_a_pinned_key_is_the_only_one_that_is_taken() -> None:
    """Somebody else who has the link finds whoever seeks its provider, and proves the secret: that is not enough."""
    board, wanted = Board(), Identity.ephemeral()
    pinned = Service("service", ROOT, wanted.peer_id)
    proven: list[str] = []
    async with provider_on(board) as insider, node_on(board) as here, trio.open_nursery() as nursery:

        async def meet() -> None:
            proven.append(str((await here.meet(pinned, Log(), lambda refusal: None)).peer_id))
            nursery.cancel_scope.cancel()

        nursery.start_soon(meet)
        with trio.fail_after(PATIENCE):
            while not here.host.connections(insider.peer_id):  # noqa: ASYNC110  a connection has no event before it is there
                await trio.sleep(0.01)
            await here.host.connections(insider.peer_id)[0].event_closed.wait()
            async with provider_on(board, identity=wanted):
                await trio.sleep_forever()
    assert proven == [wanted.peer_id]


async def test_a_stranger_that_waits_to_prove_itself_holds_up_no_dial(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where many have failed a proof waits long, and the right one is not known before it is dialled."""
    monkeypatch.setattr("peertunnel.meeting.MAX_DIALS", 1)
    board, topic = Board(), SERVICE.topics_to_publish(_now())[0]
    met = trio.Event()

    class Slow:
        async def prove(self, connection: MuxedConnection) -> None:
            if str(connection.peer_id) == good.peer_id:
                met.set()
            else:
                board.post(topic, Candidate(good.peer_id, good.addresses, "board"))
            await trio.sleep_forever()

    async with (
        squatter() as bad,
        squatter() as good,
        node_on(board, ()) as here,
        trio.open_nursery() as nursery,
    ):
        board.post(topic, Candidate(bad.peer_id, bad.addresses, "board"))
        nursery.start_soon(Meeting(here.host, (board,), SERVICE, Slow()).run)
        with trio.fail_after(PATIENCE):
            await met.wait()
        nursery.cancel_scope.cancel()


async def test_one_candidate_at_which_something_fails_does_not_end_the_search() -> None:
    board, topic = Board(), SERVICE.topics_to_publish(_now())[0]
    met: list[str] = []

    class Faulty:
        async def prove(self, connection: MuxedConnection) -> None:
            if str(connection.peer_id) == bad.peer_id:
                board.post(topic, Candidate(good.peer_id, good.addresses, "board"))
                raise KeyError("unforeseen")
            met.append(str(connection.peer_id))

    async with (
        open_host(Identity.ephemeral(), LOOPBACK) as bad,
        open_host(Identity.ephemeral(), LOOPBACK) as good,
        open_host(Identity.ephemeral(), ()) as here,
        trio.open_nursery() as nursery,
    ):
        board.post(topic, Candidate(bad.peer_id, bad.addresses, "board"))
        nursery.start_soon(Meeting(here, (board,), SERVICE, Faulty()).run)
        await until(lambda: met == [good.peer_id])
        nursery.cancel_scope.cancel()


async def test_who_was_forgotten_among_strangers_is_met_when_it_is_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A source names a peer once."""
    monkeypatch.setattr(meeting, "MAX_CANDIDATES", 4)
    monkeypatch.setattr(meeting, "FORGETFUL", 0.5)
    board, topic = Board(), SERVICE.topics_to_publish(_now())[0]
    identity, has_met = Identity.ephemeral(), trio.Event()
    async with open_host(identity, LOOPBACK) as there:
        addresses = there.addresses
    async with open_host(Identity.ephemeral(), ()) as here, trio.open_nursery() as nursery:
        search = Meeting(here, (board,), SERVICE, NoProof(lambda connection: has_met.set()))
        nursery.start_soon(search.run)
        board.post(topic, Candidate(identity.peer_id, addresses, "board"))
        await until(lambda: any(known.has_failed for known in search._candidates.values()))
        while identity.peer_id in search._candidates:
            peer_id = Identity.ephemeral().peer_id
            board.post(topic, Candidate(peer_id, (f"/ip4/127.0.0.1/tcp/1/p2p/{peer_id}",), "board"))
            await trio.testing.wait_all_tasks_blocked()
        async with open_host(identity, [address.rpartition("/p2p/")[0] for address in addresses]):
            with trio.fail_after(PATIENCE):
                await has_met.wait()
        nursery.cancel_scope.cancel()
