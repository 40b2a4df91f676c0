"""A yamux session: frames in, events out; the table of streams and their windows.

Nothing here waits or copies payload: data that arrived is reported as views into what `receive` was given, and data
to send is framed in place, in the buffer that it was read into. Whoever owns a session drains `outgoing()` after
every call and calls `tick` when `deadline()` has come.
"""

from peertunnel.protocols.errors import LocalProtocolError, RemoteProtocolError
from peertunnel.protocols.yamux.events import (
    DataReceived,
    Event,
    GoAwayReceived,
    PeerTimedOut,
    PingAnswered,
    StreamAcknowledged,
    StreamFinished,
    StreamOpened,
    StreamReset,
    WindowOpened,
)
from peertunnel.protocols.yamux.frames import (
    HEADER,
    HEADER_SIZE,
    VERSION,
    Flag,
    FrameType,
    GoAwayCode,
    encode,
)
from peertunnel.protocols.yamux.keepalive import Keepalive
from peertunnel.protocols.yamux.window import INITIAL_WINDOW, Growth, ReceiveWindow

MAX_STREAMS = 1024  # open streams that a peer may have with us; go-yamux: 1000, rust-yamux: 512
FEW_STREAMS = 400  # of both ends that any peer bears; rust-yamux ends at 512, and forgets later than we do
MAX_UNACKNOWLEDGED = 256  # streams of ours without the peer's ACK; the accept backlog of go- and rust-yamux
MAX_PAYLOAD = 65_507  # bytes of a data frame, so that with its header it fills one Noise record
MAX_REPLIES = 1024 * 1024  # bytes of answers that a peer may leave unread before it counts as hostile
_MAX_WINDOW = 2**32 - 1  # bytes; the length field
_DATA, _WINDOW_UPDATE, _PING, _GO_AWAY = (int(frame_type) for frame_type in FrameType)
_SYN, _ACK, _FIN, _RST = (int(flag) for flag in (Flag.SYN, Flag.ACK, Flag.FIN, Flag.RST))
_ANY_FLAG = _SYN | _ACK | _FIN | _RST


class _Stream:
    __slots__ = ("acknowledged", "finished", "id", "peer_finished", "receive_window", "send_window")

    def __init__(self, stream_id: int, acknowledged: bool, window: ReceiveWindow) -> None:
        self.id = stream_id
        self.acknowledged = acknowledged
        self.finished = False
        self.peer_finished = False
        self.send_window = INITIAL_WINDOW
        self.receive_window = window


class Session:
    """One end of a yamux session; use ClientSession where we dialled and ServerSession where we listened.

    Args:
        now: seconds on any clock that never runs backwards.
        max_streams: streams that the peer may have open at a time; the next one is refused with RST.
    """

    _first_id: int

    def __init__(self, now: float, max_streams: int = MAX_STREAMS) -> None:
        self.streams_unacknowledged = 0
        self.is_going_away = False
        self.peer_is_going_away = False
        self._streams: dict[int, _Stream] = {}
        self._unread: dict[int, _Stream] = {}  # finished both ways, but what came is still in our memory
        self._peer_streams = 0
        self._max_streams = max_streams
        self._next_id = self._first_id
        self._growth = Growth()
        self._keepalive = Keepalive(now)
        self._control = bytearray()
        self._replies = 0  # bytes in _control that the peer caused
        self._header = b""  # the part of a header that has arrived
        self._left = 0  # bytes of the current data frame that are still to come
        self._current: _Stream | None = None  # the stream of that frame, None to drop its bytes
        self._flags = 0  # the FIN and RST of that frame, which count once its bytes have come

    # -- receiving, in the order of the bytes ---------------------------------------------------------------------

    def receive(self, data: memoryview, now: float) -> list[Event]:
        """Take bytes from the peer and return what they mean.

        Args:
            data: plaintext, cut anywhere; DataReceived events are views into it.
            now: seconds, on the clock given at the start.

        Raises:
            RemoteProtocolError: the bytes break the protocol; the session is over.
        """
        events: list[Event] = []
        self._keepalive.heard(now)
        queued = len(self._control)
        at, size = 0, len(data)
        while at < size:
            if self._left:
                at += self._take_payload(data[at : at + self._left], events)
            elif self._header or size - at < HEADER_SIZE:
                missing = HEADER_SIZE - len(self._header)
                self._header += bytes(data[at : at + missing])
                at += missing
                if len(self._header) == HEADER_SIZE:
                    header, self._header = self._header, b""
                    self._frame(HEADER.unpack(header), now, events)
            else:
                self._frame(HEADER.unpack_from(data, at), now, events)
                at += HEADER_SIZE
        self._replies += len(self._control) - queued
        if self._replies > MAX_REPLIES:
            raise RemoteProtocolError("the peer asks without reading our answers")
        return events

    def _take_payload(self, data: memoryview, events: list[Event]) -> int:
        stream = self._current
        self._left -= len(data)
        if stream is not None:
            events.append(DataReceived(stream.id, data))
            if self._flags and not self._left:
                self._end_of_frame(stream, self._flags, events)
        return len(data)

    def _frame(self, header: tuple[int, ...], now: float, events: list[Event]) -> None:
        version, kind, flags, stream_id, length = header
        if version != VERSION or flags & ~_ANY_FLAG:
            raise RemoteProtocolError(f"a yamux frame has version {version} and flags {flags:#x}")
        if kind == _DATA:
            self._data(self._stream(flags, stream_id, now, events), flags, length, now, events)
        elif kind == _WINDOW_UPDATE:
            self._window_update(self._stream(flags, stream_id, now, events), flags, length, events)
        elif kind == _PING:
            self._ping(flags, length, now, events)
        elif kind == _GO_AWAY:
            self.peer_is_going_away = True
            events.append(GoAwayReceived(length))
        else:
            raise RemoteProtocolError(f"there is no yamux frame of type {kind}")

    def _stream(self, flags: int, stream_id: int, now: float, events: list[Event]) -> _Stream | None:
        """Return the stream of a frame; None where it has ended or is refused: the frame then counts for nothing."""
        if flags & _SYN:
            return self._accept(stream_id, now, events)
        stream = self._streams.get(stream_id)
        if stream is None:
            if stream_id % 2 == self._first_id % 2 and stream_id >= self._next_id:
                raise RemoteProtocolError(f"a frame for stream {stream_id}, which we never opened")
        elif flags & _ACK and not stream.acknowledged:
            stream.acknowledged = True
            self.streams_unacknowledged -= 1
            events.append(StreamAcknowledged(stream_id))
        return stream

    def _accept(self, stream_id: int, now: float, events: list[Event]) -> _Stream | None:
        if stream_id == 0 or stream_id % 2 == self._first_id % 2:
            raise RemoteProtocolError(f"the peer opened stream {stream_id}, which is ours to open")
        if stream_id in self._streams or stream_id in self._unread:
            raise RemoteProtocolError(f"the peer opened stream {stream_id} twice")
        if self.is_going_away or self._peer_streams >= self._max_streams:
            self._control += encode(_WINDOW_UPDATE, _RST, stream_id, 0)
            return None
        stream = _Stream(stream_id, True, ReceiveWindow(self._growth, now))
        self._streams[stream_id] = stream
        self._peer_streams += 1
        self._control += encode(_WINDOW_UPDATE, _ACK, stream_id, 0)
        events.append(StreamOpened(stream_id))
        return stream

    def _data(self, stream: _Stream | None, flags: int, length: int, now: float, events: list[Event]) -> None:
        if stream is not None and stream.peer_finished and length:
            # A Write that races a Close in go-yamux puts data behind the FIN: no reason to lose the whole session.
            self.send_reset(stream.id)
            events.append(StreamReset(stream.id))
            stream = None
        if stream is not None and length:
            if length > stream.receive_window.left:
                raise RemoteProtocolError(f"the peer overran the window of stream {stream.id}")
            stream.receive_window.take(length, now)
        self._left, self._current, self._flags = length, stream, flags
        if stream is not None and not length:
            self._end_of_frame(stream, flags, events)

    def _window_update(self, stream: _Stream | None, flags: int, length: int, events: list[Event]) -> None:
        if stream is None:
            return
        if length and not flags & _RST:  # the length of a reset is an error code in go-yamux, not a window
            was_used_up = stream.send_window == 0
            stream.send_window += length
            if stream.send_window > _MAX_WINDOW:
                raise RemoteProtocolError(f"the window of stream {stream.id} overflows")
            if was_used_up and not stream.finished:
                events.append(WindowOpened(stream.id))
        self._end_of_frame(stream, flags, events)

    def _end_of_frame(self, stream: _Stream, flags: int, events: list[Event]) -> None:
        if flags & _RST:
            self._remove(stream)
            events.append(StreamReset(stream.id))
        elif flags & _FIN and not stream.peer_finished:
            stream.peer_finished = True
            events.append(StreamFinished(stream.id))
            if stream.finished:
                self._finish(stream)

    def _ping(self, flags: int, value: int, now: float, events: list[Event]) -> None:
        if flags & _SYN:
            self._control += encode(_PING, _ACK, 0, value)
            return
        round_trip = self._keepalive.answered(value, now)
        if round_trip is not None:
            self._growth.measured(round_trip)
            events.append(PingAnswered(round_trip))

    # -- sending --------------------------------------------------------------------------------------------------

    def open_stream(self, now: float) -> int:
        """Open a stream and return its id; the SYN is in `outgoing()`.

        Raises:
            LocalProtocolError: the session is going away, or too many of our streams wait for the peer's ACK.
        """
        if self.is_going_away or self.peer_is_going_away:
            raise LocalProtocolError("the session takes no new streams")
        if self.streams_unacknowledged >= MAX_UNACKNOWLEDGED:
            raise LocalProtocolError("too many streams wait for the peer's ACK")
        stream_id = self._next_id
        if stream_id > _MAX_WINDOW:
            raise LocalProtocolError("the session has used up its stream ids")
        self._next_id += 2
        self._streams[stream_id] = _Stream(stream_id, False, ReceiveWindow(self._growth, now))
        self.streams_unacknowledged += 1
        self._control += encode(_WINDOW_UPDATE, _SYN, stream_id, 0)
        return stream_id

    def send_window(self, stream_id: int) -> int:
        """Return how many bytes the peer takes on this stream now; 0 for a stream that has ended."""
        stream = self._streams.get(stream_id)
        return 0 if stream is None or stream.finished else stream.send_window

    def send_data(self, stream_id: int, data: bytes | memoryview) -> None:
        """Queue a copy of `data`, at most `send_window()` bytes: for the few bytes where a copy costs nothing."""
        size = len(data)
        self._spend(stream_id, size)
        for start in range(0, size, MAX_PAYLOAD):
            part = data[start : start + MAX_PAYLOAD]
            self._control += HEADER.pack(VERSION, _DATA, 0, stream_id, len(part))
            self._control += part

    def frame_in_place(self, stream_id: int, batch: memoryview, size: int) -> int:
        """Write the headers of `size` bytes of payload that lie in `batch` with room for a header before each frame.

        Args:
            batch: header, payload, header, payload ...: every payload of MAX_PAYLOAD bytes but the last.
            size: bytes of payload in all, at most `send_window()`.

        Returns:
            How many bytes of `batch` to send, behind all of `outgoing()`.
        """
        self._spend(stream_id, size)
        at = 0
        while size:
            length = min(size, MAX_PAYLOAD)
            HEADER.pack_into(batch, at, VERSION, _DATA, 0, stream_id, length)
            at += HEADER_SIZE + length
            size -= length
        return at

    def _spend(self, stream_id: int, size: int) -> None:
        stream = self._streams.get(stream_id)
        if stream is None or stream.finished:
            raise LocalProtocolError(f"stream {stream_id} is closed for sending")
        if size > stream.send_window:
            raise LocalProtocolError(f"{size} bytes overrun the window of stream {stream_id}")
        stream.send_window -= size

    def consumed(self, stream_id: int, size: int, now: float) -> None:
        """Note that `size` bytes of a stream have left our memory, so that the peer may send more."""
        stream = self._streams.get(stream_id) or self._unread.get(stream_id)
        if stream is None:
            return
        if stream.peer_finished:
            stream.receive_window.drain(size)
            if stream_id in self._unread and not stream.receive_window.unread:
                self._release(self._unread.pop(stream_id))
            return
        granted = stream.receive_window.consume(size, now)
        if granted:
            self._control += encode(_WINDOW_UPDATE, 0, stream_id, granted)

    def send_fin(self, stream_id: int) -> None:
        """Close a stream for sending; a stream that has ended is left alone."""
        stream = self._streams.get(stream_id)
        if stream is None or stream.finished:
            return
        stream.finished = True
        self._control += encode(_WINDOW_UPDATE, _FIN, stream_id, 0)
        if stream.peer_finished:
            self._finish(stream)

    def send_reset(self, stream_id: int) -> None:
        """Abort a stream, and give up what came on it; a stream that has ended sends nothing more."""
        if stream_id in self._unread:
            self._release(self._unread.pop(stream_id))
        stream = self._streams.get(stream_id)
        if stream is not None:
            self._remove(stream)
            self._control += encode(_WINDOW_UPDATE, _RST, stream_id, 0)

    def send_ping(self, now: float) -> None:
        """Measure the round trip now, unless a ping is on its way already."""
        if not self._keepalive.is_waiting:
            self._control += encode(_PING, _SYN, 0, self._keepalive.ping(now))

    def send_go_away(self, code: GoAwayCode = GoAwayCode.NORMAL) -> None:
        """Refuse new streams from now on; open ones may finish.

        So says the spec; go-yamux and rust-yamux end the whole session when they receive it: send it to them last.
        """
        if not self.is_going_away:
            self.is_going_away = True
            self._control += encode(_GO_AWAY, 0, 0, code)

    def outgoing(self) -> bytearray:
        """Return the frames to send, in order, and forget them."""
        control, self._control = self._control, bytearray()
        self._replies = 0
        return control

    # -- time and state -------------------------------------------------------------------------------------------

    def heard(self, now: float) -> None:
        """Note a sign of life other than bytes: the peer's host took bytes from us."""
        self._keepalive.heard(now)

    def deadline(self) -> float:
        """Return when to call `tick`, in seconds of the clock given at the start."""
        return self._keepalive.deadline()

    def tick(self, now: float) -> list[Event]:
        """Do what is due at `now`: send a ping, or report a dead peer."""
        if self._keepalive.is_dead(now):
            return [PeerTimedOut()]
        if self._keepalive.is_due(now):
            self.send_ping(now)
        return []

    @property
    def awaits_pong(self) -> bool:
        """Whether a ping of ours is unanswered."""
        return self._keepalive.is_waiting

    def expects_messages(self, now: float) -> bool:
        """Return whether messages come on one of the streams, which should not wait for long behind bulk."""
        return now < self._growth.messages_until

    @property
    def queued(self) -> int:
        """How many bytes `outgoing()` would return."""
        return len(self._control)

    @property
    def open_streams(self) -> int:
        """How many streams have not ended yet."""
        return len(self._streams)

    def _finish(self, stream: _Stream) -> None:
        """Take off a stream that is finished both ways; until it is read it counts, or memory would have no bound."""
        if stream.receive_window.unread:
            self._unread[stream.id] = stream
        self._remove(stream)

    def _remove(self, stream: _Stream) -> None:
        del self._streams[stream.id]
        if not stream.acknowledged:
            self.streams_unacknowledged -= 1
        if self._current is stream:
            self._current = None  # the rest of its frame is dropped
        if stream.id not in self._unread:
            self._release(stream)

    def _release(self, stream: _Stream) -> None:
        stream.receive_window.close()
        if stream.id % 2 != self._first_id % 2:
            self._peer_streams -= 1


class ClientSession(Session):
    """The end that dialled: it opens the odd streams."""

    _first_id = 1


class ServerSession(Session):
    """The end that listened: it opens the even streams."""

    _first_id = 2
