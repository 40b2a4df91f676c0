"""One message there, one message back: how discovery talks to a peer, and answers one.

Messages travel behind their lengths (`protocols.delimited`). A stream carries one exchange when we ask; who asks us may
send one request after another on the same stream, as Go's Kademlia does.
"""

import logging
from collections import Counter

import trio
from libp2p.stream_muxer.exceptions import MuxedConnError, MuxedStreamEOF, MuxedStreamError

from peertunnel.peers import Answer, Caller, RequestError
from peertunnel.protocols.delimited import Delimited, encode_delimited, missing
from peertunnel.protocols.errors import RemoteProtocolError
from peertunnel.transport.connection import MuxedConnection
from peertunnel.transport.stream import MuxedStream

MAX_STREAMS = 512  # requests that are answered at a time, in all
MAX_STREAMS_PER_PEER = 16  # of them by one peer
MAX_STREAMS_PER_PLACE = MAX_STREAMS // 4  # of them from one network, or by relays there: peer ids are free
IDLE = 60.0  # seconds without a request, after which a stream is dropped; as in go-libp2p-kad-dht
_log = logging.getLogger(__name__)


async def request(connection: MuxedConnection, protocol: str, message: bytes, limit: int) -> bytes:
    """Send a message on a stream of its own and return the answer, of at most `limit` bytes; raises RequestError."""
    try:
        stream = await connection.open_tunnel(protocol)
        try:
            await stream.write(encode_delimited(message))
            answers = Delimited(limit)
            while True:
                for answer in answers.receive(await stream.read()):
                    return answer
        finally:
            stream.abort()  # whoever has answered has nothing more to say
    except (MuxedConnError, MuxedStreamEOF, MuxedStreamError, RemoteProtocolError) as error:
        raise RequestError(f"{connection.peer_id} did not answer: {error}") from error


async def read_message(stream: MuxedStream, limit: int) -> bytes:
    """Return the next message, of at most `limit` bytes, and leave what follows it on the stream.

    Raises:
        RemoteProtocolError: it is longer.
        MuxedStreamError: the stream has ended, or was aborted, before.
    """
    begun = bytearray()
    while size := missing(begun, limit):
        begun += await stream.read(size)
    (message,) = Delimited(limit).receive(begun)
    return message


async def tell(connection: MuxedConnection, protocol: str, message: bytes) -> None:
    """Send a message that has no answer; raises RequestError if the peer doesn't speak the protocol."""
    try:
        stream = await connection.open_tunnel(protocol)
        try:
            await stream.write(encode_delimited(message))
            await stream.close_write()
            await stream.read(1)  # until the peer, who has read it all then, ends its side
        except MuxedStreamEOF:
            pass
        finally:
            stream.abort()
    except (MuxedConnError, MuxedStreamError) as error:
        raise RequestError(f"{connection.peer_id} did not take a message: {error}") from error


class Answering:
    """Answers requests, several at a time but no more than we have room for.

    Args:
        answer: gives the answer to a request, None for a message that has none; RemoteProtocolError drops the stream.
        limit: bytes that a request may have.
        nursery: where the streams are served.
    """

    def __init__(self, answer: Answer, limit: int, nursery: trio.Nursery) -> None:
        self._answer = answer
        self._limit = limit
        self._nursery = nursery
        self._of_peers: Counter[str] = Counter()
        self._of_places: Counter[str] = Counter()
        self._streams: dict[MuxedStream, str] = {}  # and where from, the longest without a request first

    def accept(self, stream: MuxedStream) -> None:
        """Serve a stream, or abort it when there are too many."""
        place = stream.muxed_conn.place
        if self._of_peers[stream.peer] >= MAX_STREAMS_PER_PEER or not self._has_room(place):
            stream.abort()
            return
        stream.is_chat = True
        self._of_peers[stream.peer] += 1
        self._of_places[place] += 1
        self._streams[stream] = place
        self._nursery.start_soon(self._serve, stream, place)

    def _has_room(self, place: str) -> bool:
        """Return whether a place may have another stream, once one of the most crowded place has made room if need be."""
        if self._of_places[place] >= MAX_STREAMS_PER_PLACE:
            return False
        if len(self._streams) < MAX_STREAMS:
            return True
        most = max(self._of_places.values())
        if self._of_places[place] == most:
            return False
        idlest = next(stream for stream, there in self._streams.items() if self._of_places[there] == most)
        self._forget(idlest)  # now: more may come before its task runs
        idlest.abort()
        return True

    def _forget(self, stream: MuxedStream) -> None:
        place = self._streams.pop(stream, None)
        if place is None:
            return  # it has made room
        for counter, asker in ((self._of_peers, stream.peer), (self._of_places, place)):
            counter[asker] -= 1
            if not counter[asker]:
                del counter[asker]

    def _note_request(self, stream: MuxedStream) -> None:
        """Put a stream behind those that have been without a request for longer."""
        place = self._streams.pop(stream, None)
        if place is not None:
            self._streams[stream] = place

    async def _serve(self, stream: MuxedStream, place: str) -> None:
        caller = Caller(stream.peer, str(stream.muxed_conn.get_transport_addresses()[0]), place)
        try:
            await self._converse(stream, caller)
        except MuxedStreamEOF:
            await stream.close()
        except (MuxedStreamError, RemoteProtocolError, trio.TooSlowError) as error:
            _log.debug("a request by %s failed: %r", caller.peer_id, error)
            stream.abort()
        except Exception:  # noqa: BLE001  a task boundary
            _log.exception("a request by %s failed", caller.peer_id)
            stream.abort()
        finally:
            self._forget(stream)

    async def _converse(self, stream: MuxedStream, caller: Caller) -> None:
        requests = Delimited(self._limit)
        with trio.fail_after(IDLE) as patience:
            while True:
                for message in requests.receive(await stream.read()):
                    self._note_request(stream)
                    patience.deadline = trio.current_time() + IDLE
                    answer = self._answer(caller, message)
                    if answer is not None:
                        await stream.write(encode_delimited(answer))
