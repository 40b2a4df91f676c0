"""Asking the provider's owner, at the terminal, whether a peer may come in."""

from collections.abc import Awaitable, Callable

import trio

from peertunnel.errors import StoreError
from peertunnel.events import Complaint, Emit, Warned
from peertunnel.known import KnownPeers, Verdict
from peertunnel.protocols.service import Service
from peertunnel.store import home

ANSWER_TIME = 55.0  # seconds to answer, after which it is no; the peer waits for 60

Ask = Callable[[str, float], Awaitable[str | None]]


class Owner:
    """Asks about one peer at a time, and remembers: yes for good, no until the program ends.

    Args:
        service: what the peer wants.
        emit: takes a warning when nobody has answered.
        ask: puts a question for so many seconds, and returns the answer if there is one; a Prompt's.
    """

    def __init__(self, service: Service, emit: Emit, ask: Ask) -> None:
        self._service = service
        self._emit = emit
        self._ask = ask
        self._accepted = KnownPeers(home() / "accepted_peers")
        self._refused: set[str] = set()
        self._complaint = Complaint()  # about the file
        self._turn = trio.Lock()

    async def ask(self, peer_id: str) -> bool:
        """Return whether a peer may come in."""
        label = self._service.label_to_know
        if label is None or peer_id in self._refused:
            return False
        async with self._turn:
            try:
                may_come = await self._decide(label, peer_id)
            except StoreError as error:  # the peer set this off, and only the owner can mend it
                self._complaint.make(error, self._emit)
                return False
            self._complaint.withdraw()
            return may_come

    async def _decide(self, label: str, peer_id: str) -> bool:
        """Look the peer up, or ask; raises StoreError."""
        if self._accepted.check(label, peer_id) is Verdict.SAME:
            return True
        if peer_id in self._refused:
            return False
        question = f"Peer {peer_id} knows the id of {self._service.name}. Let it in? [y/N] "
        answer = await self._ask(question, ANSWER_TIME)
        if answer is None:
            self._emit(Warned(f"Nobody answered for peer {peer_id}: it was not let in."))
            return False
        if answer.strip().lower() not in ("y", "yes"):
            self._refused.add(peer_id)
            return False
        self._accepted.remember(label, peer_id, beside=True)
        return True
