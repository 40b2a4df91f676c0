"""Identify: a connection's peer is asked once for all who want to know it, and anew when that is long ago."""

import pytest
import trio

from peertunnel.host import Host, open_host
from peertunnel.identity import Identity
from peertunnel.protocols.identify import PROTOCOL
from peertunnel.transport import identify
from peertunnel.transport.connection import MuxedConnection
from peertunnel.transport.identify import request
from peertunnel.transport.stream import MuxedStream
from tests.node.pair import LOOPBACK, PATIENCE


def count(host: Host) -> list[MuxedStream]:
    """Have a host keep the streams on which it is asked, and answer as before."""
    asked: list[MuxedStream] = []
    answer = host._handlers[PROTOCOL]

    def note(stream: MuxedStream) -> None:
        asked.append(stream)
        answer(stream)

    host.serve(PROTOCOL, note)
    return asked


async def test_one_answer_serves_all_who_ask_at_once() -> None:
    """The host asks everybody, and others want to know, too."""
    async with (
        open_host(Identity.ephemeral(), LOOPBACK) as server,
        open_host(Identity.ephemeral(), ()) as client,
    ):
        asked = count(server)
        connection = await client.dial(server.peer_id, server.addresses, PATIENCE)
        answers = []

        async def ask() -> None:
            answers.append(await request(connection))

        with trio.fail_after(PATIENCE):
            async with trio.open_nursery() as nursery:
                for _ in range(3):
                    nursery.start_soon(ask)
            await ask()
        assert len(answers) == 4 and all(PROTOCOL in answer.protocols for answer in answers)
        assert len(asked) == 1


async def test_what_may_have_changed_is_asked_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    async with (
        open_host(Identity.ephemeral(), LOOPBACK) as server,
        open_host(Identity.ephemeral(), ()) as client,
    ):
        connection = await client.dial(server.peer_id, server.addresses, PATIENCE)
        await request(connection)
        server.serve("/news/1.0.0", MuxedStream.abort)
        assert "/news/1.0.0" not in (await request(connection)).protocols
        monkeypatch.setattr(identify, "FRESH", -1.0)
        assert "/news/1.0.0" in (await request(connection)).protocols


async def test_both_ends_ask() -> None:
    """Who is called asks, too: rust-libp2p's clients go on once they are known."""
    async with (
        open_host(Identity.ephemeral(), LOOPBACK) as server,
        open_host(Identity.ephemeral(), ()) as client,
    ):
        asked = trio.Event()
        client.serve(PROTOCOL, lambda stream: asked.set())
        await client.dial(server.peer_id, server.addresses, PATIENCE)
        with trio.fail_after(PATIENCE):
            await asked.wait()


async def test_who_gives_up_or_is_refused_leaves_the_question_to_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def pass_by(self: Host, connection: MuxedConnection) -> None:
        """Ask nobody."""

    monkeypatch.setattr(Host, "_get_to_know", pass_by)
    async with (
        open_host(Identity.ephemeral(), LOOPBACK) as server,
        open_host(Identity.ephemeral(), ()) as client,
    ):
        answer, held = server._handlers[PROTOCOL], trio.Event()
        server.serve(PROTOCOL, lambda stream: held.set())
        connection = await client.dial(server.peer_id, server.addresses, PATIENCE)
        with trio.fail_after(PATIENCE):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(request, connection)
                await held.wait()
                nursery.cancel_scope.cancel()
            server.serve(PROTOCOL, MuxedStream.abort)
            assert (await request(connection)).protocols == frozenset()
            server.serve(PROTOCOL, answer)
            assert PROTOCOL in (await request(connection)).protocols
