"""Circuit relay v2, sans I/O (libp2p specs, relay/circuit-v2): one module for each of the three parties.

`client` reserves at a relay and connects through it, `destination` is called by it, `relay` is the relay's own side,
and `book` what a relay keeps in mind. Messages are given and taken without their length.
"""

from peertunnel.protocols.circuit.messages import HOP, MAX_MESSAGE, STOP, CircuitRefused, Limit, Status
from peertunnel.protocols.circuit.voucher import Voucher

__all__ = ["HOP", "MAX_MESSAGE", "STOP", "CircuitRefused", "Limit", "Status", "Voucher"]
