"""What the library imports and we don't use is not executed, and is all there for whoever does use it."""

import subprocess
import sys

UNUSED = (
    "libp2p.abc",
    "libp2p.host.basic_host",
    "libp2p.kad_dht.kad_dht",
    "libp2p.network.swarm",
    "libp2p.pubsub.gossipsub",
    "libp2p.transport.websocket.transport",
    "libp2p.transport.quic.transport",
    "aioquic",
    "trio_websocket",
    "zeroconf",
    "urllib3",
    "httpx._client",
    "rich",
    "fastecdsa",
)

MEMORY = 70 * 1024  # KiB that a node may take


def run(*lines: str) -> None:
    """Run lines of Python in a process of their own."""
    subprocess.run([sys.executable, "-c", "\n".join(lines)], check=True, timeout=60)


def test_a_node_needs_little_of_the_library() -> None:
    run(
        "import sys",
        "import peertunnel.bind, peertunnel.expose, peertunnel.relay",
        f"found = [name for name in {UNUSED!r} if name in sys.modules]",
        "assert not found, f'peertunnel/deferred.py no longer keeps out {found}: see who imports them now'",
    )


def test_a_node_that_runs_keeps_within_its_memory() -> None:
    """As Linux counts it; what the kernel keeps of files for everybody is in it."""
    run(
        "import trio",
        "from peertunnel.node import NodeOptions, open_node",
        "from peertunnel.identity import Identity",
        "import peertunnel.bind, peertunnel.expose, peertunnel.cli.run",
        "async def main():",
        "    options = NodeOptions(identity=Identity.ephemeral(), listen=('/ip4/127.0.0.1/tcp/0',), mdns=False)",
        "    async with open_node(options):",
        "        status = dict(line.split(':', 1) for line in open('/proc/self/status'))",
        f"        assert int(status['VmRSS'].split()[0]) <= {MEMORY}, status['VmRSS']",
        "trio.run(main)",
    )


def test_whoever_uses_the_library_finds_all_of_it() -> None:
    run(
        "import inspect, peertunnel.node",
        "from libp2p import new_host",
        "import libp2p, libp2p.kad_dht, httpx, requests, psutil, dns.resolver",
        "assert callable(new_host) and libp2p.new_host is new_host",
        "assert libp2p.kad_dht.KadDHT and httpx.AsyncClient and requests.get and psutil.Process",
        "assert issubclass(dns.resolver.NXDOMAIN, Exception)",
        "assert 'def new_host' in inspect.getsource(libp2p)",
    )


def test_what_is_not_there_is_missed_as_always() -> None:
    run(
        "import peertunnel, libp2p",
        "for _ in range(2):",
        "    try: libp2p.nothing",
        "    except AttributeError as error: assert 'libp2p' in str(error) and 'nothing' in str(error)",
        "    else: raise SystemExit('found nothing')",
        "try: from libp2p import nothing",
        "except ImportError: pass",
        "else: raise SystemExit('imported nothing')",
    )


def test_help_imports_none_of_it() -> None:
    run(
        "import sys, peertunnel.cli.main",
        "assert not [name for name in sys.modules if name.partition('.')[0] in ('libp2p', 'trio', 'httpx')]",
    )
