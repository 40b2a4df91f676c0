"""Questions and answers over UDP with the router, which are lost now and then."""

import socket
from collections.abc import Callable
from typing import TypeVar

import trio

from peertunnel.portmap.gateway import Gateway
from peertunnel.portmap.router import NoAnswer
from peertunnel.protocols.errors import RemoteProtocolError
from peertunnel.protocols.portmap import PORT
from peertunnel.protocols.portmap.pcp import MAX_MESSAGE

T = TypeVar("T")
_FIRST_INTERVAL = 0.25  # seconds to the next try, doubling (RFC 6886 section 3.1)
_TRIES = 4  # so 3.75 s in all: a router is a few milliseconds away


async def open_exchange(gateway: Gateway) -> trio.socket.SocketType:
    """Open a socket that hears nobody but the router; raises NoAnswer."""
    version = gateway.own.version
    scope = () if version == 4 else (0, gateway.index)
    try:
        sock = trio.socket.socket(socket.AF_INET if version == 4 else socket.AF_INET6, socket.SOCK_DGRAM)
        try:
            await sock.bind((str(gateway.own), 0, *scope))
            await sock.connect((str(gateway.ip), PORT, *scope))
        except BaseException:
            sock.close()
            raise
    except OSError as error:
        raise NoAnswer(str(error)) from error
    return sock


async def ask(sock: trio.socket.SocketType, request: bytes, choose: Callable[[bytes], T | None]) -> T:
    """Send a request, again and again, and return the answer; raises NoAnswer.

    choose: reads a datagram; gives None, or raises RemoteProtocolError, for what is no answer to this request.
    """
    interval = _FIRST_INTERVAL
    try:
        for _ in range(_TRIES):
            await sock.send(request)
            with trio.move_on_after(interval):
                return await _answer(sock, choose)
            interval *= 2
    except OSError as error:  # a port that nobody listens on is known at once, by ICMP
        raise NoAnswer(str(error)) from error
    raise NoAnswer("no answer")


async def _answer(sock: trio.socket.SocketType, choose: Callable[[bytes], T | None]) -> T:
    while True:
        data = await sock.recv(MAX_MESSAGE + 1)
        try:
            answer = choose(data)
        except RemoteProtocolError:
            continue
        if answer is not None:
            return answer
