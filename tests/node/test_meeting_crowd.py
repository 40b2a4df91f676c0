"""Meeting among strangers: they cost nothing but their own attempt, and displace nobody for good."""

import pytest
import trio
import trio.testing

from peertunnel import meeting
from peertunnel.discovery import Candidate
from peertunnel.host import Host, open_host
from peertunnel.identity import Identity
from peertunnel.meeting import MAX_CANDIDATES, Meeting, NoProof
from peertunnel.protocols.auth import PROTOCOL as AUTH
from peertunnel.transport.connection import MuxedConnection
from peertunnel.transport.quic import why_not
from tests.node.board import SERVICE, Board, node_on, now, provider_on, squatter
from tests.node.pair import LOOPBACK, PATIENCE, Log, until
from tests.tools import lack


@pytest.fixture(autouse=True)
def _same_day(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("peertunnel.node.time.time", now)


async def test_strangers_that_stall_do_not_hold_up_the_provider() -> None:
    """Peers that answer and then say nothing, ahead of the one that is right, and as many that are not there."""

    def stall(host: Host) -> None:
        host.serve(AUTH, lambda stream: None)

    board = Board()
    topic = SERVICE.topics_to_publish(now())[0]
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
        topic = SERVICE.topics_to_publish(now())[0]
        board.post(topic, Candidate(stranger.peer_id, stranger.addresses, "board"))
        nursery.start_soon(here.meet, SERVICE, Log(), lambda refusal: refused.set())
        with trio.fail_after(PATIENCE):
            await refused.wait()
        nursery.cancel_scope.cancel()


async def test_more_strangers_than_are_remembered_do_not_displace_the_provider() -> None:
    board = Board()
    topic = SERVICE.topics_to_publish(now())[0]
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


async def test_a_stranger_that_waits_to_prove_itself_holds_up_no_dial(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where many have failed a proof waits long, and the right one is not known before it is dialled."""
    monkeypatch.setattr("peertunnel.meeting.MAX_DIALS", 1)
    board, topic = Board(), SERVICE.topics_to_publish(now())[0]
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
    board, topic = Board(), SERVICE.topics_to_publish(now())[0]
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
    board, topic = Board(), SERVICE.topics_to_publish(now())[0]
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
