"""Securing a socket by Noise, which names the multiplexer on the way."""

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from peertunnel.identity import Identity
from peertunnel.protocols.handshake import Credentials, Handshake, Initiator, Responder, Secured, sign_static
from peertunnel.protocols.noise import Opener, Sealer, sealed_size
from peertunnel.transport.channel import Channel
from peertunnel.transport.ciphers import fastest_cipher
from peertunnel.transport.negotiation import read_exactly
from peertunnel.transport.noise import NoiseChannel
from peertunnel.transport.raw import RawSocket
from peertunnel.transport.reactor import Reactor

PROTOCOL = "/noise"
_LENGTH = 2  # bytes in front of every message


class WrongPeer(Exception):
    """Somebody else is at the other end."""


class Noise:
    """Does handshakes.

    Args:
        identity: who we are.
        muxers: the multiplexers that we speak, the best first.
    """

    def __init__(self, identity: Identity, muxers: tuple[str, ...]) -> None:
        static = X25519PrivateKey.generate()
        signature = sign_static(static, identity.sign)
        self._credentials = Credentials(identity.peer_id, static, signature, muxers, fastest_cipher())

    async def secure(self, raw: RawSocket, peer_id: str | None) -> "NoiseSession":
        """Secure a socket.

        Args:
            raw: connected; the peer is about to do the same.
            peer_id: who must be at the other end, None for anybody; only that peer is shown who we are.

        Raises:
            WrongPeer: it is somebody else.
            RemoteProtocolError: the peer does something else.
            OSError: the connection broke.
        """
        role: type[Handshake] = Initiator if raw.is_initiator else Responder
        handshake = role(self._credentials, X25519PrivateKey.generate())
        while True:
            secured = handshake.secured
            if secured is not None and peer_id not in (None, secured.peer_id):
                raise WrongPeer(f"the peer is {secured.peer_id}")
            if message := handshake.outgoing():
                await raw.write(message)
            if secured is not None:
                return NoiseSession(raw, secured)
            size = int.from_bytes(await read_exactly(raw, _LENGTH))
            handshake.receive(await read_exactly(raw, size))


class NoiseSession:
    """A secured socket, for as long as the multiplexer is being settled.

    Attributes:
        peer_id: the peer, as authenticated.
        muxer: the multiplexer, None where it has yet to be negotiated.
    """

    def __init__(self, raw: RawSocket, secured: Secured) -> None:
        self.peer_id = secured.peer_id
        self.muxer = secured.muxer
        self._raw = raw
        self._sealer = Sealer(secured.sending, cipher=secured.cipher)
        self._opener = Opener(secured.receiving, cipher=secured.cipher)
        self._early = b""

    async def read(self, n: int) -> bytes:
        """Return up to `n` bytes, b"" where a record has none."""
        if not self._early:
            length = await read_exactly(self._raw, _LENGTH)
            record = length + await read_exactly(self._raw, int.from_bytes(length))
            plaintext = bytearray(len(record))
            _, size = self._opener.open(memoryview(record), memoryview(plaintext))
            self._early = bytes(plaintext[:size])
        data, self._early = self._early[:n], self._early[n:]
        return data

    async def write(self, data: bytes) -> None:
        """Send all of `data`."""
        sealed = bytearray(sealed_size(len(data)))
        self._sealer.seal(memoryview(data), memoryview(sealed), 0)
        await self._raw.write(bytes(sealed))

    def channel(self, reactor: Reactor) -> Channel:
        """Give the session to the data path."""
        return NoiseChannel(self._raw.sock, reactor, self._sealer, self._opener, self._early)
