"""The targets: each reads one input as what a hostile peer does, and raises AssertionError where we did wrong."""

from collections.abc import Callable

from peertunnel.protocols.auth import MAX_MESSAGE as MAX_AUTH
from peertunnel.protocols.auth import Opener as Prover
from peertunnel.protocols.auth import Responder as Proven
from peertunnel.protocols.auth import Role
from peertunnel.protocols.delimited import Delimited
from peertunnel.protocols.errors import LocalProtocolError, RemoteProtocolError
from peertunnel.protocols.kademlia.messages import MAX_ADDRESSES, MAX_KEY, MAX_PROVIDERS, MAX_REQUEST
from peertunnel.protocols.kademlia.messages import decode as decode_kad
from peertunnel.protocols.kademlia.messages import encode as encode_kad
from peertunnel.protocols.multistream import Initiator, Responder
from peertunnel.protocols.noise import Cipher, Opener, Sealer, sealed_size
from peertunnel.protocols.peerid import ed25519_peer_id
from peertunnel.protocols.record import unseal
from peertunnel.protocols.rendezvous import Book, Discovered, decode, encode
from peertunnel.protocols.yamux import (
    ClientSession,
    DataReceived,
    Event,
    ServerSession,
    Session,
    StreamAcknowledged,
    StreamFinished,
    StreamOpened,
    StreamReset,
    WindowOpened,
)

from .inputs import REGISTRANT_KEY
from .opening import addresses, handshake, identify
from .reaching import autonat, datagrams, dcutr, hop, punch, stop, upnp
from .script import Script

Target = Callable[[bytes], None]
REGISTRANT = ed25519_peer_id(REGISTRANT_KEY.public_key().public_bytes_raw())
KEY = bytes(range(32))
OFFERED = ["/echo/1.0.0", "/portkey/tunnel/1.0.0"]
MAX_STREAMS = 4
ENDS = {"timed out"}  # of a connection in bad weather
HANDSHAKE_ENDS = {  # of one whose keys are not agreed on yet: what a garbled byte makes of an honest packet
    "detected an error with protocol compliance that was not covered by more specific error codes: client sent Retry",
    "peer doesn't implement any supported version",
}


class _Owner:
    """The owner of a session, that holds every event against the life of its stream."""

    def __init__(self, session: Session, script: Script) -> None:
        self.session = session
        self._script = script
        self._open: dict[int, bool] = {}  # whether the peer may still send on it
        for _ in range(3):
            self._open[session.open_stream(0.0)] = True

    def take(self, events: list[Event], now: float) -> None:
        """Check a batch of events and answer some of them."""
        for event in events:
            if isinstance(event, StreamOpened):
                assert not self._open.get(event.stream_id), "opened twice"
                self._open[event.stream_id] = True
            elif isinstance(event, DataReceived):
                assert len(event.data) and self._open[event.stream_id], "data where none may be"
                self.session.consumed(event.stream_id, len(event.data), now)
            elif isinstance(event, StreamFinished):
                assert self._open[event.stream_id], "finished twice"
                self._open[event.stream_id] = False
            elif isinstance(event, StreamReset):
                del self._open[event.stream_id]
            elif isinstance(event, StreamAcknowledged | WindowOpened):
                assert event.stream_id in self._open, "news of a stream that has ended"

    def act(self) -> None:
        """Do something of our own on some stream."""
        if not self._open:
            return
        stream_id = list(self._open)[self._script.choose(len(self._open))]
        action = self._script.choose(8)
        if action == 1:
            self.session.send_fin(stream_id)
        elif action == 2:
            self.session.send_reset(stream_id)
            del self._open[stream_id]
        elif action == 3:
            self.session.send_go_away()
        elif action == 4:
            size = min(100, self.session.send_window(stream_id))
            try:
                self.session.send_data(stream_id, bytes(size))
            except LocalProtocolError:
                assert size == 0


def yamux(data: bytes) -> None:
    """Any bytes, cut anywhere, while our side is busy, give lawful events or RemoteProtocolError."""
    script = Script(data)
    role = (ClientSession, ServerSession)[script.choose(2)]
    session, now = role(0.0, MAX_STREAMS), 0.0
    owner = _Owner(session, script)
    for part in script.parts():
        now += script.choose(3)
        try:
            events = session.receive(memoryview(part), now)
        except RemoteProtocolError:
            return
        owner.take(events, now)
        owner.act()
        session.tick(now)
        session.outgoing()
        assert session.open_streams <= MAX_STREAMS + 3
        assert 0 <= session.streams_unacknowledged <= 3


def noise(data: bytes) -> None:
    """A record opens if it is the one that was sealed; whatever was done to it is noticed."""
    script = Script(data)
    cipher = list(Cipher)[script.choose(len(Cipher))]
    rooms = [bytearray(script.choose(256) * 4) for _ in range(2)]
    spoils, cut = script.choose(3), script.choose(20) * script.choose(2)
    at_and_by = [(script.choose(256), script.choose(256)) for _ in range(spoils)]
    plaintext = b"".join(script.parts())[:300]
    sealed = bytearray(sealed_size(len(plaintext)))
    Sealer(KEY, cipher=cipher).seal(memoryview(plaintext), memoryview(sealed), 0)
    honest = bytes(sealed)
    for at, by in at_and_by if sealed else ():
        sealed[at % len(sealed)] ^= by
    del sealed[len(sealed) - cut :]
    for wire, room in zip((bytes(sealed), data), rooms, strict=True):
        try:
            consumed, filled = Opener(KEY, cipher=cipher).open(memoryview(wire), memoryview(room))
        except RemoteProtocolError:
            assert wire != honest, "an honest record is refused"
            continue
        opens = wire == honest and len(room) >= len(plaintext)
        assert (consumed, bytes(room[:filled])) == ((len(wire), plaintext) if opens else (0, b""))


def multistream(data: bytes) -> None:
    """Any bytes agree on something that we speak, on nothing, or are an error; what comes behind is not touched."""
    script = Script(data)
    initiator, responder = Initiator(OFFERED[1]), Responder(OFFERED.__contains__, lambda: OFFERED)
    parts = list(script.parts())
    for part in parts:
        try:
            _, rest = responder.receive(part)
        except RemoteProtocolError:
            break
        assert responder.protocol in OFFERED if rest else responder.protocol in (None, *OFFERED)
        assert part.endswith(rest)
    for part in parts:
        try:
            rest = initiator.receive(part)
        except RemoteProtocolError:
            break
        assert part.endswith(rest) and (initiator.agreed or not rest)


def rendezvous(data: bytes) -> None:
    """A rendezvous point answers, or refuses with RemoteProtocolError; all that it tells is signed by its peer."""
    script = Script(data)
    requests, book, now = Delimited(10_000), Book(b"run"), 0.0
    try:
        for part in script.parts():
            now += 60 * script.choose(3)
            for request in requests.receive(part):
                answer = book.answer(REGISTRANT, decode(request), now)
                assert answer is None or decode(encode(answer)) == answer
                for told in answer.registrations if isinstance(answer, Discovered) else ():
                    assert unseal(told.envelope).peer_id == REGISTRANT
                book.tick(now)
    except RemoteProtocolError:
        return
    assert 0 <= book.size == book.namespaces


def _entropy(size: int) -> bytes:
    return b"\x07" * size


def auth(data: bytes) -> None:
    """Whoever doesn't know the secret proves nothing, at either end, whatever is said and however it is cut."""
    script = Script(data)
    role = (Role.CONSUMER, Role.PROVIDER)[script.choose(2)]
    us, them = "us", "them"
    ends: tuple[list[Callable[[bytes], object]], ...] = (
        [(responder := Proven(role, KEY, us, them, _entropy)).receive, responder.confirm],
        [Prover(role, KEY, us, them, _entropy).receive],
    )
    steps, messages = list(ends[script.choose(2)]), Delimited(MAX_AUTH)
    try:
        for part in script.parts():
            for message in messages.receive(part):
                step = steps.pop(0)
                step(message)
                assert steps, "proven without the secret"
    except RemoteProtocolError:
        return


def kademlia(data: bytes) -> None:
    """A message is read and written again as the same one, or refused; what it names is bounded."""
    script = Script(data)
    messages = Delimited(MAX_REQUEST)
    try:
        for part in script.parts():
            for message in map(decode_kad, messages.receive(part)):
                assert decode_kad(encode_kad(message)) == message
                assert len(message.key) <= MAX_KEY and len(message.providers) <= MAX_PROVIDERS
                for contact in (*message.closer, *message.providers):
                    assert len(contact.addresses) <= MAX_ADDRESSES
    except RemoteProtocolError:
        return


def quic(data: bytes) -> None:
    """Two engines exchange bytes over a network that loses, doubles, garbles and reorders datagrams: all arrive."""
    from tests.node.quic_network import Exchange, Lost, Weather

    script = Script(data)
    weather = Weather(
        loss=script.choose(4) / 20,
        doubles=script.choose(4) / 20,
        garbles=script.choose(3) / 20,
        delay=script.choose(3) / 50,
        jitter=script.choose(3) / 50,
    )
    size = (0, 1, 1200, 10_000, 100_000)[script.choose(5)]
    moves_after = 0.5 + script.choose(20) / 10 if script.choose(4) == 0 else None
    exchange = Exchange(int.from_bytes(data) % 2**64, weather, size, moves_after)
    try:
        exchange.run()
    except Lost as error:
        # Ten seconds of bad luck end a connection, and a handshake ends at a packet that is its end by what one byte
        # says: no key protects that byte (RFC 9000, sections 5.2 and 6.2). What has come is still what was sent first.
        is_early = weather.garbles > 0 and not exchange.is_established
        assert str(error) in (ENDS | HANDSHAKE_ENDS if is_early else ENDS)
        assert weather.loss + weather.garbles > 0
        pairs = zip(exchange.ends, exchange.sent[::-1], strict=True)
        assert all(sent.startswith(end.received) for end, sent in pairs)
        return
    assert [bytes(end.received) for end in exchange.ends] == exchange.sent[::-1]


TARGETS: dict[str, Target] = {
    "auth": auth,
    "autonat": autonat,
    "dcutr": dcutr,
    "punch": punch,
    "hop": hop,
    "stop": stop,
    "kademlia": kademlia,
    "datagrams": datagrams,
    "rendezvous": rendezvous,
    "upnp": upnp,
    "handshake": handshake,
    "identify": identify,
    "addresses": addresses,
    "yamux": yamux,
    "noise": noise,
    "multistream": multistream,
    "quic": quic,
}
