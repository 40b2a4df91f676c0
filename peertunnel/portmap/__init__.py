"""Port mapping: the router is asked to send strangers' connections on to us, by PCP, NAT-PMP or UPnP.

1. `gateway` says where the router is, and `search` asks it in all three ways side by side.
2. `keeper` takes the first way that grants a mapping, renews it, and removes it at the end.
3. `mapper` has a keeper for each router, and tells the addresses that strangers can dial now.

Without a router that does such things nothing happens but a question now and then.
"""

from peertunnel.portmap.listener import Listener, listeners
from peertunnel.portmap.mapper import PortMapper
from peertunnel.portmap.status import Status

__all__ = ["Listener", "PortMapper", "Status", "listeners"]
