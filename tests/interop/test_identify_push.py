"""What a Go peer pushes when it has changed is known, without a question: here that it can be reached through us."""

from pathlib import Path

from peertunnel.host import open_host
from peertunnel.identity import Identity
from peertunnel.transport.relay_server import RelayServer
from tests.interop.peers import running
from tests.node.pair import LOOPBACK, until

LISTEN = ("--listen", LOOPBACK[0], "--tcp-only")


async def test_a_go_peer_tells_of_its_reservation(gopeer: Path) -> None:
    async with open_host(Identity.ephemeral(), LOOPBACK) as relay:
        await relay.nursery.start(RelayServer(relay).run)
        command = [str(gopeer), "tunnel-listen", "--target", "127.0.0.1:1", *LISTEN]
        async with running([*command, "--relay", relay.addresses[0]]) as peer:
            peer_id = str((await peer.event("ready"))["peer_id"])
            (connection,) = relay.connections(peer_id)

            def tells_of_us() -> bool:
                return any(relay.peer_id in address for address in connection.acquaintance.addresses)

            await until(tells_of_us)
