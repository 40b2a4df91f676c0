"""Two sessions that do anything at any time over a slow wire, and beside them a model of what must come of it.

No byte may be lost, doubled or out of order, an end may come only behind all the bytes, an abort only from an abort,
every ping is answered, no session may break, and once all streams have ended and were read nothing is left of them.
"""

from dataclasses import dataclass, field

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from peertunnel.protocols.errors import LocalProtocolError
from peertunnel.protocols.yamux import (
    MAX_PAYLOAD,
    MAX_UNACKNOWLEDGED,
    MAX_WINDOW,
    MEMORY_CAP,
    ClientSession,
    DataReceived,
    Event,
    GoAwayReceived,
    PingAnswered,
    ServerSession,
    Session,
    StreamAcknowledged,
    StreamFinished,
    StreamOpened,
    StreamReset,
    WindowOpened,
)

from .wire import INITIAL

ALL = 10**9  # bytes
PERIOD = 4099
PATTERN = bytes(number * number * 31 >> 4 & 0xFF for number in range(PERIOD)) * (2 * MAX_WINDOW // PERIOD)


def content(stream_id: int, sender: int, at: int, size: int) -> bytes:
    """Return what a stream carries there: no two directions and no two places look alike."""
    start = (stream_id * 1009 + sender * 499 + at) % PERIOD
    return PATTERN[start : start + size]


@dataclass
class Stream:
    """What one end has done and seen of a stream."""

    is_known: bool
    has_aborted: bool = False
    has_seen_abort: bool = False
    has_finished: bool = False
    has_seen_end: bool = False
    sent: int = 0  # bytes
    arrived: int = 0  # bytes
    consumed: int = 0  # bytes

    @property
    def is_aborted(self) -> bool:
        return self.has_aborted or self.has_seen_abort

    @property
    def is_live(self) -> bool:
        return self.is_known and not self.is_aborted and not (self.has_finished and self.has_seen_end)


@dataclass
class End:
    """One end: its session, its view of the streams, and the wire that leads to it."""

    session: Session
    number: int
    streams: dict[int, Stream] = field(default_factory=dict)
    wire: bytearray = field(default_factory=bytearray)
    is_going_away: bool = False
    has_seen_going_away: bool = False

    @property
    def takes_no_more(self) -> bool:
        """Whether the session refuses to open a stream."""
        unacknowledged = self.session.streams_unacknowledged
        return self.is_going_away or self.has_seen_going_away or unacknowledged >= MAX_UNACKNOWLEDGED


class Sessions(RuleBasedStateMachine):
    """Streams that are opened, written, read, finished and aborted at random."""

    max_opened = 8  # streams in all
    max_streams = 2  # of one end at a time: few enough to be refused now and then

    sides = st.integers(0, 1)
    sizes = st.one_of(st.integers(0, 100), st.integers(0, 400_000), st.just(ALL), st.just(ALL))
    numbers = st.integers(0, 16)
    rarely = st.sampled_from([False, False, False, False, False, True])
    opened: int
    now: float

    @initialize()
    def start(self) -> None:
        self.now, self.opened = 0.0, 0
        self.ends = (
            End(ClientSession(0.0, self.max_streams), 0),
            End(ServerSession(0.0, self.max_streams), 1),
        )

    @precondition(lambda self: self.opened < self.max_opened)
    @rule(side=sides)
    def open(self, side: int) -> None:
        if self.ends[side].takes_no_more:
            with pytest.raises(LocalProtocolError):
                self.ends[side].session.open_stream(self.now)
            return
        stream_id = self.ends[side].session.open_stream(self.now)
        self.ends[side].streams[stream_id] = Stream(is_known=True)
        self.ends[1 - side].streams[stream_id] = Stream(is_known=False)
        self.opened += 1

    def stream(self, number: int) -> int:
        """Return the id of one of the streams opened so far, of either end, dead or alive."""
        return list(self.ends[0].streams)[number % self.opened]

    @rule(side=sides)
    def ping(self, side: int) -> None:
        self.ends[side].session.send_ping(self.now)

    @rule(side=sides, really=rarely)
    def go_away(self, side: int, really: bool) -> None:
        if really:
            self.ends[side].session.send_go_away()
            self.ends[side].is_going_away = True

    @precondition(lambda self: self.opened)
    @rule(side=sides, number=numbers, size=sizes, in_place=st.booleans())
    def write(self, side: int, number: int, size: int, in_place: bool) -> None:
        stream_id = self.stream(number)
        end, stream = self.ends[side], self.ends[side].streams[stream_id]
        window = end.session.send_window(stream_id)
        if not stream.is_live or stream.has_finished:
            assert window == 0
            return
        size = min(size, window)
        payload = content(stream_id, side, stream.sent, size)
        stream.sent += size
        if in_place:
            starts = range(0, size, MAX_PAYLOAD)
            batch = bytearray().join(bytes(12) + payload[start : start + MAX_PAYLOAD] for start in starts)
            assert end.session.frame_in_place(stream_id, memoryview(batch), size) == len(batch)
            self.ends[1 - side].wire += end.session.outgoing() + batch
        else:
            end.session.send_data(stream_id, payload)

    @precondition(lambda self: self.opened)
    @rule(side=sides, number=numbers, really=rarely)
    def finish(self, side: int, number: int, really: bool = True) -> None:
        if not really:
            return
        stream_id = self.stream(number)
        stream = self.ends[side].streams[stream_id]
        self.ends[side].session.send_fin(stream_id)
        stream.has_finished = stream.has_finished or stream.is_live

    @precondition(lambda self: self.opened)
    @rule(side=sides, number=numbers, really=rarely)
    def abort(self, side: int, number: int, really: bool) -> None:
        if not really:
            return
        stream_id = self.stream(number)
        stream = self.ends[side].streams[stream_id]
        self.ends[side].session.send_reset(stream_id)
        stream.has_aborted = stream.has_aborted or stream.is_live

    @precondition(lambda self: self.opened)
    @rule(side=sides, number=numbers, size=sizes)
    def consume(self, side: int, number: int, size: int) -> None:
        stream_id = self.stream(number)
        stream = self.ends[side].streams[stream_id]
        size = min(size, stream.arrived - stream.consumed)
        stream.consumed += size
        self.ends[side].session.consumed(stream_id, size, self.now)

    @rule(
        side=sides,
        size=st.one_of(st.integers(1, 50), st.integers(1, 10**6), st.just(ALL)),
        delay=st.floats(0.0, 3.0),
    )
    def deliver(self, side: int, size: int, delay: float) -> None:
        self.now += delay
        end, sender = self.ends[side], self.ends[1 - side].session
        end.wire += sender.outgoing()
        sender.heard(self.now)
        part = bytes(end.wire[:size])
        del end.wire[:size]
        for event in end.session.receive(memoryview(part), self.now):
            self.check(end, self.ends[1 - side], event)

    @rule(side=sides)
    def tick(self, side: int) -> None:
        session = self.ends[side].session
        session.heard(self.now)
        assert session.tick(self.now) == []

    @precondition(lambda self: self.opened)
    @rule(side=sides, number=numbers, times=st.integers(1, 3))
    def hurry(self, side: int, number: int, times: int) -> None:
        """Carry one window after the other, as bulk does."""
        for _ in range(times):
            self.write(side, number, ALL, in_place=True)
            self.deliver(1 - side, ALL, 0.0)
            self.consume(1 - side, number, ALL)
            self.deliver(side, ALL, 0.0)

    def check(self, end: End, peer: End, event: Event) -> None:
        """Hold one event of one end against the model."""
        if isinstance(event, PingAnswered):
            assert event.round_trip >= 0
            return
        if isinstance(event, GoAwayReceived):
            assert peer.is_going_away and not end.has_seen_going_away
            end.has_seen_going_away = True
            return
        assert isinstance(
            event,
            StreamOpened | StreamAcknowledged | DataReceived | StreamFinished | StreamReset | WindowOpened,
        )
        stream, theirs = end.streams[event.stream_id], peer.streams[event.stream_id]
        if isinstance(event, StreamOpened):
            assert not stream.is_known
            stream.is_known = True
        assert stream.is_live
        match event:
            case DataReceived(stream_id, payload):
                assert not stream.has_seen_end
                assert payload == content(stream_id, peer.number, stream.arrived, len(payload))
                stream.arrived += len(payload)
            case StreamFinished():
                assert theirs.has_finished and stream.arrived == theirs.sent and not stream.has_seen_end
                stream.has_seen_end = True
            case StreamReset():
                assert theirs.has_aborted or not theirs.is_known
                stream.has_seen_abort = True
            case WindowOpened():
                assert not stream.has_finished
            case StreamAcknowledged():
                assert theirs.is_known

    @invariant()
    def memory_is_bounded(self) -> None:
        for end, peer in (self.ends, self.ends[::-1]):
            growth = 0
            for stream_id, stream in end.streams.items():
                held = peer.streams[stream_id].sent - stream.consumed
                assert end.session.send_window(stream_id) >= 0 and held <= MAX_WINDOW
                growth += 0 if stream.is_aborted else max(0, held - INITIAL)  # also once it has ended
            assert growth <= MEMORY_CAP
            assert end.session.open_streams == sum(stream.is_live for stream in end.streams.values())

    def everything_arrives(self) -> None:
        while any(end.wire or end.session.queued for end in self.ends):
            for side in (0, 1):
                self.deliver(side, ALL, 0.0)

    def teardown(self) -> None:
        """Finish and read everything; nothing may be left."""
        self.everything_arrives()
        for end in self.ends:
            for number in range(self.opened):
                self.finish(end.number, number)
        self.everything_arrives()
        for end in self.ends:
            for number in range(self.opened):
                self.consume(end.number, number, ALL)
            assert end.session.open_streams == end.session.streams_unacknowledged == 0
            assert end.session._peer_streams == 0 and not end.session._unread
            assert end.session._growth._left == MEMORY_CAP
            assert not end.session.awaits_pong
            for stream_id, stream in end.streams.items():
                was_aborted = any(
                    e.streams[stream_id].has_aborted or e.streams[stream_id].has_seen_abort for e in self.ends
                )
                assert was_aborted or stream.has_seen_end
