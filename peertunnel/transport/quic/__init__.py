"""QUIC (/quic-v1): where the engine was built; everything else works without."""

from importlib import import_module
from typing import TYPE_CHECKING

from multiaddr import Multiaddr

if TYPE_CHECKING:
    from peertunnel.identity import Identity
    from peertunnel.transport.quic.endpoint import Accept
    from peertunnel.transport.quic.transport import Quic
    from peertunnel.transport.reactor import Reactor
    from peertunnel.transport.router import Router

_HOSTS = ("ip4", "ip6", "dns", "dns4", "dns6")


def is_available() -> bool:
    """Return whether this installation speaks QUIC."""
    return why_not() is None


def why_not() -> str | None:
    """Return why this installation doesn't speak QUIC, and what to do; None if it does."""
    try:
        import_module("peertunnel.transport.quic._engine")
    except ModuleNotFoundError:
        return "built without Rust; install Rust 1.85 or later, then peertunnel from its sources"
    except ImportError as error:
        return f"the engine does not load: {error}"
    return None


def create_quic(
    identity: "Identity", reactor: "Reactor", router: "Router", accept: "Accept"
) -> "Quic | None":
    """Return a transport that dials and listens over QUIC; None where the engine is missing."""
    if not is_available():
        return None
    from peertunnel.transport.quic.transport import Quic

    return Quic(identity, reactor, router, accept)


def is_quic(address: Multiaddr) -> bool:
    """Return whether an address is an IP address or a name, a UDP port and QUIC."""
    names = [protocol.name for protocol in address.protocols()]
    is_ours = len(names) >= 3 and names[0] in _HOSTS and names[1:3] == ["udp", "quic-v1"]
    return is_ours and names[3:] in ([], ["p2p"])
