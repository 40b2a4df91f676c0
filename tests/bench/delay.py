"""A proxy that holds bytes back: `python -m tests.bench.delay HOST:PORT SECONDS` listens and prints where, as JSON."""

import json
import socket
import sys
import threading
import time
from collections import deque

_READ = 256 * 1024  # bytes
_HELD = 64 * 1024 * 1024  # bytes on their way in one direction: more than any window of yamux'


class _Line:
    """One direction: what one socket gives is sent on the other, later."""

    def __init__(self, source: socket.socket, sink: socket.socket, seconds: float) -> None:
        self._source = source
        self._sink = sink
        self._seconds = seconds
        self._held: deque[tuple[float, bytes]] = deque()
        self._size = 0
        self._changed = threading.Condition()
        for work in (self._read, self._write):
            threading.Thread(target=work, daemon=True).start()

    def _read(self) -> None:
        data = b"?"
        while data:
            try:
                data = self._source.recv(_READ)
            except OSError:
                data = b""
            with self._changed:
                self._changed.wait_for(lambda: self._size < _HELD)
                self._held.append((time.monotonic() + self._seconds, data))
                self._size += len(data)
                self._changed.notify_all()

    def _write(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._held)
                due, data = self._held.popleft()
                self._size -= len(data)
                self._changed.notify_all()
            time.sleep(max(0.0, due - time.monotonic()))
            try:
                self._sink.sendall(data) if data else self._sink.shutdown(socket.SHUT_WR)
            except OSError:
                self._source.close()
                return
            if not data:
                return


def main(target: str, seconds: float) -> None:
    """Serve for ever."""
    host, _, port = target.rpartition(":")
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listener:
        print(
            json.dumps({"kind": "listening", "local": f"127.0.0.1:{listener.getsockname()[1]}"}), flush=True
        )
        while True:
            near, _ = listener.accept()
            far = socket.create_connection((host, int(port)))
            for sock in (near, far):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            _Line(near, far, seconds)
            _Line(far, near, seconds)


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]))
