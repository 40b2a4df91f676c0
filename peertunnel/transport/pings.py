"""Pings of libp2p: whoever opens a stream gets back what it sends (libp2p specs, ping)."""

import trio
from libp2p.stream_muxer.exceptions import MuxedStreamError

from peertunnel.transport.stream import MuxedStream

PROTOCOL = "/ipfs/ping/1.0.0"
PATIENCE = 60.0  # seconds for the next ping; as in go-libp2p and py-libp2p


async def answer(stream: MuxedStream) -> None:
    """Send back what comes until the peer ends the stream, or has no more to say."""
    stream.is_chat = True
    try:
        while True:
            with trio.fail_after(PATIENCE):
                await stream.write(await stream.read())
    except (MuxedStreamError, trio.TooSlowError):
        stream.abort()
