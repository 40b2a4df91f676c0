"""What the destination of a circuit reads and says on STOP: who calls, and yes or no."""

from peertunnel.protocols.circuit.messages import (
    Limit,
    Status,
    StopKind,
    decode_limit,
    decode_peer,
    kind_of,
)
from peertunnel.protocols.errors import RemoteProtocolError
from peertunnel.protocols.protobuf import decode_message, encode_message


def read_stop(message: bytes) -> tuple[str, Limit | None]:
    """Read a relay's call: the peer id of the caller (base58) as the relay says, and the circuit's limit.

    Raises:
        RemoteProtocolError: it is no call; answer with MALFORMED_MESSAGE, or not at all.
    """
    fields = decode_message(message)
    if kind_of(fields) != StopKind.CONNECT:
        raise RemoteProtocolError("a relay says something else than who calls")
    return decode_peer(fields.blob(2)), decode_limit(fields, 3)


def accept_stop() -> bytes:
    """Write that we take the call: the stream is the circuit from here on."""
    return refuse(Status.OK)


def refuse(status: Status) -> bytes:
    """Write that we don't, and why."""
    return encode_message([(1, int(StopKind.STATUS)), (4, int(status))])
