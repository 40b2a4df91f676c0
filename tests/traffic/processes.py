"""What real traffic needs: servers, two `pt` processes before them, and clients that run to their end."""

import os
import signal
import socket
import subprocess
import tempfile
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TypeVar

import trio

from peertunnel.identity import Identity
from tests.interop.peers import STOP_SECONDS, Running, pt
from tests.interop.tunnels import Consume, Provide, tcp_address
from tests.tools import need

NAME = "traffic-9f8c3f3a1d5be07c42ad"  # the tunnel id, which is no weak one: nobody warns of it
SHARED = ("--id", NAME, "--grace", "0")
START_SECONDS = 60  # for a server to answer, on a busy machine
CLIENT_SECONDS = 150  # for a client to do its work, on a busy machine
POLL = 0.02  # seconds between looks at what gives no sign by itself

T = TypeVar("T")


def need_all(*tools: str, folders: Sequence[str] = ()) -> None:
    """Skip or fail the test without these programs; not from inside trio, where a skip is an error."""
    for tool in tools:
        need(tool, *folders)


def provider(home: Path, *options: str) -> Provide:
    """Make providers that are `pt tcp`, with files of their own."""
    return lambda target: pt(home / "provider", "tcp", "--target", target, *SHARED, *options)


def consumer(home: Path, *options: str) -> Consume:
    """Make consumers that are `pt bind`, with files of their own, on any port if the options name no place."""
    place = () if "--listen" in options else ("--port", "0")
    return lambda address: pt(home / "consumer", "bind", *place, "--peer", address, *SHARED, *options)


@contextmanager
def held_port() -> Iterator[int]:
    """Hold a port of 127.0.0.1 for servers of ours, one after the other: nobody else is given it meanwhile."""
    with socket.socket() as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


def nobody() -> str:
    """Give the address of a provider that isn't there."""
    return f"/ip4/127.0.0.1/tcp/1/p2p/{Identity.ephemeral().peer_id}"


@dataclass(frozen=True, slots=True)
class Forwarding:
    """The two processes between clients and a server, the provider's address, and where clients connect."""

    provider: Running
    consumer: Running
    address: str
    local: str

    @property
    def port(self) -> int:
        """The local port, on 127.0.0.1 and ::1."""
        return int(self.local.rpartition(":")[2])

    async def connect(self) -> trio.SocketStream:
        """Open a client's connection to the local port."""
        return await trio.open_tcp_stream("127.0.0.1", self.port)


@asynccontextmanager
async def forwarding(
    home: Path, target: str, *, provide: Sequence[str] = (), consume: Sequence[str] = ()
) -> AsyncIterator[Forwarding]:
    """Forward to a target, with these options for either end."""
    async with provider(home, *provide)(target) as near_server:
        address = tcp_address(await near_server.event("ready"))
        async with consumer(home, *consume)(address) as near_client:
            local = (await near_client.event("listening"))["local"]
            yield Forwarding(near_server, near_client, address, local)


@contextmanager
def lasting(manager: AbstractAsyncContextManager[T]) -> Iterator[T]:
    """Hold an asynchronous block open in a thread of its own, for a fixture that outlives a test.

    What it gives belongs to that thread: look at it, but wait for none of its events.
    """
    opened: Future[tuple[T, trio.lowlevel.TrioToken, trio.Event]] = Future()

    async def hold() -> None:
        async with manager as value:
            end = trio.Event()
            opened.set_result((value, trio.lowlevel.current_trio_token(), end))
            await end.wait()

    def run() -> None:
        try:
            trio.run(hold)
        except BaseException as error:
            if opened.done():
                raise
            opened.set_exception(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        value, token, end = opened.result()
        try:
            yield value
        finally:
            token.run_sync_soon(end.set)
    finally:
        thread.join()


@asynccontextmanager
async def server(command: Sequence[str], answers: Callable[[], bool]) -> AsyncIterator[None]:
    """Run a server until the block ends, which begins as soon as it answers."""
    with tempfile.TemporaryFile() as log:
        process = await trio.lowlevel.open_process(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            if not await until(lambda: answers() or process.poll() is not None, START_SECONDS):
                raise AssertionError(f"{command[0]} does not answer:\n{_content(log)}")
            assert process.poll() is None, f"{command[0]} has ended:\n{_content(log)}"
            yield
        finally:
            with suppress(ProcessLookupError):
                process.send_signal(signal.SIGINT)  # which PostgreSQL takes for "now, but in good order"
            with trio.CancelScope(shield=True, deadline=trio.current_time() + STOP_SECONDS):
                await process.wait()
            process.kill()


def _content(log: IO[bytes]) -> str:
    log.seek(0)
    return log.read().decode(errors="replace")


async def until(holds: Callable[[], object], seconds: float) -> bool:
    """Wait until a condition holds that gives no sign by itself; return whether it did in time."""
    with trio.move_on_after(seconds):
        while not holds():  # noqa: ASYNC110 - it gives no sign
            await trio.sleep(POLL)
    return bool(holds())


async def run(command: Sequence[str], *, stdin: bytes = b"", expected: int = 0, **environment: str) -> bytes:
    """Run a client to its end, and give what it printed; another exit code than the expected one is a failure."""
    with trio.fail_after(CLIENT_SECONDS):
        done = await trio.run_process(
            command,
            stdin=stdin,
            capture_stdout=True,
            capture_stderr=True,
            check=False,
            env=os.environ | {"PT_DHT": "0", "PT_PORTMAP": "0"} | environment,
        )
    said = f"{' '.join(command)}: exit code {done.returncode}\n{done.stderr.decode(errors='replace')}"
    assert done.returncode == expected, said
    return bytes(done.stdout)
