"""A tunnel between two makes of peer, with the test at both of its ends."""

import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import trio

from tests.interop.peers import Running, pt, running

OPEN_SECONDS = 30

Provide = Callable[[str], AbstractAsyncContextManager[Running]]  # the target
Consume = Callable[[str], AbstractAsyncContextManager[Running]]  # the provider's address


@dataclass(frozen=True, slots=True)
class Tunnel:
    """Where clients connect, where their connections arrive, and the two processes between."""

    local: tuple[str, int]
    target: trio.SocketListener
    provider: Running
    consumer: Running

    async def connect(self) -> trio.SocketStream:
        """Open a client's end.

        The system connects it at once. Until trio has looked at a new connection it may be reset, and looks unconnected.
        """
        await trio.lowlevel.checkpoint()
        return trio.SocketStream(trio.socket.from_stdlib_socket(socket.create_connection(self.local)))

    async def open(self) -> tuple[trio.SocketStream, trio.SocketStream]:
        """Open both ends: the client's and the server's."""
        with trio.fail_after(OPEN_SECONDS):
            return await self.connect(), await self.target.accept()


@asynccontextmanager
async def tunnel(provide: Provide, consume: Consume, transport: str = "/tcp/") -> AsyncIterator[Tunnel]:
    """Join a provider and a consumer at an address of a transport."""
    (target,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with target:
        port = target.socket.getsockname()[1]
        async with provide(f"127.0.0.1:{port}") as provider:
            address = address_over(transport, await provider.event("ready"))
            async with consume(address) as consumer:
                host, _, local = (await consumer.event("listening"))["local"].rpartition(":")
                yield Tunnel((host, int(local)), target, provider, consumer)


def tcp_address(ready: dict[str, list[str]]) -> str:
    """Pick the TCP address of a peer that listens on QUIC too."""
    return address_over("/tcp/", ready)


def address_over(transport: str, ready: dict[str, list[str]]) -> str:
    """Pick an address of a peer that has this part in it."""
    return next(address for address in ready["addresses"] if transport in address)


def pt_provider(home: Path, *options: str) -> Provide:
    """Make providers that are `pt tcp`, for everybody: the other peers know no secret."""
    return lambda target: pt(home, "tcp", "--target", target, "--id", "interop", "--public", *options)


def pt_consumer(home: Path, *options: str) -> Consume:
    """Make consumers that are `pt bind`."""
    return lambda address: pt(home, "bind", "--port", "0", "--peer", address, *options)


def foreign_provider(binary: Path, *options: str) -> Provide:
    """Make providers that are the Go or the Rust peer."""
    return lambda target: running([str(binary), "tunnel-listen", "--target", target, *options])


def foreign_consumer(binary: Path, *options: str) -> Consume:
    """Make consumers that are the Go or the Rust peer."""
    return lambda address: running([str(binary), "tunnel-dial", "--peer", address, *options])


def abort(stream: trio.SocketStream) -> None:
    """Close a connection with a RST instead of a FIN."""
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    stream.socket.close()
