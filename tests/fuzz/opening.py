"""Targets: how a connection begins, and what a peer tells of itself then."""

from functools import cache
from typing import TYPE_CHECKING

import trio
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from peertunnel.protocols.address import split_address
from peertunnel.protocols.errors import RemoteProtocolError
from peertunnel.protocols.handshake import Credentials, Handshake, Initiator, Responder, sign_static
from peertunnel.protocols.identify import MAX_ADDRESSES, Identify

from .inputs import OPENER, OPENER_KEY, SCRIPT, STATIC, YAMUX, opener_payload
from .script import Script

if TYPE_CHECKING:
    from peertunnel.host import Host

_OURS = Credentials(OPENER, STATIC, sign_static(STATIC, OPENER_KEY.sign), (YAMUX,))


class _Peer(Initiator):
    """A peer that keeps to the pattern, and shows what it likes."""

    shown = b""

    def _our_payload(self) -> bytes:
        return self._symmetric.seal(self.shown)


def handshake(data: bytes) -> None:
    """Whoever is let in has shown a key that signed its static key; whatever else comes is an error of the peer's."""
    script = Script(data)
    shown, is_peer = b"".join(script.parts()), script.choose(8) > 0
    us: Handshake = Responder(_OURS, X25519PrivateKey.generate())
    try:
        if is_peer:
            peer = _Peer(_OURS, X25519PrivateKey.generate())
            peer.shown = shown
            us.receive(peer.outgoing()[2:])
            peer.receive(us.outgoing()[2:])
            us.receive(peer.outgoing()[2:])
        else:
            us.receive(shown)
            us.receive(shown)
    except RemoteProtocolError:
        assert us.secured is None
        assert not (is_peer and shown == opener_payload())
        return
    assert us.secured is not None and us.secured.peer_id == OPENER
    assert us.secured.muxer in (None, YAMUX)


def identify(data: bytes) -> None:
    """An answer is read within bounds, or it is an error of the peer's."""
    try:
        told = Identify.decode(b"".join(Script(data).parts()))
    except RemoteProtocolError:
        return
    assert len(told.addresses) <= MAX_ADDRESSES
    assert Identify.decode(told.encode(OPENER)) == told


@cache
def _host() -> "Host":
    from peertunnel.host import Host  # libp2p takes a second to load
    from peertunnel.identity import Identity

    return Host(Identity.ephemeral())


def addresses(data: bytes) -> None:
    """Whatever a peer tells of where it is, as bytes or as text, can be dialled or is passed over."""
    from libp2p.peer.id import ID

    from peertunnel.multiaddrs import address_texts, readable
    from peertunnel.transport.circuits import relay_of

    told = [data[SCRIPT:], *Script(data).parts()]
    texts = address_texts(told, OPENER)
    assert all(split_address(text)[1] == OPENER for text in texts)
    heard = [*texts, *(part.decode(errors="replace") for part in told)]
    assert all((relay_of(text) is None) == ("/p2p-circuit" not in text) for text in heard)
    found = list(readable(heard))
    for transport in _host().network.transports:
        usable = [place for place in found if transport.can_dial(place) and not str(place).startswith("/dns")]
        if usable:
            for attempt in trio.run(transport.plan, ID.from_base58(OPENER), usable):
                relay = relay_of(str(attempt.address))
                assert relay is None or str(ID.from_base58(relay)) == relay
