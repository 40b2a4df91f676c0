"""What a NAT does with our port for QUIC, as it shows from what peers have seen."""

from dataclasses import dataclass, field
from typing import cast

import pytest
from multiaddr import Multiaddr

from peertunnel.protocols.punch import Mapping
from peertunnel.transport.connection import MuxedConnection
from peertunnel.transport.observed import Observed


@dataclass(eq=False)
class Connection:
    """As much of a connection as counts: whom it leads to, and from which port."""

    remote: str
    local_port: int
    is_closed: bool = field(default=False)

    def get_remote_address(self) -> tuple[str, int]:
        return self.remote, 4001


def observed(*seen: tuple[str, str, int]) -> Observed:
    """Have peers tell: from where, what, and of which port."""
    found = Observed(lambda: ())
    for remote, address, port in seen:
        connection = cast(MuxedConnection, Connection(remote, port))
        found.note(connection, Multiaddr(address).to_bytes())
    return found


KEPT, MAPPED, AGAIN = (f"/ip4/1.1.1.1/udp/{port}/quic-v1" for port in (4001, 50000, 50001))


@pytest.mark.parametrize(
    ("seen", "mapping"),
    [
        ([], Mapping.UNKNOWN),
        ([("8.8.8.8", KEPT, 4001)], Mapping.STEADY),
        ([("8.8.8.8", MAPPED, 4001)], Mapping.UNKNOWN),
        ([("8.8.8.8", MAPPED, 4001), ("8.8.8.8", MAPPED, 4001)], Mapping.UNKNOWN),
        ([("8.8.8.8", MAPPED, 4001), ("9.9.9.9", MAPPED, 4001)], Mapping.STEADY),
        ([("8.8.8.8", MAPPED, 4001), ("9.9.9.9", AGAIN, 4001)], Mapping.CHANGING),
        ([("8.8.8.8", KEPT, 4001), ("9.9.9.9", AGAIN, 4001)], Mapping.CHANGING),
        ([("8.8.8.8", MAPPED, 4001), ("9.9.9.9", AGAIN, 4002)], Mapping.STEADY),
        ([("8.8.8.8", "/ip4/1.1.1.1/tcp/4001", 4001)], Mapping.UNKNOWN),
        ([("192.168.1.3", "/ip4/192.168.1.2/udp/4001/quic-v1", 4001)], Mapping.UNKNOWN),
    ],
)
def test_a_mapping(seen: list[tuple[str, str, int]], mapping: Mapping) -> None:
    assert observed(*seen).quic_mapping is mapping


def test_only_public_addresses_of_quic_count() -> None:
    told = observed(
        ("8.8.8.8", "/ip4/1.1.1.1/tcp/4001", 4001),
        ("192.168.1.3", "/ip4/192.168.1.2/udp/1/quic-v1", 4001),
        ("9.9.9.9", MAPPED, 4001),
    )
    assert told.quic == (MAPPED,)
    assert [connection.get_remote_address()[0] for connection in told.quic_observers] == ["9.9.9.9"]  # type: ignore[index]
