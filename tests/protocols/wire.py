"""What the tests of the wire share: cuts, frames written out by hand, and two sessions joined by a fake wire."""

from collections.abc import Iterable
from itertools import pairwise
from struct import pack

from peertunnel.protocols.yamux import MAX_STREAMS, ClientSession, DataReceived, Event, ServerSession, Session

DATA, UPDATE, PING, GO_AWAY = range(4)
SYN, ACK, FIN, RST = 1, 2, 4, 8
INITIAL = 262_144  # bytes; the window of every new stream, fixed by the spec
MIB = 1024 * 1024


def cut(wire: bytes, places: Iterable[int]) -> list[bytes]:
    """Cut bytes at the given places; those behind the end are left out."""
    inside = sorted(place for place in places if place < len(wire))
    return [wire[start:end] for start, end in pairwise([0, *inside, len(wire)])]


def frame(
    kind: int, flags: int, stream_id: int, length: int, payload: bytes = b"", version: int = 0
) -> bytes:
    """Write a frame; nothing needs to fit together."""
    return pack(">BBHII", version, kind, flags, stream_id, length) + payload


def data(stream_id: int, payload: bytes = b"", flags: int = 0) -> bytes:
    """Write a data frame."""
    return frame(DATA, flags, stream_id, len(payload), payload)


def update(stream_id: int, credit: int = 0, flags: int = 0) -> bytes:
    """Write a window update."""
    return frame(UPDATE, flags, stream_id, credit)


def received(stream_id: int, payload: bytes) -> DataReceived:
    """Return the event that says so."""
    return DataReceived(stream_id, memoryview(payload))


def feed(session: Session, wire: bytes, now: float = 0.0) -> list[Event]:
    """Let a session receive bytes."""
    return session.receive(memoryview(wire), now)


def merged(events: Iterable[Event]) -> list[Event]:
    """Join the neighbouring DataReceived of one stream: how payload was cut says nothing."""
    result: list[Event] = []
    for event in events:
        last = result[-1] if result else None
        if isinstance(event, DataReceived):
            payload = bytes(event.data)
            if isinstance(last, DataReceived) and last.stream_id == event.stream_id:
                payload = bytes(last.data) + payload
                result.pop()
            event = received(event.stream_id, payload)
        result.append(event)
    return result


def server_with_stream(now: float = 0.0) -> ServerSession:
    """Return a session with stream 1, opened by its peer, and nothing to send."""
    session = ServerSession(now)
    feed(session, update(1, flags=SYN), now)
    session.outgoing()
    return session


def client_with_stream(now: float = 0.0) -> ClientSession:
    """Return a session with stream 1, opened by itself and acknowledged, and nothing to send."""
    session = ClientSession(now)
    session.open_stream(now)
    feed(session, update(1, flags=ACK), now)
    session.outgoing()
    return session


class Pair:
    """Two sessions on one wire and one clock, which tests move by hand."""

    def __init__(self, max_streams: int = MAX_STREAMS) -> None:
        self.now = 0.0
        self.client = ClientSession(self.now, max_streams)
        self.server = ServerSession(self.now, max_streams)

    def exchange(self, delay: float = 0.0) -> tuple[list[Event], list[Event]]:
        """Carry bytes both ways until both fall silent, `delay` seconds each way; return what each end saw."""
        client_saw: list[Event] = []
        server_saw: list[Event] = []
        while self.client.queued or self.server.queued:
            up, down = bytes(self.client.outgoing()), bytes(self.server.outgoing())
            self.now += delay
            server_saw += feed(self.server, up, self.now)
            client_saw += feed(self.client, down, self.now)
        return merged(client_saw), merged(server_saw)

    def open(self) -> int:
        """Open a stream from the client and let both ends learn of it."""
        stream_id = self.client.open_stream(self.now)
        self.exchange()
        return stream_id


def measure(session: Session, round_trip: float, now: float) -> float:
    """Let a session measure a round trip to a made-up peer; return the time after it."""
    session.outgoing()
    session.send_ping(now)
    ping = bytes(session.outgoing())
    assert ping[:4] == b"\0\2\0\1"
    feed(session, b"\0\2\0\2" + ping[4:], now + round_trip)
    return now + round_trip
