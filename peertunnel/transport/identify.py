"""Who is who: identify, both halves, over one given connection (libp2p specs, identify).

Several parts of a node want to know a peer as soon as its connection stands; it is asked once for all of them. What a peer
tells unasked, because it has changed, counts for that connection as well.
"""

from typing import TYPE_CHECKING

import trio
from libp2p.stream_muxer.exceptions import MuxedConnError, MuxedStreamEOF, MuxedStreamError

from peertunnel.multiaddrs import address_texts
from peertunnel.peers import Identified
from peertunnel.protocols.delimited import Delimited, encode_delimited
from peertunnel.protocols.errors import RemoteProtocolError
from peertunnel.protocols.identify import PROTOCOL, PUSH, Identify
from peertunnel.transport.stream import MuxedStream

if TYPE_CHECKING:
    from peertunnel.transport.connection import MuxedConnection

TIMEOUT = 10.0  # seconds; go-libp2p gives it 5 s per stream, rust-libp2p 60 s
FRESH = 5.0  # seconds for which an answer serves whoever asks next; what is asked later may have changed
MAX_MESSAGE = 64 * 1024  # bytes of an answer in all; go-libp2p reads 8 KiB at most, twice


class Acquaintance:
    """What the peer of a connection tells of itself.

    Args:
        connection: on which to ask.

    Attributes:
        relied_on: protocols for which the connection is there; when the peer pushes that it speaks none of them any more, it
            takes no new streams.
    """

    def __init__(self, connection: "MuxedConnection") -> None:
        self.relied_on: frozenset[str] = frozenset()
        self._connection = connection
        self._answer = Identify()
        self._came = float("-inf")
        self._asking: trio.Lock | None = None  # most connections of a relay need none
        self._is_hearing = False

    @property
    def addresses(self) -> tuple[str, ...]:
        """The peer's multiaddrs, as far as it has told them by now."""
        return address_texts(self._answer.addresses, str(self._connection.peer_id))

    async def ask(self) -> Identify:
        """Return what is known since a moment ago, or came while we waited for it; ask otherwise.

        An empty answer, for which the peer may have had its reasons, serves only those who have waited for it.
        """
        self._asking = self._asking or trio.Lock()
        since = trio.current_time() - FRESH if self._answer != Identify() else trio.current_time()
        async with self._asking:
            if self._came < since:
                self._answer = await _ask(self._connection)
                self._came = trio.current_time()
        return self._answer

    async def ask_again(self) -> Identify:
        """Ask, however lately that was done."""
        self._came = float("-inf")
        return await self.ask()

    async def hear(self, stream: MuxedStream) -> Identify | None:
        """Take what the peer pushes, one push at a time; return what is known then, None if that is nothing new."""
        if self._is_hearing:
            stream.abort()
            return None
        self._is_hearing = True
        try:
            with trio.fail_after(TIMEOUT):
                data = bytearray()
                await _read(stream, data)
            if len(data) >= MAX_MESSAGE:
                raise RemoteProtocolError("there is no end to it")
            before, self._answer = self._answer, self._answer.updated(_decode(data))
            if self.relied_on and self.relied_on.isdisjoint(self._answer.protocols):
                self._connection.on_leaving()  # first: once the peer knows that we know, it refuses new streams
            await stream.close()
        except (MuxedStreamError, RemoteProtocolError, trio.TooSlowError):
            stream.abort()
            return None
        finally:
            self._is_hearing = False
        return None if self._answer == before else self._answer


async def request(connection: "MuxedConnection") -> Identify:
    """Return what the peer reports of itself; an empty answer if it does not in time, or not in this form."""
    return await connection.acquaintance.ask()


async def identified(connection: "MuxedConnection") -> Identified:
    """Return what the peer reports of itself, in our own words; nothing if it does not."""
    answer = await request(connection)
    return Identified(answer.protocols, address_texts(answer.addresses, str(connection.peer_id)))


async def _ask(connection: "MuxedConnection") -> Identify:
    data = bytearray()
    with trio.move_on_after(TIMEOUT):
        try:
            stream = await connection.open_tunnel(PROTOCOL, is_urgent=True)
            try:
                stream.finish()
                await _read(stream, data)
            finally:
                stream.abort()  # whoever tells no end would keep it open
        except (MuxedStreamError, MuxedConnError):
            return Identify()
    try:
        return _decode(data)
    except RemoteProtocolError:
        return Identify()


async def push(connection: "MuxedConnection", identity: Identify, peer_id: str) -> None:
    """Tell a peer unasked what we are now, and return when it has heard that, or will not.

    Args:
        connection: on which to tell it.
        identity: what to tell.
        peer_id: ours.
    """
    try:
        stream = await connection.open_tunnel(PUSH, is_urgent=True)
        try:
            await stream.write(encode_delimited(identity.encode(peer_id)))
            await stream.close_write()
            await stream.read(1)  # the end, since there is no answer
        finally:
            stream.abort()
    except (MuxedStreamError, MuxedConnError):
        pass


async def _read(stream: MuxedStream, data: bytearray) -> None:
    """Read to the end, or as much as we take."""
    try:
        while len(data) < MAX_MESSAGE:
            data += await stream.read()
    except MuxedStreamEOF:
        pass


def _decode(data: bytearray) -> Identify:
    # go-libp2p sends a signed record that is long behind the rest: several messages are read as one.
    return Identify.decode(b"".join(Delimited(MAX_MESSAGE).receive(data)))


async def answer(stream: MuxedStream, identity: Identify, peer_id: str) -> None:
    """Tell a peer who we are, and how we see it.

    Args:
        stream: on which it has asked.
        identity: what to tell.
        peer_id: ours.
    """
    with trio.move_on_after(TIMEOUT):
        try:
            await stream.write(encode_delimited(identity.encode(peer_id)))
            await stream.close()
            return
        except MuxedStreamError:
            pass
    stream.abort()
