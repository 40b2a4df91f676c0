"""Asking DHT nodes: one of them, or ever closer ones, with the routing table kept up to date by every answer."""

import logging
from collections.abc import Callable
from dataclasses import replace

import trio

from peertunnel.boundary import contained
from peertunnel.discovery.dht_contacts import address_texts, id_bytes, id_text
from peertunnel.peers import Peers, RequestError
from peertunnel.protocols.errors import RemoteProtocolError
from peertunnel.protocols.kademlia.lookup import SLOW, Lookup
from peertunnel.protocols.kademlia.messages import MAX_ANSWER, Contact, Message, Type, decode, encode
from peertunnel.protocols.kademlia.places import Scope, farthest, groups_of, within_reach
from peertunnel.protocols.kademlia.table import Table

TIMEOUT = 10.0  # seconds for a request with its dial; as in go-libp2p-kad-dht
_log = logging.getLogger(__name__)

Heard = Callable[[Message], bool]


class Network:
    """The DHT as a client sees it.

    Args:
        peers: how to talk to other peers.
        protocol: the DHT's libp2p protocol id.
    """

    def __init__(self, peers: Peers, protocol: str) -> None:
        self.own_id = id_bytes(peers.peer_id)
        self.table = Table(self.own_id)
        self.protocol = protocol
        self._peers = peers
        self._news = trio.Event()

    async def known(self) -> None:
        """Wait until there is anybody to ask."""
        while not len(self.table):
            await self._news.wait()

    def answered(self, contact: Contact) -> None:
        """Note that a peer serves this DHT."""
        if self.table.answered(contact, groups_of(contact.addresses), trio.current_time()):
            self._news.set()
            self._news = trio.Event()

    async def ask(self, contact: Contact, request: Message) -> Message:
        """Ask one node; the answer holds only addresses that it may tell of.

        Raises:
            RequestError: no answer, or not to this request.
        """
        asked = trio.current_time()
        contact = self._with_known_addresses(contact)
        try:
            answer = await self._request(contact, request)
        except RequestError:
            self.table.failed(contact.peer_id)
            raise
        except trio.Cancelled:
            if trio.current_time() >= asked + SLOW:
                self.table.failed(contact.peer_id)
            raise
        self.answered(contact)
        scope = farthest(contact.addresses)
        return replace(
            answer,
            closer=tuple(_within(found, scope) for found in answer.closer),
            providers=tuple(_within(found, scope) for found in answer.providers),
        )

    async def tell(self, contact: Contact, message: Message) -> bool:
        """Tell one node something that has no answer; return whether it took it."""
        if (peer_id := id_text(contact.peer_id)) is None:
            return False
        addresses = address_texts(self._with_known_addresses(contact), peer_id)
        try:
            await self._peers.tell(peer_id, addresses, self.protocol, encode(message), within=TIMEOUT)
        except RequestError as error:
            _log.debug("%s", error)
            return False
        return True

    async def walk(self, request: Message, heard: Heard = lambda _: False) -> list[Contact]:
        """Ask ever closer nodes for the request's key until nobody knows closer ones.

        Args:
            heard: takes each answer as it comes; True ends the walk.

        Returns:
            The closest nodes that answered, twenty at most.
        """
        lookup = Lookup(self.own_id, request.key, self.table.closest(request.key))
        await contained(
            self._walk, lookup, request, heard
        )  # strangers' answers must not end more than a walk
        return lookup.closest()

    async def find_node(self, key: bytes, heard: Heard = lambda _: False) -> list[Contact]:
        """Walk to the nodes closest to a key."""
        return await self.walk(Message(Type.FIND_NODE, key), heard)

    async def _walk(self, lookup: Lookup, request: Message, heard: Heard) -> None:
        async with trio.open_nursery() as nursery:
            walk = _Walk(self, lookup, request, heard, nursery.cancel_scope)
            while not lookup.is_done:
                for contact in lookup.outgoing(trio.current_time()):
                    nursery.start_soon(walk.ask, contact)
                news = walk.news = trio.Event()
                with trio.move_on_at(lookup.deadline()):
                    await news.wait()
                lookup.tick(trio.current_time())
            nursery.cancel_scope.cancel()

    def _with_known_addresses(self, contact: Contact) -> Contact:
        """Put the addresses at which a peer has answered before in front, lest whoever tells false ones hide it."""
        known = self.table.addresses(contact.peer_id)
        return replace(contact, addresses=tuple(dict.fromkeys(known + contact.addresses)))

    async def _request(self, contact: Contact, request: Message) -> Message:
        if (peer_id := id_text(contact.peer_id)) is None:
            raise RequestError("no peer has such an id")
        data = await self._peers.request(
            peer_id,
            address_texts(contact, peer_id),
            self.protocol,
            encode(request),
            limit=MAX_ANSWER,
            within=TIMEOUT,
        )
        try:
            answer = decode(data)
        except RemoteProtocolError as error:
            raise RequestError(f"{peer_id} answered nonsense: {error}") from error
        if answer.type is not request.type:
            raise RequestError(f"{peer_id} answered something else")
        return answer


class _Walk:
    """One walk's requests and what comes of them."""

    def __init__(
        self, network: Network, lookup: Lookup, request: Message, heard: Heard, scope: trio.CancelScope
    ) -> None:
        self.news = trio.Event()
        self._network = network
        self._lookup = lookup
        self._request = request
        self._heard = heard
        self._scope = scope

    async def ask(self, contact: Contact) -> None:
        """Ask one node for the lookup."""
        try:
            answer = await self._network.ask(contact, self._request)
        except RequestError as error:
            _log.debug("%s", error)
            self._lookup.failed(contact.peer_id)
        else:
            self._lookup.receive(contact.peer_id, [found for found in answer.closer if found.addresses])
            if self._heard(answer):
                self._scope.cancel()
        self.news.set()


def _within(contact: Contact, scope: Scope) -> Contact:
    addresses = within_reach(contact.addresses, scope)
    return contact if addresses == contact.addresses else replace(contact, addresses=addresses)
