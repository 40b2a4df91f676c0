"""What two peers say over a circuit before they punch a hole: `protocols.dcutr` on a stream."""

from collections.abc import Sequence

import trio
from libp2p.stream_muxer.exceptions import MuxedConnError, MuxedStreamEOF, MuxedStreamError

from peertunnel.protocols.dcutr import PROTOCOL, Initiator, Responder, Synchronised
from peertunnel.protocols.errors import RemoteProtocolError
from peertunnel.transport.connection import MuxedConnection
from peertunnel.transport.stream import MuxedStream

EXCHANGE = 15.0  # seconds for all of it; go-libp2p gives it a minute


class ExchangeError(Exception):
    """The peer doesn't agree on an attempt; it may know more in a moment."""


async def initiate(circuit: MuxedConnection, addresses: Sequence[bytes]) -> Synchronised:
    """Ask the peer at the other end of a circuit for an attempt.

    Args:
        addresses: binary multiaddrs of ours.

    Raises:
        ExchangeError: there will be none.
    """
    try:
        with trio.fail_after(EXCHANGE):  # the peer may grant no stream
            stream = await circuit.open_tunnel(PROTOCOL)
    except (MuxedConnError, trio.TooSlowError) as error:
        raise ExchangeError(str(error) or "it took too long") from error
    end = Initiator(addresses)
    end.start(trio.current_time())
    return await _converse(stream, end)


async def respond(stream: MuxedStream, addresses: Sequence[bytes]) -> Synchronised:
    """Answer a peer that asks for an attempt; see `initiate`."""
    return await _converse(stream, Responder(addresses))


async def _converse(stream: MuxedStream, end: Initiator | Responder) -> Synchronised:
    try:
        with trio.fail_after(EXCHANGE):
            while True:
                if data := end.outgoing():
                    await stream.write(data)
                if agreed := end.receive(await stream.read(), trio.current_time()):
                    if data := end.outgoing():
                        await stream.write(data)
                    stream.finish()  # the peer may dial from now on: nothing is waited for
                    return agreed[0]
    except (
        MuxedConnError,
        MuxedStreamEOF,
        MuxedStreamError,
        RemoteProtocolError,
        trio.TooSlowError,
    ) as error:
        stream.abort()
        raise ExchangeError(str(error) or "it took too long") from error
    except trio.Cancelled:
        stream.abort()
        raise
