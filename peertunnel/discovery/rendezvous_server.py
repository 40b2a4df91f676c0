"""A rendezvous point: the registrations that other peers find each other by."""

import secrets
from collections import Counter
from typing import TYPE_CHECKING

import trio
from multiaddr import Multiaddr

from peertunnel.boundary import repeated
from peertunnel.peers import Caller, Peers
from peertunnel.protocols.kademlia.places import group_of
from peertunnel.protocols.record import MAX_ENVELOPE
from peertunnel.protocols.rendezvous import (
    MAX_COOKIE,
    MAX_NAMESPACE,
    PROTOCOL,
    Book,
    Discovered,
    Registered,
    decode,
    encode,
)
from peertunnel.protocols.rendezvous.book import RUN_BYTES, TICK

if TYPE_CHECKING:
    from trio_typing import TaskStatus

_MAX_REQUEST = MAX_ENVELOPE + MAX_NAMESPACE + MAX_COOKIE  # bytes; no request has both, so there is room


class RendezvousServer:
    """Serves /rendezvous/1.0.0 while run() runs.

    Args:
        peers: who answers for us.
    """

    def __init__(self, peers: Peers) -> None:
        self._peers = peers
        self.book = Book(secrets.token_bytes(RUN_BYTES))
        self.answers: Counter[tuple[str, ...]] = Counter()  # by request and status, in lower case

    async def run(self, task_status: "TaskStatus[None]" = trio.TASK_STATUS_IGNORED) -> None:
        """Answer until cancelled; started as soon as it does."""
        self._peers.answer(PROTOCOL, self._answer, limit=_MAX_REQUEST)
        task_status.started()
        try:
            await repeated(TICK, self._tick)
        finally:
            self._peers.stop_answering(PROTOCOL)

    async def _tick(self) -> None:
        self.book.tick(trio.current_time())

    def _answer(self, caller: Caller, data: bytes) -> bytes | None:
        message = decode(data)
        network = group_of(Multiaddr(caller.address).to_bytes())
        answer = self.book.answer(caller.peer_id, message, trio.current_time(), network)
        status = answer.status.name.lower() if isinstance(answer, Registered | Discovered) else "ok"
        self.answers[type(message).__name__.lower(), status] += 1
        return None if answer is None else encode(answer)
