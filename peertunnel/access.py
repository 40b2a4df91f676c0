"""Who may come in: whoever knows the secret, those on a list, those whom the owner nods to, or everybody."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol


class AllowedPeers(Protocol):
    """A list of peer ids that may change while we look."""

    def reload_if_changed(self) -> bool:
        """Read the list again if it has changed; return whether it has."""
        ...

    def __contains__(self, peer_id: object) -> bool: ...


Ask = Callable[[str], Awaitable[bool]]


@dataclass(frozen=True, slots=True)
class Access:
    """A provider's rules.

    Attributes:
        is_public: everybody may come in.
        allowed: these peers may, whether or not they know the secret, and nobody else; None for no such list.
        ask: asks the owner about a peer that has proven itself; None lets every such peer in.
    """

    is_public: bool = False
    allowed: AllowedPeers | None = None
    ask: Ask | None = None

    def admits_unproven(self, peer_id: str) -> bool:
        """Return whether a peer may come in by its id alone, which every connection authenticates."""
        return self.is_public or (self.allowed is not None and peer_id in self.allowed)

    def may_prove(self, peer_id: str) -> bool:
        """Return whether it helps a peer to know the secret."""
        return self.allowed is None or peer_id in self.allowed

    async def decide(self, peer_id: str) -> bool:
        """Return whether a peer that knows the secret may come in."""
        return self.ask is None or await self.ask(peer_id)

    def has_changed(self) -> bool:
        """Look at the list again; return whether it has changed."""
        return self.allowed is not None and self.allowed.reload_if_changed()
