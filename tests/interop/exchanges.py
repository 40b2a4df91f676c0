"""What is sent through a tunnel: each exchange must end the same whoever made its two ends."""

import random
from collections.abc import Awaitable, Callable
from hashlib import sha256

import pytest
import trio

from tests.interop.tunnels import Tunnel, abort

MIB = 1 << 20
BULK = 64 * MIB
BULK_SECONDS = 60
EXCHANGE_SECONDS = 40
BURST = 16
CHUNK = 256 << 10  # bytes

Exchange = Callable[[Tunnel], Awaitable[None]]


async def read_all(stream: trio.SocketStream) -> bytes:
    """Read up to the end, which must be clean."""
    return b"".join([chunk async for chunk in stream])


async def read_until_reset(stream: trio.SocketStream) -> None:
    """Read up to a reset: a clean end is a failure."""
    with pytest.raises(trio.BrokenResourceError) as caught:
        await read_all(stream)
    assert isinstance(caught.value.__cause__, ConnectionResetError)


async def _send_noise(stream: trio.SocketStream, seed: int) -> None:
    noise = random.Random(seed)
    for _ in range(BULK // CHUNK):
        await stream.send_all(noise.randbytes(CHUNK))
    await stream.send_eof()


async def _expect_noise(stream: trio.SocketStream, seed: int) -> None:
    noise, received, length = random.Random(seed), sha256(), 0
    async for chunk in stream:
        received.update(chunk)
        length += len(chunk)
    sent = sha256()
    for _ in range(BULK // CHUNK):
        sent.update(noise.randbytes(CHUNK))
    assert (length, received.hexdigest()) == (BULK, sent.hexdigest())


async def bulk_both_ways(tunnel: Tunnel) -> None:
    """64 MiB each way at once arrive whole and in order, and each way ends by itself."""
    client, server = await tunnel.open()
    with trio.fail_after(BULK_SECONDS):
        async with client, server, trio.open_nursery() as nursery:
            nursery.start_soon(_send_noise, client, 1)
            nursery.start_soon(_send_noise, server, 2)
            nursery.start_soon(_expect_noise, server, 1)
            nursery.start_soon(_expect_noise, client, 2)


async def client_half_closes(tunnel: Tunnel) -> None:
    """The server answers after it has seen the end of the question."""
    client, server = await tunnel.open()
    await client.send_all(b"question")
    await client.send_eof()
    assert await read_all(server) == b"question"
    await server.send_all(b"answer")
    await server.aclose()
    assert await read_all(client) == b"answer"


async def server_half_closes(tunnel: Tunnel) -> None:
    """The client speaks after it has seen the server's end."""
    client, server = await tunnel.open()
    await server.send_all(b"greeting")
    await server.send_eof()
    assert await read_all(client) == b"greeting"
    await client.send_all(b"late")
    await client.aclose()
    assert await read_all(server) == b"late"


async def one_after_the_other(tunnel: Tunnel) -> None:
    """200 short tunnels, each opened after the last was closed."""
    for number in range(200):
        client, server = await tunnel.open()
        await _bounce(client, server, str(number).encode())


async def all_at_once(tunnel: Tunnel) -> None:
    """16 tunnels opened in one burst are all there, and open at the same time."""
    clients: list[trio.SocketStream] = []

    async def connect() -> None:
        clients.append(await tunnel.connect())

    async with trio.open_nursery() as nursery:
        for _ in range(BURST):
            nursery.start_soon(connect)
        servers = [await tunnel.target.accept() for _ in range(BURST)]
    for number, client in enumerate(clients):
        await client.send_all(bytes([number]))
    by_number = {(await server.receive_some(1))[0]: server for server in servers}
    for number, client in enumerate(clients):
        await _bounce(client, by_number[number], b"x")


async def _bounce(client: trio.SocketStream, server: trio.SocketStream, word: bytes) -> None:
    await client.send_all(word)
    await client.send_eof()
    assert await read_all(server) == word
    await server.send_all(word)
    await server.aclose()
    assert await read_all(client) == word
    await client.aclose()


async def client_aborts(tunnel: Tunnel) -> None:
    """A reset by the client is a reset for the server, not a clean end."""
    client, server = await tunnel.open()
    await _greet(client, server)
    abort(client)
    await read_until_reset(server)


async def server_aborts(tunnel: Tunnel) -> None:
    """A reset by the server is a reset for the client, not a clean end."""
    client, server = await tunnel.open()
    await _greet(client, server)
    abort(server)
    await read_until_reset(client)


async def target_refuses(tunnel: Tunnel) -> None:
    """A target that isn't there ends the client's connection at once, without a byte."""
    await tunnel.target.aclose()
    try:
        assert await read_all(await tunnel.connect()) == b""
    except (trio.BrokenResourceError, OSError):
        pass  # a reset, which may come even before trio has looked at the new connection


async def provider_dies(tunnel: Tunnel) -> None:
    """A lost provider is a reset for the client, not a clean end."""
    client, server = await tunnel.open()
    await _greet(client, server)
    tunnel.provider.process.kill()
    await read_until_reset(client)


async def consumer_dies(tunnel: Tunnel) -> None:
    """A lost consumer is a reset for the server, not a clean end."""
    client, server = await tunnel.open()
    await _greet(client, server)
    tunnel.consumer.process.kill()
    await read_until_reset(server)


async def _greet(client: trio.SocketStream, server: trio.SocketStream) -> None:
    """Exchange a word each way, so that both ends have one."""
    await client.send_all(b"hello")
    assert await server.receive_some(5) == b"hello"
    await server.send_all(b"hi")
    assert await client.receive_some(2) == b"hi"


ENDS: tuple[Exchange, ...] = (
    client_half_closes,
    server_half_closes,
    client_aborts,
    server_aborts,
    target_refuses,
    provider_dies,
    consumer_dies,
)
EXCHANGES: tuple[Exchange, ...] = (bulk_both_ways, one_after_the_other, all_at_once, *ENDS)


async def check(exchange: Exchange, tunnel: Tunnel, seconds: float = EXCHANGE_SECONDS) -> None:
    """Run an exchange under its deadline; a failure shows what both peers said."""
    try:
        with trio.fail_after(BULK_SECONDS if exchange is bulk_both_ways else seconds):
            await exchange(tunnel)
    except BaseException as error:
        error.add_note(f"{tunnel.provider}\n{tunnel.consumer}")
        raise
