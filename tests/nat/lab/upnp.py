"""miniupnpd, as it runs on real routers: UPnP IGD, NAT-PMP and PCP."""

import tempfile
import uuid
from pathlib import Path

from tests.nat.lab.namespaces import run
from tests.nat.lab.rules import LAN, WAN

_SETTINGS = f"""\
ext_ifname={WAN}
listening_ip={LAN}
ipv6_disable=yes
enable_upnp=yes
enable_natpmp=yes
secure_mode=yes
upnp_table_name=upnp
upnp_nat_table_name=upnp
upnp_forward_chain=forwarded
upnp_nat_chain=mapped
upnp_nat_postrouting_chain=masked
uuid={{uuid}}
allow 1024-65535 0.0.0.0/0 1024-65535
deny 0-65535 0.0.0.0/0 0-65535
"""


def start_upnp(namespace: str) -> None:
    """Run miniupnpd on a router; it ends with the lab."""
    with tempfile.TemporaryDirectory() as folder:
        settings = Path(folder, "miniupnpd.conf")
        settings.write_text(_SETTINGS.format(uuid=uuid.uuid4()))
        # It returns once it listens, and works on as a daemon.
        run(["miniupnpd", "-f", str(settings), "-P", str(Path(folder, "pid"))], namespace=namespace)
