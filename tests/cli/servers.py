"""Something to tunnel to: a server that gives back what it gets."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

SECONDS = 30  # for an answer, on a busy machine
BACKLOG = 4096  # connections; who finds Python's own 128 taken asks again only a second later


@contextmanager
def echo_server() -> Iterator[int]:
    """Serve on a port of 127.0.0.1 until the block ends: bytes come back, and so does the end of them."""
    with socket.create_server(("127.0.0.1", 0), backlog=BACKLOG) as listener:
        threading.Thread(target=_accept, args=(listener,), daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)


def _accept(listener: socket.socket) -> None:
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        threading.Thread(target=_echo, args=(connection,), daemon=True).start()


def _echo(connection: socket.socket) -> None:
    with connection, suppress(ConnectionError):
        while data := connection.recv(65536):
            connection.sendall(data)


def connect(port: int) -> socket.socket:
    """Open a client's connection."""
    return socket.create_connection(("127.0.0.1", port), timeout=SECONDS)


def ask(connection: socket.socket, text: bytes) -> bytes:
    """Send a text and give the answer of the same length."""
    connection.sendall(text)
    return receive(connection, len(text))


def receive(connection: socket.socket, size: int) -> bytes:
    """Receive so many bytes, fewer at the end of the connection."""
    data = b""
    while len(data) < size and (more := connection.recv(size - len(data))):
        data += more
    return data
