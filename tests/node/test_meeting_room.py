"""Where more candidates are named than there is room or turns for, whoever has failed stands back."""

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest
import trio
import trio.testing

from peertunnel import meeting
from peertunnel.discovery import Candidate
from peertunnel.errors import NotFound
from peertunnel.host import Host, open_host
from peertunnel.identity import Identity
from peertunnel.meeting import Meeting, NoProof
from peertunnel.transport.connection import MuxedConnection
from tests.node.board import SERVICE, Board, now, squatter
from tests.node.pair import until


@dataclass(slots=True)
class Search:
    """A search on a board. failing: peers that are not reached. stalling: those for which one waits for `given_up`."""

    board: Board
    host: Host
    meeting: Meeting
    met: list[str]
    failing: set[str]
    stalling: set[str]
    given_up: trio.Event

    @property
    def failed(self) -> list[str]:
        """Who was tried in vain."""
        return [peer_id for peer_id, known in self.meeting._candidates.items() if known.has_failed]

    def post(self, peer_id: str, addresses: tuple[str, ...] = ()) -> None:
        """Name a candidate."""
        topic = SERVICE.topics_to_publish(now())[0]
        self.board.post(topic, Candidate(peer_id, addresses, "board"))


@asynccontextmanager
async def searching(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Search]:
    """Search until the block ends."""
    board, met, failing, stalling, given_up = Board(), list[str](), set[str](), set[str](), trio.Event()
    async with open_host(Identity.ephemeral(), ()) as host, trio.open_nursery() as nursery:
        dial = host.dial

        async def hampered(peer_id: str, addresses: Iterable[str], within: float) -> MuxedConnection:
            if peer_id in stalling:
                await given_up.wait()
            if peer_id in failing | stalling:
                raise NotFound
            return await dial(peer_id, addresses, within)

        monkeypatch.setattr(host, "dial", hampered)
        prover = NoProof(lambda connection: met.append(str(connection.peer_id)))
        search = Meeting(host, (board,), SERVICE, prover)
        nursery.start_soon(search.run)
        await trio.testing.wait_all_tasks_blocked()
        yield Search(board, host, search, met, failing, stalling, given_up)
        nursery.cancel_scope.cancel()


def strangers(count: int) -> list[str]:
    return [Identity.ephemeral().peer_id for _ in range(count)]


async def test_who_is_named_while_all_others_are_being_tried_waits_for_room(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(meeting, "MAX_CANDIDATES", 2)
    async with searching(monkeypatch) as search, squatter() as right:
        search.stalling |= set(others := strangers(2))
        for peer_id in others:
            search.post(peer_id)
        search.post(right.peer_id, right.addresses)
        await trio.testing.wait_all_tasks_blocked()
        assert set(search.meeting._candidates) == set(others)
        search.given_up.set()
        await until(lambda: right.peer_id in search.met)


async def test_those_that_have_failed_leave_half_of_the_dials_to_newcomers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(meeting, "MAX_DIALS", 2)
    async with searching(monkeypatch) as search, squatter() as right:
        search.failing |= set(others := strangers(3))
        for peer_id in others:
            search.post(peer_id)
        await until(lambda: len(search.failed) == 3)
        search.stalling |= set(others)
        await until(lambda: search.meeting._repeated.statistics().tasks_waiting == 2)
        search.post(right.peer_id, right.addresses)
        await until(lambda: right.peer_id in search.met)


async def test_who_was_met_after_a_failure_does_not_make_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meeting, "MAX_CANDIDATES", 1)
    async with searching(monkeypatch) as search, squatter() as right:
        search.failing.add(right.peer_id)
        search.post(right.peer_id, right.addresses)
        await until(lambda: search.failed == [right.peer_id])
        search.failing.clear()
        await until(lambda: right.peer_id in search.met)
        search.post(strangers(1)[0])
        await trio.testing.wait_all_tasks_blocked()
        assert list(search.meeting._candidates) == [right.peer_id]
