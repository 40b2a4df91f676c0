"""What the three ways of asking a router have in common."""

from dataclasses import dataclass
from typing import ClassVar, Protocol

from peertunnel.interfaces import IPAddress
from peertunnel.portmap.listener import Listener


class NoAnswer(Exception):
    """The router did not answer in time, or nothing that makes sense: it is lost, or never spoke this protocol."""


class Refusal(Exception):
    """The router answered that it does not map this port; its message says why."""


@dataclass(frozen=True, slots=True)
class Mapping:
    """A port of ours that can be reached from outside. lease: seconds that this lasts, 0 for ever."""

    listener: Listener
    external: IPAddress
    external_port: int
    lease: int


class Router(Protocol):
    """A router that speaks one of the protocols."""

    name: ClassVar[str]

    async def map(self, listener: Listener, lease: int, before: Mapping | None) -> Mapping:
        """Map a port, or renew its mapping.

        Args:
            lease: seconds that we would like it to last.
            before: what it was mapped to before, which we would like again.

        Raises:
            NoAnswer: the router is lost.
            Refusal: it doesn't map this port.
        """
        ...

    async def unmap(self, mapping: Mapping) -> None:
        """End a mapping; raises NoAnswer and Refusal."""
        ...

    async def aclose(self) -> None:
        """Close what is open towards the router; mappings stay."""
        ...
