"""Answering other DHT nodes (libp2p specs, kad-dht)."""

import random
import time

from peertunnel.discovery.dht_contacts import address_bytes, id_bytes
from peertunnel.peers import Caller
from peertunnel.protocols.errors import RemoteProtocolError
from peertunnel.protocols.kademlia.messages import (
    MAX_REQUEST,
    Connection,
    Contact,
    Message,
    Type,
    decode,
    encode_within,
)
from peertunnel.protocols.kademlia.places import Scope, farthest, group_of, within_reach
from peertunnel.protocols.kademlia.providers import Providers
from peertunnel.protocols.kademlia.table import Table

_TOLD_ADDRESSES = 8  # of one peer in an answer, so that twenty peers and some providers fit into 16 KiB


class Server:
    """Answers from the routing table and the provider records; values are neither kept nor known.

    Args:
        table: the peers that we know.
        providers: where the records are.
    """

    def __init__(self, table: Table, providers: Providers) -> None:
        self._table = table
        self._providers = providers

    def answer(self, caller: Caller, data: bytes) -> bytes | None:
        """Answer a request; raises RemoteProtocolError for what we don't do."""
        request = decode(data)
        match request.type:
            case Type.PING:
                return encode_within(Message(Type.PING))
            case Type.PUT_VALUE:
                raise RemoteProtocolError("we keep no values")
        if not request.key:
            raise RemoteProtocolError("a request has no key")
        peer_id, places = id_bytes(caller.peer_id), address_bytes([caller.address])
        if request.type is Type.ADD_PROVIDER:
            self._add(request, peer_id, places)
            return None
        scope = farthest(places)
        providers: list[Contact] = []
        if request.type is Type.GET_PROVIDERS:
            providers = self._providers.of(request.key, time.time())
            random.shuffle(providers)  # when not all fit, each gets its turn
        closer = self._table.closest(request.key, alive=True)
        answer = Message(
            request.type,
            request.key,
            tuple(told for c in closer if c.peer_id != peer_id and (told := _told(c, scope)).addresses),
            tuple(_told(contact, scope) for contact in providers),
        )
        return encode_within(answer, MAX_REQUEST)

    def _add(self, request: Message, peer_id: bytes, places: tuple[bytes, ...]) -> None:
        """Enter a record, if the caller speaks for itself and can be reached."""
        for contact in request.providers:
            addresses = within_reach(contact.addresses, farthest(places))
            if contact.peer_id == peer_id and addresses:
                group = next((group for place in places if (group := group_of(place))), None)
                self._providers.add(request.key, Contact(peer_id, addresses), group, time.time())


def _told(contact: Contact, scope: Scope) -> Contact:
    addresses = within_reach(contact.addresses, scope)[:_TOLD_ADDRESSES]
    return Contact(contact.peer_id, addresses, Connection.CAN_CONNECT)
