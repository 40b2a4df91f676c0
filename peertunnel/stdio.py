"""Standard input and output as one socket, so that they can be the local end of a tunnel.

Two threads carry the bytes, since a terminal, a pipe and a file can each be read only in its own way, and
blocking is the one way that works with all of them. Half-close is kept: the end of stdin is the socket's
end of file, and shutting down the socket's sending side ends stdout.
"""

import contextlib
import os
import select
import socket
import stat
import sys
import threading

import trio

from peertunnel.errors import TunnelAborted, UsageError

CHUNK = 64 * 1024  # bytes; the capacity of a pipe on Linux
_STDIN = 0
_STDOUT = 1


class StdioSocket(socket.socket):
    """The near end of standard input and output, non-blocking."""

    def __init__(self, fileno: int) -> None:
        super().__init__(fileno=fileno)
        self.setblocking(False)
        self._finished = trio.Event()
        self._failure: OSError | None = None
        self._failed = ""

    async def flushed(self) -> None:
        """Wait until stdout has all that was sent; shut down or close the socket first.

        Raises TunnelAborted when stdout did not take everything.
        """
        await self._finished.wait()
        self.check()

    async def failed(self) -> None:
        """Wait until stdout or stdin has failed, for ever if neither does."""
        await self._finished.wait()
        if self._failure is None:
            await trio.sleep_forever()

    def check(self) -> None:
        """Raise TunnelAborted if stdout or stdin has failed."""
        if self._failure is not None:
            hint = "What was received is incomplete, and so may be what was sent; try again."
            raise TunnelAborted(
                f"Standard {self._failed} failed: {self._failure.strerror}.", hint=hint
            ) from self._failure

    def fail(self, failure: OSError, what: str = "output") -> None:
        """Note why stdout does not take everything, or stdin does not give it; called by its thread."""
        self._failure, self._failed = failure, what

    def finish(self) -> None:
        """Note that nothing more goes to stdout; called by its thread's report."""
        self._finished.set()


def stdio() -> StdioSocket:
    """Take over file descriptors 0 and 1 for good; they come back as one socket. Needs a running trio.

    Raises UsageError if the program was started without one of them.
    """
    if sys.__stdin__ is None or sys.__stdout__ is None:  # then another file has got the number
        raise UsageError("Standard input and output must be open.", hint="Don't close them with <&- or >&-.")
    far, near = socket.socketpair()
    sock = StdioSocket(near.detach())
    token = trio.lowlevel.current_trio_token()
    threading.Thread(target=_read_input, args=(far.dup(), sock, token), name="stdin", daemon=True).start()
    threading.Thread(target=_write_output, args=(far, sock, token), name="stdout", daemon=True).start()
    return sock


def _read_input(far: socket.socket, sock: StdioSocket, token: trio.lowlevel.TrioToken) -> None:
    with far, contextlib.suppress(OSError):  # output that nobody takes has no use for more input
        try:
            while data := _read(_STDIN):
                far.sendall(data)
        except _InputFailed as error:
            if not os.isatty(_STDIN):  # else it is the terminal of others by now, and has ended for us
                sock.fail(error, "input")
                with contextlib.suppress(trio.RunFinishedError):
                    token.run_sync_soon(sock.finish)
                return  # without an end: what was read may be half of it
        far.shutdown(socket.SHUT_WR)


def _write_output(far: socket.socket, sock: StdioSocket, token: trio.lowlevel.TrioToken) -> None:
    with far:
        try:
            while data := _received(far):
                _write(_STDOUT, data)
        except OSError as error:
            sock.fail(error)  # first, so that who is told by the shutdown finds the cause
        with contextlib.suppress(OSError):
            _end_output()
        with contextlib.suppress(OSError):
            far.shutdown(socket.SHUT_RD)  # whoever still sends is told so
    with contextlib.suppress(trio.RunFinishedError):
        token.run_sync_soon(sock.finish)


def _received(far: socket.socket) -> bytes:
    try:
        return far.recv(CHUNK)
    except ConnectionResetError:  # closed with input unread: its own output has all arrived
        return b""


class _InputFailed(OSError):
    """Stdin could not be read."""


def _read(fd: int) -> bytes:
    while True:
        try:
            return os.read(fd, CHUNK)
        except BlockingIOError:  # whoever we share the file with made it non-blocking
            select.select([fd], [], [])
        except OSError as error:
            raise _InputFailed(error.errno, error.strerror) from error


def _write(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except BlockingIOError:
            select.select([], [fd], [])


def _end_output() -> None:
    """Let the reader of stdout see its end, though this program and its stdin live on."""
    if stat.S_ISSOCK(os.fstat(_STDOUT).st_mode):  # often the same socket as stdin, so closing is not enough
        with socket.socket(fileno=os.dup(_STDOUT)) as output, contextlib.suppress(OSError):
            output.shutdown(socket.SHUT_WR)
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, _STDOUT)  # the number stays taken, or the next file opened would become stdout
    os.close(nothing)
