"""Answering requests: no peer, and nobody with many peer ids at one address, takes the room that is there for all."""

from contextlib import AsyncExitStack

import pytest
import trio
import trio.testing
from libp2p.stream_muxer.exceptions import MuxedStreamReset

from peertunnel.host import Host, open_host
from peertunnel.identity import Identity
from peertunnel.protocols.delimited import encode_delimited
from peertunnel.transport import requests
from peertunnel.transport.requests import Answering, read_message
from peertunnel.transport.stream import MuxedStream
from tests.node.pair import LOOPBACK, PATIENCE, other_address, until
from tests.node.test_circuits import relay, reserved

PROTOCOL = "/test/1.0.0"
ROOM = 3


async def ask(asker: Host, server: Host, ip: str) -> MuxedStream:
    """Ask at an address, and give the stream, which stays open."""
    port = server.listening[0].rpartition("/")[2]
    return await ask_at(asker, server, f"/ip4/{ip}/tcp/{port}")


async def ask_at(asker: Host, server: Host, address: str) -> MuxedStream:
    """Ask at a multiaddr."""
    connection = await asker.dial(server.peer_id, [address], PATIENCE)
    with trio.fail_after(PATIENCE):
        stream = await connection.open_tunnel(PROTOCOL)
        await ask_on(stream)
    return stream


async def ask_on(stream: MuxedStream) -> None:
    """Ask on a stream, which stays open."""
    with trio.fail_after(PATIENCE):
        await stream.write(encode_delimited(b"question"))
        assert await read_message(stream, 16) == b"answer"


async def peer(stack: AsyncExitStack, *listen: str) -> Host:
    """Run a peer for as long as the stack stands."""
    return await stack.enter_async_context(open_host(Identity.ephemeral(), listen))


async def answering_host(stack: AsyncExitStack) -> tuple[Host, Answering]:
    """Run a peer that answers at all addresses of this machine."""
    server = await peer(stack, "/ip4/0.0.0.0/tcp/0")
    answering = Answering(lambda caller, message: b"answer", 16, server.nursery)
    server.serve(PROTOCOL, answering.accept)
    return server, answering


async def test_many_peers_at_one_address_leave_room_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requests, "MAX_STREAMS_PER_PLACE", ROOM)
    async with AsyncExitStack() as stack:
        server, answering = await answering_host(stack)
        crowd = [await ask(await peer(stack), server, "127.0.0.1") for _ in range(ROOM)]
        late = await peer(stack)
        with pytest.raises(MuxedStreamReset):
            await ask(late, server, "127.0.0.1")
        await ask(await peer(stack), server, other_address())
        crowd[0].abort()
        await until(lambda: answering._of_peers.total() == ROOM)
        await ask(late, server, "127.0.0.1")


async def test_the_idlest_where_the_most_are_makes_room_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requests, "MAX_STREAMS", ROOM)
    async with AsyncExitStack() as stack:
        server, answering = await answering_host(stack)
        first, second, third = [await ask(await peer(stack), server, "127.0.0.1") for _ in range(ROOM)]
        await ask_on(first)

        for idlest in (second, third):
            await ask(await peer(stack), server, other_address())
            with pytest.raises(MuxedStreamReset), trio.fail_after(PATIENCE):
                await idlest.read()
        await ask_on(first)

        with pytest.raises(MuxedStreamReset):  # there are most now
            await ask(await peer(stack), server, other_address())
        assert answering._of_places.total() == answering._of_peers.total() == ROOM


async def test_many_peers_behind_one_relay_leave_room_for_those_behind_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(requests, "MAX_STREAMS_PER_PLACE", ROOM)
    async with (
        relay() as (crowded, _),
        relay(listen=(f"/ip4/{other_address()}/tcp/0",)) as (other, _),
        reserved(crowded, other) as server,
        AsyncExitStack() as stack,
    ):
        server.serve(PROTOCOL, Answering(lambda caller, message: b"answer", 16, server.nursery).accept)

        async def ask_through(point: Host) -> MuxedStream:
            peer = await stack.enter_async_context(open_host(Identity.ephemeral(), ()))
            return await ask_at(peer, server, f"{point.addresses[0]}/p2p-circuit")

        for _ in range(ROOM):
            await ask_through(crowded)
        with pytest.raises(MuxedStreamReset):
            await ask_through(crowded)
        await ask_through(other)


async def test_who_dribbles_a_request_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requests, "IDLE", 0.2)
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(open_host(Identity.ephemeral(), LOOPBACK))
        server.answer(PROTOCOL, lambda caller, message: b"answer", limit=1000)
        client = await stack.enter_async_context(open_host(Identity.ephemeral(), ()))
        connection = await client.dial(server.peer_id, server.addresses, PATIENCE)
        stream = await connection.open_tunnel(PROTOCOL)
        with pytest.raises(MuxedStreamReset):
            for byte in encode_delimited(bytes(1000)):
                await stream.write(bytes([byte]))
                await trio.sleep(0.02)
