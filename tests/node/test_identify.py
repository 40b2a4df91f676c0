"""Identify: a connection's peer is asked once for all who want to know it, and anew when that is long ago."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from libp2p.stream_muxer.exceptions import MuxedStreamError

from peertunnel.host import Host, open_host
from peertunnel.identity import Identity
from peertunnel.protocols.circuit import HOP
from peertunnel.protocols.delimited import encode_delimited
from peertunnel.protocols.identify import PROTOCOL, PUSH
from peertunnel.transport import identify
from peertunnel.transport.connection import MuxedConnection
from peertunnel.transport.identify import request
from peertunnel.transport.stream import MuxedStream
from tests.node.pair import LOOPBACK, PATIENCE, other_address, until
from tests.node.pushes import news, push


@asynccontextmanager
async def two_hosts() -> AsyncIterator[tuple[Host, Host]]:
    """Open a host that listens and one that doesn't."""
    async with (
        open_host(Identity.ephemeral(), LOOPBACK) as server,
        open_host(Identity.ephemeral(), ()) as client,
    ):
        yield server, client


def count(host: Host) -> list[MuxedStream]:
    """Have a host keep the streams on which it is asked, and answer as before."""
    asked: list[MuxedStream] = []
    answer = host._handlers[PROTOCOL]

    def note(stream: MuxedStream) -> None:
        asked.append(stream)
        answer(stream)

    host.serve(PROTOCOL, note)
    return asked


async def test_an_address_of_ours_that_makes_no_sense_is_not_told() -> None:
    async with two_hosts() as (server, client):
        server.add_addresses(lambda: ["/ip4/192.0.2.1/tcp/1/tls/sni/_", "/ip4/192.0.2.1/tcp/1"])
        connection = await client.dial(server.peer_id, server.addresses, PATIENCE)
        answer = await request(connection)
        assert len(answer.addresses) == len(server.addresses) - 1


async def test_one_answer_serves_all_who_ask_at_once() -> None:
    """The host asks everybody, and others want to know, too."""
    async with two_hosts() as (server, client):
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
    async with two_hosts() as (server, client):
        connection = await client.dial(server.peer_id, server.addresses, PATIENCE)
        await request(connection)
        server.serve("/news/1.0.0", MuxedStream.abort)
        assert "/news/1.0.0" not in (await request(connection)).protocols
        monkeypatch.setattr(identify, "FRESH", -1.0)
        assert "/news/1.0.0" in (await request(connection)).protocols


async def test_both_ends_ask() -> None:
    """Who is called asks, too: rust-libp2p's clients go on once they are known."""
    async with two_hosts() as (server, client):
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
    async with two_hosts() as (server, client):
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


# -- pushes -------------------------------------------------------------------------------------------------------


async def test_what_is_pushed_is_known_and_the_rest_stays() -> None:
    async with two_hosts() as (server, client):
        connection = await client.dial(server.peer_id, server.addresses, PATIENCE)
        before, asked = await request(connection), count(server)
        await push(server, client, news(server, "/news/1.0.0"))
        after = await request(connection)
        assert after.protocols == {"/news/1.0.0"}
        assert after.addresses == before.addresses and after.agent == before.agent
        assert not asked


@pytest.mark.parametrize("data", [b"\x01", b"\x02\xff\xff", encode_delimited(bytes(70_000)), bytes(70_000)])
async def test_a_push_that_is_none_is_refused_and_changes_nothing(data: bytes) -> None:
    async with two_hosts() as (server, client):
        connection = await client.dial(server.peer_id, server.addresses, PATIENCE)
        before = await request(connection)
        if data == b"\x01":  # a message that stays away is no news
            await push(server, client, data)
        else:
            with pytest.raises(MuxedStreamError):
                await push(server, client, data)
        assert await request(connection) == before
        assert not connection.is_closed


async def test_one_push_at_a_time_is_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    async with two_hosts() as (server, client):
        connection = await client.dial(server.peer_id, server.addresses, PATIENCE)
        await request(connection)
        (theirs,) = server.connections(client.peer_id)
        slow = await theirs.open_tunnel(PUSH)
        await slow.write(news(server, "/slow/1.0.0"))
        await until(lambda: connection.acquaintance._is_hearing)
        with pytest.raises(MuxedStreamError):
            await push(server, client, news(server, "/quick/1.0.0"))
        await slow.close()
        await until(lambda: not connection.acquaintance._is_hearing)
        assert (await request(connection)).protocols == {"/slow/1.0.0"}


async def test_a_peer_that_says_later_that_it_is_a_relay_is_one() -> None:
    here = (f"/ip4/{other_address()}/tcp/0",)
    async with (
        open_host(Identity.ephemeral(), here) as server,
        open_host(Identity.ephemeral(), here) as client,
    ):
        connection = await client.dial(server.peer_id, server.addresses, PATIENCE)
        assert HOP not in (await request(connection)).protocols
        assert server.peer_id not in client.reservations._relays
        await push(server, client, news(server, HOP))
        await until(lambda: server.peer_id in client.reservations._relays)
