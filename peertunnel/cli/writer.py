"""Stdout and stderr written by a thread: who doesn't read them for a while holds no tunnel up."""

import io
import os
import select
import stat
import sys
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import TextIO

ROOM = 2**20  # bytes that wait for their reader; what comes then is left out
PATIENCE = 2.0  # seconds at the end in which the reader has to take something, or it gets no more
HASTE = 0.5  # seconds instead, when all is to end at once


class Outlet(io.RawIOBase):
    """One of the two streams: what is written on it waits for the thread.

    Attributes:
        error: why it can't be written any more, if so.
        lost: called when that happens, by any thread.
    """

    def __init__(self, writer: "Writer", file: TextIO) -> None:
        self._writer = writer
        self._file = file
        self.error: OSError | None = None
        self.lost: Callable[[], None] = lambda: None
        kind = os.fstat(file.fileno()).st_mode
        self._is_pipe = stat.S_ISFIFO(kind)
        self._may_hold_up = file.isatty() or stat.S_ISSOCK(kind)
        self._poll = select.poll()
        self._poll.register(file.fileno(), select.POLLOUT)

    def writable(self) -> bool:
        """Say that this is for writing."""
        return True

    def fileno(self) -> int:
        """Give the descriptor that the thread writes to."""
        return self._file.fileno()

    def isatty(self) -> bool:
        """Return whether it is a terminal."""
        return self._file.isatty()

    def write(self, data: "bytes | bytearray | memoryview") -> int:  # type: ignore[override]
        """Have the thread write it, whole, or leave it out, if there is no room."""
        self._writer.put(self, bytes(data))
        return len(data)

    def flush(self) -> None:
        """Once the command has ended, wait until all is written; raises OSError if it can't be."""
        if self._writer.is_over:
            self._writer.wait()
            error, self.error = self.error, None
            if error is not None:
                raise error

    def takes_at_once(self, size: int) -> bool:
        """Return whether so many bytes can be written without waiting for anybody."""
        if self._is_pipe:
            return size <= select.PIPE_BUF and bool(self._poll.poll(0))  # so much it takes if anything
        return not self._may_hold_up

    def take(self, data: memoryview) -> int:
        """Write some of it, and give how many bytes are done with."""
        if self.error is not None:
            return len(data)
        try:
            return os.write(self.fileno(), data)
        except BlockingIOError:  # whoever we share the file with made it non-blocking
            self._poll.poll()
            return 0
        except OSError as error:
            self.error = error
            silence(self._file)
            self.lost()
            return len(data)


class Writer:
    """Takes the place of sys.stdout and sys.stderr, for good; what is written on both keeps its order.

    Attributes:
        stdout, stderr: where what is written on them goes.
        is_over: whether the command has ended, so that who flushes a stream waits.
        patience: seconds without any progress after which `finish` gives up.
        relieved: called, by any thread and again and again, when there is room after something was left out.
    """

    def __init__(self) -> None:
        self.stdout, self.stderr = Outlet(self, sys.stdout), Outlet(self, sys.stderr)
        self.patience = PATIENCE
        self.relieved: Callable[[], None] = lambda: None
        self.is_over = False
        self._queue: deque[tuple[Outlet, bytes]] = deque()
        self._size = 0  # bytes that are not written yet
        self._changed = threading.Condition()
        self._left_out = 0  # lines
        self._is_full = False  # from when something is left out until `resume`
        self._has_given_up = False
        sys.stdout, sys.stderr = _text(self.stdout, sys.stdout), _text(self.stderr, sys.stderr)
        threading.Thread(target=self._write, name="output", daemon=True).start()

    @property
    def is_idle(self) -> bool:
        """Whether everything is written."""
        return not self._size

    def put(self, outlet: Outlet, data: bytes) -> None:
        """Have something written, or, while there is no room, leave it out."""
        with self._changed:
            if self._has_given_up:
                return
            if not self.is_over and (self._is_full or self._size + len(data) > ROOM):
                self._is_full = True
                self._left_out += data.count(b"\n")
            else:
                if not self._size and outlet.takes_at_once(len(data)):  # to wake a thread costs much more
                    data = data[outlet.take(memoryview(data)) :]
                if data:
                    self._queue.append((outlet, data))
                    self._size += len(data)
                    self._changed.notify_all()
        self._look_for_room()

    def resume(self) -> int:
        """Leave nothing out any more, and give how many lines were: that is to be told first."""
        with self._changed:
            lines, self._left_out, self._is_full = self._left_out, 0, False
        return lines

    def discard(self) -> None:
        """Leave out what waits, and what else is written until `resume`: it would follow what could not be written."""
        with self._changed:
            self._is_full = True
            self._size -= sum(len(data) for _, data in self._queue)
            self._queue.clear()

    def finish(self, results: Outlet) -> OSError | None:
        """Wait until everything is written, and give what has kept one of the streams from it.

        From now on nothing is left out, and who flushes a stream waits.
        """
        try:
            self.is_over = True
            self.wait()
        except KeyboardInterrupt:  # at once, then
            self._has_given_up = True
            raise
        self.patience = PATIENCE  # for the last words
        error = results.error
        self.stdout.error = self.stderr.error = None
        return error

    def wait(self) -> None:
        """Wait until everything is written; gives up, for good, when the reader takes nothing for too long."""
        # Mostly without the lock, which the thread could hold for ever as the interpreter ends.
        while self._size and not self._has_given_up:
            with self._changed:
                left = self._size
                if left and not self._changed.wait_for(lambda: self._size < left, self.patience):  # noqa: B023
                    self._has_given_up = True

    def _write(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._queue)
                outlet, data = self._queue.popleft()
            rest = memoryview(data)
            while rest and not self._has_given_up:
                # A longer write would hide that the reader takes some.
                written = outlet.take(rest[: select.PIPE_BUF])
                rest = rest[written:]
                with self._changed:
                    self._size -= written
                    self._changed.notify_all()
                self._look_for_room()

    def _look_for_room(self) -> None:
        """Tell of room when half of it is free again, so that it isn't told of every other line."""
        if self._is_full and self._size <= ROOM // 2:
            self.relieved()


def silence(stream: TextIO) -> None:
    """Send what is still written, also by the interpreter as it ends, to nowhere."""
    with suppress(OSError):  # there are no descriptors left: the next line tries again
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def _text(outlet: Outlet, like: TextIO) -> TextIO:
    """Give a stream of text, of whole lines mostly, in the encoding of another one."""
    return io.TextIOWrapper(outlet, like.encoding, like.errors, line_buffering=True)  # type: ignore[type-var]
