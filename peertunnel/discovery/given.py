"""Peers whose addresses the user gave us, as --peer or in a link."""

import trio

from peertunnel.discovery import Announcement, Candidate
from peertunnel.protocols.service import Service


class Given:
    """Names the service's own addresses, once."""

    name = "the addresses that were given"

    async def announce(self, announcement: Announcement) -> None:
        """Do nothing until cancelled: who was given our addresses knows them."""
        await trio.sleep_forever()

    def find(self, service: Service) -> trio.MemoryReceiveChannel[Candidate]:
        """Name the peer that the service is pinned to, if addresses came with it; the channel ends then."""
        send, receive = trio.open_memory_channel[Candidate](1)
        with send:
            if service.peer_id is not None and service.addresses:
                send.send_nowait(Candidate(service.peer_id, service.addresses, "given"))
        return receive
