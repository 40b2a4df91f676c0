"""Room for newcomers: who comes and does nothing is closed for them, and nobody else is."""

import itertools
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
import trio

from peertunnel.auth import Authenticator
from peertunnel.errors import NotFound
from peertunnel.host import Host, open_host
from peertunnel.identity import Identity
from peertunnel.protocols.auth import PROTOCOL as AUTH
from peertunnel.protocols.auth import Role
from peertunnel.protocols.delimited import encode_delimited
from peertunnel.protocols.identify import PROTOCOL as IDENTIFY
from peertunnel.transport import swarm
from peertunnel.transport.connection import MuxedConnection
from peertunnel.transport.stream import MuxedStream
from tests.node.pair import LOOPBACK, PATIENCE, until
from tests.tools import need_quic

MOST = 16  # connections, of which two are kept free
PING, QUESTION, BUSY = "/ipfs/ping/1.0.0", "/question/1.0.0", "/busy/1.0.0"
ROOT = b"r" * 32


class Crowd:
    """A host, and those who connect to it."""

    def __init__(self, host: Host, callers: AsyncExitStack) -> None:
        self.host = host
        self._callers = callers

    async def call(self) -> tuple[Host, MuxedConnection]:
        """Connect as somebody new, who does nothing from then on."""
        caller = await self._callers.enter_async_context(open_host(Identity.ephemeral(), ()))
        connection = await caller.dial(self.host.peer_id, self.host.addresses, PATIENCE)

        def is_quiet() -> bool:
            seen = self.host.connections(caller.peer_id)
            return connection.is_closed or bool(seen and not seen[0].has_streams)

        await until(is_quiet)
        return caller, connection

    async def come(self, count: int) -> list[MuxedConnection]:
        """Connect so many times."""
        return [(await self.call())[1] for _ in range(count)]


@asynccontextmanager
async def crowd(monkeypatch: pytest.MonkeyPatch, limit: str, transport: str = "tcp") -> AsyncIterator[Crowd]:
    """Run a host with one of the limits lowered."""
    if transport == "quic":
        need_quic()
    monkeypatch.setattr(swarm, limit, MOST)
    async with (
        open_host(Identity.ephemeral(), LOOPBACK, "quic" if transport == "quic" else "tcp") as host,
        AsyncExitStack() as callers,
    ):
        yield Crowd(host, callers)


def living(connections: list[MuxedConnection]) -> int:
    return sum(not connection.is_closed for connection in connections)


@pytest.mark.parametrize("transport", ["tcp", "quic"])
@pytest.mark.parametrize("limit", ["MAX_CONNECTIONS", "MAX_PER_PLACE"])
async def test_strangers_that_do_nothing_make_room(
    limit: str, transport: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(swarm, "FIRST_USE", 0.0)
    async with crowd(monkeypatch, limit, transport) as there:
        first = await there.come(MOST - 2)
        assert living(first) == MOST - 2
        for gone in first[:3]:
            (newcomer,) = await there.come(1)
            with trio.fail_after(PATIENCE):
                await gone.event_closed.wait()
            assert not newcomer.is_closed
        assert living(first) == MOST - 5


async def test_who_does_something_or_is_relied_upon_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(swarm, "FIRST_USE", 0.0)
    async with crowd(monkeypatch, "MAX_CONNECTIONS") as there:
        provider = Authenticator(there.host, Role.PROVIDER, ROOT, on_proven=lambda connection: None)
        there.host.serve(AUTH, provider.accept)
        opened: list[MuxedStream] = []
        there.host.serve(BUSY, opened.append)
        _, busy = await there.call()
        caller, proven = await there.call()
        await busy.open_tunnel(BUSY)
        await until(lambda: opened)
        await Authenticator(caller, Role.CONSUMER, ROOT, on_proven=lambda connection: None).prove(proven)
        strangers = await there.come(2 * MOST)
        assert not busy.is_closed and not proven.is_closed and not strangers[-1].is_closed
        assert living(strangers) < MOST


async def test_who_only_pings_or_asks_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(swarm, "FIRST_USE", 0.0)
    async with crowd(monkeypatch, "MAX_CONNECTIONS") as there:
        there.host.answer(QUESTION, lambda caller, message: message, limit=32)
        first = await there.come(MOST - 2)
        for connection, protocol in zip(first, itertools.cycle((PING, QUESTION, IDENTIFY))):
            stream = await connection.open_tunnel(protocol)
            if protocol == IDENTIFY:  # the answer comes, and we never end our direction
                assert await stream.read()
                continue
            said = bytes(32) if protocol == PING else encode_delimited(b"?")
            await stream.write(said)
            assert await stream.read() == said
        for gone in first[:6]:
            (newcomer,) = await there.come(1)
            with trio.fail_after(PATIENCE):
                await gone.event_closed.wait()
            assert not newcomer.is_closed


async def test_who_has_just_come_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(swarm, "FIRST_USE", PATIENCE)
    async with crowd(monkeypatch, "MAX_PER_PLACE") as there:
        first = await there.come(MOST)
        with pytest.raises(NotFound):
            await there.call()
        assert living(first) == MOST
