"""Standard input and output as a socket: pipes, files, terminals and sockets, in a process of its own."""

import errno
import hashlib
import os
import pty
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import DEVNULL, PIPE
from typing import IO, Any

import pytest

DATA = b"".join(hashlib.sha256(bytes([n % 251])).digest() for n in range(100_000))  # more than any pipe holds

PRELUDE = """
import socket, sys, trio
from peertunnel.errors import PeerTunnelError
from peertunnel.stdio import stdio

async def main():
    try:
        sock = stdio()
        stream = trio.SocketStream(trio.socket.from_stdlib_socket(socket.socket(fileno=sock.detach())))
        await story(sock, stream)
    except PeerTunnelError as error:
        sys.exit(error.message)
"""
STORIES = {
    "echo": """
        async for data in stream:
            await stream.send_all(data)
        await stream.send_eof()
        await sock.flushed()
    """,
    "end first": """
        await stream.send_all(b"first")
        await stream.send_eof()
        await sock.flushed()
        print("for nobody", flush=True)
        async for data in stream:
            print(data.decode(), end="", file=sys.stderr)
    """,
    "until input fails": """
        await sock.failed()
        sock.check()
    """,
    "send and leave": """
        await stream.send_all(b"x" * 3_000_000)
        await stream.aclose()
        await sock.flushed()
    """,
    "send little and leave": """
        await stream.send_all(b"all of it")
        await stream.aclose()
        await sock.flushed()
    """,
    "leave input unread": """
        await trio.lowlevel.wait_readable(stream.socket.fileno())
        await stream.send_all(b"all of it")
        await stream.aclose()
        await sock.flushed()
    """,
    "until it breaks": """
        try:
            while True:
                await stream.send_all(b"x" * 65536)
        except trio.BrokenResourceError:
            print("told", file=sys.stderr)
        await sock.flushed()
    """,
    "until it breaks, and ask why": """
        try:
            while True:
                await stream.send_all(b"x" * 65536)
        except trio.BrokenResourceError:
            sock.check()
    """,
}


def program(story: str) -> list[str]:
    return [
        sys.executable,
        "-c",
        f"{PRELUDE}\nasync def story(sock, stream):{STORIES[story]}\ntrio.run(main)",
    ]


def run(command: list[str], **streams: Any) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(command, **streams, stderr=PIPE, check=False, timeout=60)


@contextmanager
def running(story: str, stdin: int, stdout: int) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(program(story), stdin=stdin, stdout=stdout, stderr=PIPE) as process:
        try:
            yield process
        finally:
            process.kill()


def pipe(stream: IO[bytes] | None) -> IO[bytes]:
    assert stream is not None
    return stream


def read_until(fd: int, expected: bytes) -> None:
    received = b""
    while len(received) < len(expected):
        received += os.read(fd, len(expected))
    assert received == expected


def test_pipes() -> None:
    done = run(program("echo"), input=DATA, stdout=PIPE)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout == DATA


def test_files(tmp_path: Path) -> None:
    source, copy = tmp_path / "source", tmp_path / "copy"
    source.write_bytes(DATA)
    with source.open("rb") as stdin, copy.open("wb") as stdout:
        assert run(program("echo"), stdin=stdin, stdout=stdout).returncode == 0
    assert copy.read_bytes() == DATA


def test_a_terminal() -> None:
    controller, terminal = pty.openpty()
    with running("echo", terminal, terminal) as process:
        os.write(controller, b"hello\n")
        read_until(controller, b"hello\r\nhello\r\n")  # typed, and echoed by the program
        os.write(controller, b"\x04")  # Ctrl-D ends the input
        assert process.wait(timeout=60) == 0
    os.close(terminal)
    os.close(controller)


def test_output_ends_while_input_goes_on() -> None:
    with running("end first", PIPE, PIPE) as process:
        assert pipe(process.stdout).read() == b"first"
        pipe(process.stdin).write(b"second")
        pipe(process.stdin).close()
        assert pipe(process.stderr).read() == b"second"
        assert process.wait(timeout=60) == 0


def test_output_ends_on_a_socket_that_is_input_too() -> None:
    ours, theirs = socket.socketpair()  # as OpenSSH runs a ProxyCommand
    with ours, running("end first", theirs.fileno(), theirs.fileno()) as process:
        theirs.close()
        ours.settimeout(60)
        assert ours.recv(100) == b"first"
        assert ours.recv(100) == b""
        ours.sendall(b"second")
        ours.shutdown(socket.SHUT_WR)
        assert pipe(process.stderr).read() == b"second"
        assert process.wait(timeout=60) == 0


def test_flushed_waits_for_a_slow_reader() -> None:
    with running("send and leave", DEVNULL, PIPE) as process:
        assert len(pipe(process.stdout).read(100_000)) == 100_000
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(timeout=0.5)
        assert len(pipe(process.stdout).read()) == 2_900_000
        assert process.wait(timeout=60) == 0


def test_input_that_nobody_read_costs_no_output() -> None:
    done = run(program("leave input unread"), input=b"ignored", stdout=PIPE)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"all of it", b"")


def test_input_that_somebody_made_non_blocking() -> None:
    far, near = os.pipe()
    os.set_blocking(far, False)
    with running("echo", far, PIPE) as process:
        for word in (b"one", b"two"):  # before the second there is nothing to read for a moment
            os.write(near, word)
            read_until(pipe(process.stdout).fileno(), word)
        os.close(near)
        assert process.wait(timeout=60) == 0
    os.close(far)


def test_output_that_somebody_made_non_blocking() -> None:
    near, far = os.pipe()
    os.set_blocking(far, False)
    with running("send and leave", DEVNULL, far) as process, open(near, "rb") as reader:
        os.close(far)
        assert len(reader.read()) == 3_000_000
        assert process.wait(timeout=60) == 0


def test_output_that_fails_late_is_an_error() -> None:
    with open("/dev/full", "wb") as full:
        done = run(program("send little and leave"), stdin=DEVNULL, stdout=full)
    assert done.returncode == 1
    assert done.stderr == b"Standard output failed: No space left on device.\n"


@pytest.mark.parametrize("number", [errno.ECONNRESET, errno.EIO])
def test_input_that_fails_is_no_end(number: int) -> None:
    """Of a client that aborted, or of a disk: what was read may be half of it."""
    near, far = socket.socketpair()
    with near, open("/proc/self/mem", "rb") as broken:  # of which a read at 0 fails with EIO
        stdin = (far if number == errno.ECONNRESET else broken).fileno()
        near.sendall(b"half")
        with far, running("until input fails", stdin, PIPE) as process:
            if number == errno.ECONNRESET:
                far.sendall(b"unread")  # the peer resets a socket that is closed with this
                near.close()
            assert pipe(process.stderr).read() == f"Standard input failed: {os.strerror(number)}.\n".encode()
            assert process.wait(timeout=60) == 1


def test_output_that_nobody_takes_is_told_to_who_sends() -> None:
    near, far = os.pipe()
    os.close(near)
    with running("until it breaks", DEVNULL, far) as process:
        assert pipe(process.stderr).read() == b"told\nStandard output failed: Broken pipe.\n"
        assert process.wait(timeout=60) == 1
    os.close(far)


def test_who_is_told_that_nobody_takes_the_output_is_told_why() -> None:
    near, far = os.pipe()
    os.close(near)
    done = run(program("until it breaks, and ask why"), stdin=DEVNULL, stdout=far)
    os.close(far)
    assert (done.returncode, done.stderr) == (1, b"Standard output failed: Broken pipe.\n")


@pytest.mark.parametrize("redirection", ["<&-", ">&-"])
def test_both_must_be_open(redirection: str) -> None:
    command = ["sh", "-c", f'exec "$@" {redirection}', "sh", *program("echo")]
    done = run(command, stdin=DEVNULL, stdout=PIPE)
    assert done.returncode == 1
    assert done.stderr == b"Standard input and output must be open.\n"
