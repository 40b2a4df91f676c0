"""How a router is asked for a mapping, sans I/O: PCP (RFC 6887), NAT-PMP (RFC 6886) and UPnP IGD.

What comes from a router is as hostile as from any other machine of the network: it is bounded, and either read or
refused with RemoteProtocolError.
"""

from typing import Literal, TypeAlias

Transport: TypeAlias = Literal["tcp", "udp"]

PORT = 5351  # UDP, where routers answer PCP and NAT-PMP (RFC 6887 section 19.1, RFC 6886 section 3.1)
CLIENT_PORT = 5350  # UDP, where they tell everybody that they have restarted (the same)
ALL_HOSTS = "224.0.0.1"  # the group that they tell (RFC 6887 section 14.1.1, RFC 6886 section 3.2.1)
