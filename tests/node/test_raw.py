"""What the system is asked to do with the bytes of a connection."""

import fcntl
import socket
import struct
import sys
from contextlib import suppress

import pytest

from peertunnel.transport.raw import AHEAD, set_up

UNSENT = 0x894B  # SIOCOUTQNSD of Linux: bytes that are not sent yet
SEGMENT = 64 * 1024  # bytes that the system takes at a time, however little room there is


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux what it holds")
@pytest.mark.parametrize(("peer", "is_far"), [("192.0.2.1", True), ("127.0.0.1", False), ("::1", False)])
def test_few_bytes_wait_for_a_line_and_more_for_a_process_of_this_machine(peer: str, is_far: bool) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname()[:2]) as sock,
        listener.accept()[0],  # reads nothing
    ):
        set_up(sock, peer)
        sock.setblocking(False)
        with suppress(BlockingIOError):
            while True:
                sock.send(bytes(1024 * 1024))
        (unsent,) = struct.unpack("i", fcntl.ioctl(sock, UNSENT, bytes(4)))
    assert (unsent <= AHEAD + SEGMENT) is is_far
