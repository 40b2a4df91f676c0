"""Having a peer dial us back: `protocols.autonat`, as the client, over a connection to a server.

One address at a time is asked about: rust-libp2p dials the last one of a list and says that it was the first. That a
server reached us is believed, in version 2, if it showed our nonce on a connection of its own.
"""

import secrets
from dataclasses import dataclass, field

import trio
from libp2p.peer.id import ID
from libp2p.stream_muxer.exceptions import MuxedConnError, MuxedStreamEOF, MuxedStreamError

from peertunnel.boundary import contained
from peertunnel.peers import RequestError
from peertunnel.protocols.autonat import v1
from peertunnel.protocols.autonat.exchange import Client
from peertunnel.protocols.autonat.messages import DIAL_REQUEST as V2
from peertunnel.protocols.autonat.messages import (
    MAX_DIAL_BACK,
    MAX_NONCE,
    DialResponse,
    DialStatus,
    Status,
    decode_dial_back,
    encode_dial_back_response,
)
from peertunnel.protocols.delimited import encode_delimited
from peertunnel.protocols.errors import RemoteProtocolError
from peertunnel.transport.candidates import read_place
from peertunnel.transport.connection import MuxedConnection
from peertunnel.transport.requests import read_message, request
from peertunnel.transport.stream import MuxedStream

ANSWER = 20.0  # seconds for a server's answer; go-libp2p's dials for 10 or 15, and may wait for 3 before
SHOW = 5.0  # seconds for a nonce on a stream of its own, and behind the answer that it was shown; go-libp2p's
MAX_SHOWN = 16  # streams at a time on which nonces are read
_BROKEN = (MuxedConnError, MuxedStreamEOF, MuxedStreamError, RemoteProtocolError)


@dataclass(slots=True, eq=False)
class _Question:
    """One that is being asked over a connection; shown is set when the server has reached us."""

    connection: MuxedConnection
    shown: trio.Event = field(default_factory=trio.Event)


class DialBacks:
    """Asks servers to dial us back, and hears them when they do.

    Args:
        nursery: where their streams are served.
    """

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self._questions: dict[int, _Question] = {}
        self._streams = 0

    async def ask(self, connection: MuxedConnection, place: bytes) -> bool | None:
        """Ask a server of version 2 to dial an address of ours.

        Args:
            place: binary multiaddr.

        Returns:
            Whether it reached us; None if it can't or doesn't say.
        """
        nonce = secrets.randbelow(MAX_NONCE) + 1
        self._questions[nonce] = question = _Question(connection)
        try:
            with trio.move_on_after(ANSWER):
                answer = await _answer(connection, Client([place], nonce))
                if answer.status is not Status.OK:
                    return None
                if answer.dial_status is DialStatus.DIAL_ERROR:
                    return question.shown.is_set()
                with trio.move_on_after(SHOW):
                    await question.shown.wait()
                    return True
        except _BROKEN:
            pass
        finally:
            del self._questions[nonce]
        return None

    def accept(self, stream: MuxedStream) -> None:
        """Take a stream of the dial-back protocol."""
        if self._streams >= MAX_SHOWN or not self._questions:
            stream.abort()
            return
        self._streams += 1
        self._nursery.start_soon(contained, self._hear, stream)

    async def _hear(self, stream: MuxedStream) -> None:
        try:
            with trio.fail_after(SHOW):
                nonce = decode_dial_back(await read_message(stream, MAX_DIAL_BACK))
                question = self._questions.get(nonce)
                connection = stream.muxed_conn
                if question is None or connection is question.connection or connection.is_initiator:
                    stream.abort()
                    return
                question.shown.set()
                await stream.write(encode_delimited(encode_dial_back_response()))
                await stream.close()
        except (*_BROKEN, trio.TooSlowError):
            stream.abort()
        finally:
            self._streams -= 1


async def ask_v1(connection: MuxedConnection, own_id: ID, place: bytes) -> bool | None:
    """Ask a server of version 1 to dial an address of ours; see `DialBacks.ask`.

    It may dial where the connection comes from, too, and if it got through there, nothing is known of the other address.
    """
    message = v1.encode(v1.Dial(own_id.to_bytes(), (place,)))
    try:
        with trio.fail_after(ANSWER):
            answer = v1.decode(await request(connection, v1.PROTOCOL, message, v1.MAX_MESSAGE))
    except (RequestError, RemoteProtocolError, trio.TooSlowError):
        return None
    if not isinstance(answer, v1.DialResponse):
        return None
    if answer.status is v1.Status.OK:
        return True if read_place(answer.address) == place else None
    return False if answer.status is v1.Status.DIAL_ERROR else None


async def _answer(connection: MuxedConnection, client: Client) -> DialResponse:
    stream = await connection.open_tunnel(V2)
    try:
        client.ask()
        while True:
            await stream.write(client.outgoing())
            for answer in client.receive(await stream.read()):
                return answer
    finally:
        stream.abort()  # whoever has answered has nothing more to say
