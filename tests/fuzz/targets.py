"""The targets: each reads one input as what a hostile peer does, and raises AssertionError where we did wrong."""

from collections.abc import Callable, Iterator

from peertunnel.protocols import dcutr as punch
from peertunnel.protocols.auth import MAX_MESSAGE as MAX_AUTH
from peertunnel.protocols.auth import Opener as Prover
from peertunnel.protocols.auth import Responder as Proven
from peertunnel.protocols.auth import Role
from peertunnel.protocols.autonat import exchange as autonat_v2
from peertunnel.protocols.autonat import v1 as autonat_v1
from peertunnel.protocols.circuit import MAX_MESSAGE, CircuitRefused
from peertunnel.protocols.circuit import client as circuit_client
from peertunnel.protocols.circuit import destination as circuit_destination
from peertunnel.protocols.circuit import relay as circuit_relay
from peertunnel.protocols.delimited import Delimited, missing
from peertunnel.protocols.errors import LocalProtocolError, RemoteProtocolError
from peertunnel.protocols.kademlia.messages import MAX_ADDRESSES, MAX_KEY, MAX_PROVIDERS, MAX_REQUEST
from peertunnel.protocols.kademlia.messages import decode as decode_kad
from peertunnel.protocols.kademlia.messages import encode as encode_kad
from peertunnel.protocols.multistream import Initiator, Responder
from peertunnel.protocols.noise import Opener, Sealer, sealed_size
from peertunnel.protocols.peerid import ed25519_peer_id
from peertunnel.protocols.portmap import igd, natpmp, pcp, ssdp
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

from .inputs import IGD, REGISTRANT_KEY, RELAY_KEY
from .inputs import SCRIPT as INPUT_SCRIPT

Target = Callable[[bytes], None]
REGISTRANT = ed25519_peer_id(REGISTRANT_KEY.public_key().public_bytes_raw())
CIRCUIT_RELAY = ed25519_peer_id(RELAY_KEY.public_key().public_bytes_raw())
KEY = bytes(range(32))
OFFERED = ["/echo/1.0.0", "/portkey/tunnel/1.0.0"]
MAX_STREAMS = 4


class _Script:
    """The first bytes of an input: how the rest is cut, and what our own side does meanwhile."""

    def __init__(self, data: bytes) -> None:
        size = min(len(data), 16)
        self._choices, self._rest, self._at = data[:size], data[size:], 0

    def choose(self, below: int) -> int:
        """Return the next choice; all are 0 once the script has ended."""
        self._at += 1
        return self._choices[self._at - 1] % below if self._at <= len(self._choices) else 0

    def parts(self) -> Iterator[bytes]:
        """Yield the rest in parts."""
        while self._rest:
            size = (len(self._rest), 1, 5, 12, 13, 100)[self.choose(6)]
            part, self._rest = self._rest[:size], self._rest[size:]
            yield part


class _Owner:
    """The owner of a session, that holds every event against the life of its stream."""

    def __init__(self, session: Session, script: _Script) -> None:
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
    script = _Script(data)
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
    script = _Script(data)
    plaintext = b"".join(script.parts())[:300]
    sealed = bytearray(sealed_size(len(plaintext)))
    Sealer(KEY).seal(memoryview(plaintext), memoryview(sealed), 0)
    for _ in range(script.choose(3)):
        if sealed:
            sealed[script.choose(256) % len(sealed)] ^= script.choose(256)
    del sealed[len(sealed) - script.choose(20) :]
    for wire in (sealed, data):
        room = bytearray(script.choose(256) * 4)
        try:
            consumed, filled = Opener(KEY).open(memoryview(wire), memoryview(room))
        except RemoteProtocolError:
            continue
        assert filled <= consumed <= len(wire)
        assert (consumed, bytes(room[:filled])) in ((0, b""), (len(wire), plaintext))


def multistream(data: bytes) -> None:
    """Any bytes agree on something that we speak, on nothing, or are an error; what comes behind is not touched."""
    script = _Script(data)
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
    script = _Script(data)
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
    script = _Script(data)
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
    script = _Script(data)
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


def dcutr(data: bytes) -> None:
    """An attempt is agreed on once, by a peer that knows where it is, or refused; what it names is bounded."""
    script = _Script(data)
    initiator, responder = punch.Initiator([b"us"]), punch.Responder([b"us"])
    initiator.start(now := 0.0)
    end = (initiator, responder)[script.choose(2)]
    agreed: list[punch.Synchronised] = []
    try:
        for part in script.parts():
            now += script.choose(3)
            agreed += end.receive(part, now)
            assert len(end.outgoing()) <= 100
    except RemoteProtocolError:
        pass
    assert len(agreed) <= 1
    for attempt in agreed:
        assert 0 < len(attempt.addresses) <= punch.MAX_ADDRESSES
        assert 0 <= attempt.round_trip <= now and 0 <= attempt.at <= now + attempt.round_trip / 2


def autonat(data: bytes) -> None:
    """An exchange goes its course or is refused, at either end; a client sends no more data than is allowed."""
    script = _Script(data)
    client, server = autonat_v2.Client([b"us", b"us too"], 7), autonat_v2.Server()
    client.ask()
    events: list[object] = []
    for part in script.parts():
        try:
            if script.choose(2):
                events += server.receive(part)
                if len(events) == 1:
                    server.ask_for_data(0, autonat_v2.MIN_DIAL_DATA)
            else:
                assert len(client.receive(part)) <= 1
        except RemoteProtocolError:
            break
        except (
            LocalProtocolError
        ):  # the request names no address, or has been answered with that question already
            pass
    assert len(client.outgoing()) < 1.01 * autonat_v2.MAX_DIAL_DATA
    assert [type(event) for event in events] in (
        [],
        [autonat_v2.DialRequested],
        [autonat_v2.DialRequested, autonat_v2.DialDataReceived],
    )
    try:
        assert autonat_v1.decode(autonat_v1.encode(autonat_v1.decode(data))) == autonat_v1.decode(data)
    except RemoteProtocolError:
        pass


def _first_message(script: _Script) -> bytes:
    """Take one message off a stream as a relay and its peers do, who leave what follows it alone."""
    stream, at = b"".join(script.parts()), 0
    while size := missing(stream[:at], MAX_MESSAGE):
        assert size > 0 and at <= MAX_MESSAGE + 2
        at += size
        if at > len(stream):
            raise RemoteProtocolError("the stream has ended")
    (message,) = Delimited(MAX_MESSAGE).receive(stream[:at])
    return message


def hop(data: bytes) -> None:
    """A relay reads a request or refuses it, a client an answer; what either takes for good it would say itself."""
    script = _Script(data)
    try:
        message = _first_message(script)
        if script.choose(2):
            match circuit_relay.read_request(message):
                case circuit_relay.Connect(peer):
                    again = circuit_relay.read_request(circuit_client.connect(peer))
                    assert again == circuit_relay.Connect(peer)
        else:
            granted = circuit_client.read_reservation(message, CIRCUIT_RELAY, REGISTRANT)
            assert len(granted.addresses) <= circuit_client.MAX_ADDRESSES
            assert granted.voucher is None or granted.voucher.peer == REGISTRANT
            limit = circuit_client.read_connected(message)
            assert circuit_client.read_connected(circuit_relay.connected(limit)) == limit
    except (RemoteProtocolError, CircuitRefused):
        return


def stop(data: bytes) -> None:
    """A destination reads a call or refuses it, a relay the answer."""
    script = _Script(data)
    try:
        message = _first_message(script)
        if script.choose(2):
            caller, limit = circuit_destination.read_stop(message)
            assert circuit_destination.read_stop(circuit_relay.call(caller, limit)) == (caller, limit)
        else:
            circuit_relay.check_accepted(message)
    except (RemoteProtocolError, CircuitRefused):
        return


def datagrams(data: bytes) -> None:
    """What a router sends over UDP is read or refused, and never in two protocols."""
    script = _Script(data)
    for part in script.parts():
        read: list[object] = []
        for reader in (pcp.decode, natpmp.decode, ssdp.decode):
            try:
                read.append(reader(part))
            except RemoteProtocolError:
                continue
        assert len(read) <= 1
        for answer in read:
            if isinstance(answer, ssdp.Found):
                assert len(answer.location) <= ssdp.MAX_LOCATION


def upnp(data: bytes) -> None:
    """A router's documents are read or refused; whatever they say, nobody but the router is called."""
    place = "http://192.168.1.1:5000/root.xml"
    document = data[INPUT_SCRIPT:]
    try:
        services = igd.read_description(document, place)
        assert len(services) <= igd.MAX_SERVICES
        assert all(igd.host_of(service.url) == igd.host_of(place) for service in services)
    except RemoteProtocolError:
        pass
    for call in (igd.external_address(IGD), igd.delete_mapping(IGD, "tcp", 1)):
        try:
            answer = igd.decode(call, document)
            assert isinstance(answer, igd.Failed) or answer.external_address is None or len(answer.values) > 0
        except RemoteProtocolError:
            pass


def quic(data: bytes) -> None:
    """Two engines exchange bytes over a network that loses, doubles, garbles and reorders datagrams: all arrive."""
    from tests.node.quic_network import Exchange, Lost, Weather

    script = _Script(data)
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
        # Ten seconds of bad luck end a connection; then what has come is still what was sent first.
        assert str(error) == "timed out" and weather.loss + weather.garbles > 0
        pairs = zip(exchange.ends, exchange.sent[::-1], strict=True)
        assert all(sent.startswith(end.received) for end, sent in pairs)
        return
    assert [bytes(end.received) for end in exchange.ends] == exchange.sent[::-1]


TARGETS: dict[str, Target] = {
    "auth": auth,
    "autonat": autonat,
    "dcutr": dcutr,
    "hop": hop,
    "stop": stop,
    "kademlia": kademlia,
    "datagrams": datagrams,
    "rendezvous": rendezvous,
    "upnp": upnp,
    "yamux": yamux,
    "noise": noise,
    "multistream": multistream,
    "quic": quic,
}
