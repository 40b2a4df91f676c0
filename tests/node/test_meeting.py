"""How two ends meet: whoever can reach the other dials, and keys are remembered."""

import errno
import os
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from peertunnel.access import Access
from peertunnel.cli.asking import Owner
from peertunnel.cli.prompt import Prompt
from peertunnel.discovery import Candidate
from peertunnel.endpoints import TcpEndpoint
from peertunnel.errors import Refused, StoreError
from peertunnel.events import ErrorOccurred, Warned
from peertunnel.expose import expose
from peertunnel.identity import Identity
from peertunnel.keeper import Keeper
from peertunnel.known import KnownPeers
from peertunnel.node import no_provider
from peertunnel.protocols.service import Service
from peertunnel.transport.connection import MuxedConnection
from tests.node.board import ROOT, SERVICE, Board, is_served, node_on, now, provider_on, squatter
from tests.node.pair import LOOPBACK, PATIENCE, Log, echo, target, until


@pytest.fixture(autouse=True)
def _same_day(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("peertunnel.node.time.time", now)


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


async def test_a_provider_calls_both_programs_of_one_home() -> None:
    """They have one peer id: that one of them is here says nothing of the other."""
    board, user = Board(), Identity.ephemeral()
    async with (
        provider_on(board, ()) as there,
        node_on(board, identity=user) as first,
        node_on(board, identity=user) as second,
    ):
        for here in (first, second):
            with trio.fail_after(PATIENCE):
                connection = await here.meet(SERVICE, Log(), lambda refusal: None)
            assert await is_served(connection)
        assert len(there.host.connections(user.peer_id)) == 2  # and neither was called twice


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
        topic = SERVICE.topics_to_publish(now())[0]
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


async def test_descriptors_that_have_run_out_end_no_search(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "known_peers"
    board, log, met = Board(), Log(), list[MuxedConnection]()
    open_file = os.open

    def fail(name: Any, *details: Any, **more: Any) -> int:
        if name == path:  # the last descriptor has gone to the connection
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return open_file(name, *details, **more)

    async with (
        node_on(board, known=KnownPeers(path)) as here,
        provider_on(board) as there,
        trio.open_nursery() as nursery,
    ):

        async def meet() -> None:
            met.append(await here.meet(SERVICE, log, lambda refusal: None))

        with monkeypatch.context() as patch:
            patch.setattr(os, "open", fail)
            nursery.start_soon(meet)
            (told,) = await log.wait(ErrorOccurred)
            assert "too many open files" in told.message and "ulimit" in told.hint
        await until(lambda: met)
        assert str(met[0].peer_id) == there.peer_id
        assert len(log.all(ErrorOccurred)) == 1
        assert there.peer_id in path.read_text()


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
        access, end = Access(ask=Owner(SERVICE, log, Prompt().ask).ask), TcpEndpoint(None, port)

        async def provide() -> None:
            await expose(there, SERVICE, end, log, access=access, grace=0, stop=trio.Event())

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
        board.post(wrong.topics_to_publish(now())[0], Candidate(there.peer_id, there.addresses, "board"))
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
