"""Targets: what relays, routers, and peers that punch holes or dial back may say."""

from peertunnel.protocols import dcutr as hole
from peertunnel.protocols import punch as chance
from peertunnel.protocols.autonat import exchange as autonat_v2
from peertunnel.protocols.autonat import v1 as autonat_v1
from peertunnel.protocols.circuit import MAX_MESSAGE, CircuitRefused
from peertunnel.protocols.circuit import client as circuit_client
from peertunnel.protocols.circuit import destination as circuit_destination
from peertunnel.protocols.circuit import relay as circuit_relay
from peertunnel.protocols.delimited import Delimited, missing
from peertunnel.protocols.errors import LocalProtocolError, RemoteProtocolError
from peertunnel.protocols.peerid import ed25519_peer_id
from peertunnel.protocols.portmap import igd, natpmp, pcp, ssdp

from .inputs import IGD, REGISTRANT_KEY, RELAY_KEY
from .inputs import SCRIPT as INPUT_SCRIPT
from .script import Script

REGISTRANT = ed25519_peer_id(REGISTRANT_KEY.public_key().public_bytes_raw())
CIRCUIT_RELAY = ed25519_peer_id(RELAY_KEY.public_key().public_bytes_raw())


def dcutr(data: bytes) -> None:
    """An attempt is agreed on once, by a peer that knows where it is, or refused; what it names is bounded."""
    script = Script(data)
    initiator, responder = hole.Initiator([b"us"]), hole.Responder([b"us"])
    initiator.start(now := 0.0)
    end = (initiator, responder)[script.choose(2)]
    agreed: list[hole.Synchronised] = []
    try:
        for part in script.parts():
            now += script.choose(3)
            agreed += end.receive(part, now)
            assert len(end.outgoing()) <= 100
    except RemoteProtocolError:
        pass
    assert len(agreed) <= 1
    for attempt in agreed:
        assert 0 < len(attempt.addresses) <= hole.MAX_ADDRESSES
        assert 0 <= attempt.round_trip <= now and 0 <= attempt.at <= now + attempt.round_trip / 2


def punch(data: bytes) -> None:
    """Turns are agreed on once, and taken one after the other, or refused; what a peer names is bounded."""
    script = Script(data)
    mapping = chance.Mapping(script.choose(3))
    ends = chance.Initiator, chance.Responder
    end = ends[script.choose(2)](chance.Proposal(mapping, (b"us",)))
    if isinstance(end, chance.Initiator):
        end.start()
    events: list[chance.Event] = []
    for part in script.parts():
        try:
            events += end.receive(part)
        except RemoteProtocolError:
            break
        try:
            (end.opened, end.probed)[script.choose(2)]()
        except LocalProtocolError:
            pass  # it was not our turn
        assert len(end.outgoing()) <= 100
    if events:
        agreed, *rest = events
        assert isinstance(agreed, chance.Agreed) and len(rest) <= len(agreed.turns) <= 2
        assert 0 < len(agreed.theirs.addresses) <= chance.MAX_ADDRESSES
        assert all(len(address) <= chance.MAX_ADDRESS for address in agreed.theirs.addresses)
        for role, event in zip(agreed.turns, rest, strict=False):
            assert isinstance(event, chance.Probed if role is chance.Role.OPENER else chance.Opened)


def autonat(data: bytes) -> None:
    """An exchange goes its course or is refused, at either end; a client sends no more data than is allowed."""
    script = Script(data)
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


def _first_message(script: Script) -> bytes:
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
    script = Script(data)
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
    script = Script(data)
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
    script = Script(data)
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
