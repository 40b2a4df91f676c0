"""The reactor: what is ready is handled first, then sent, and only then is told what nobody waits for."""

import functools
import socket
from collections.abc import Callable

import trio

from peertunnel.transport.reactor import READ, Reactor


class _Handler:
    """Says what is done, and when: at once, with the rest that is sent, and afterwards."""

    def __init__(
        self, reactor: Reactor, sock: socket.socket, said: list[str], done: Callable[[], None]
    ) -> None:
        self._reactor = reactor
        self._sock = sock
        self._said = said
        self._done = done

    def on_readable(self) -> None:
        self._sock.recv(1)
        self._reactor.afterwards(lambda: self._said.append("told"))
        self._reactor.soon(self)
        self._said.append("handled")

    def flush_now(self) -> None:
        self._said.append("sent")
        self._done()

    def on_writable(self) -> None:
        raise AssertionError

    def on_failure(self, error: Exception) -> None:
        raise error


async def test_what_is_ready_is_handled_and_sent_before_anything_is_told() -> None:
    """Two sockets are ready at once: neither waits for what the other one has to tell."""
    reactor, said = Reactor(), list[str]()
    async with trio.open_nursery() as nursery:

        def done() -> None:
            if said.count("sent") == 2:
                nursery.cancel_scope.cancel()

        pairs = [socket.socketpair() for _ in range(2)]
        for near, far in pairs:
            near.setblocking(False)
            reactor.register(near, _Handler(reactor, near, said, done)).add(READ)
            far.send(b"?")
        nursery.start_soon(reactor.run)
    assert said == ["handled", "handled", "sent", "sent", "told", "told"]
    for near, far in pairs:
        near.close()
        far.close()


async def test_what_telling_leads_to_comes_after_all_that_is_told() -> None:
    """So lines that are told one by one are written together."""
    reactor, said = Reactor(), list[str]()
    near, far = socket.socketpair()
    near.setblocking(False)
    async with trio.open_nursery() as nursery:

        def tell(word: str) -> None:
            said.append(word)
            reactor.afterwards(lambda: said.append(f"after {word}"))
            if word == "second":
                reactor.afterwards(nursery.cancel_scope.cancel)

        class Talker(_Handler):
            def flush_now(self) -> None:
                for word in ("first", "second"):
                    reactor.afterwards(functools.partial(tell, word))

        reactor.register(near, Talker(reactor, near, [], lambda: None)).add(READ)
        far.send(b"?")
        nursery.start_soon(reactor.run)
    assert said == ["first", "second", "after first", "after second"]
    near.close()
    far.close()


def test_what_is_told_outside_of_a_handler_is_told_at_once() -> None:
    """There is nothing to wait for then."""
    said: list[str] = []
    Reactor().afterwards(lambda: said.append("told"))
    assert said == ["told"]
