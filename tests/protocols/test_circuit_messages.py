"""Circuit relay messages: the specification's bytes, what each party reads of the others', and any bytes."""

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from peertunnel.protocols.circuit import (
    MAX_MESSAGE,
    CircuitRefused,
    Limit,
    Status,
    Voucher,
    client,
    destination,
    relay,
)
from peertunnel.protocols.circuit.voucher import seal_voucher, unseal_voucher
from peertunnel.protocols.errors import RemoteProtocolError
from peertunnel.protocols.peerid import ed25519_peer_id, multihash_of
from peertunnel.protocols.protobuf import decode_message, encode_message
from peertunnel.protocols.record import PeerRecord, seal

RELAY_KEY, PEER_KEY = (Ed25519PrivateKey.from_private_bytes(seed * 32) for seed in (b"r", b"p"))
RELAY, PEER = (ed25519_peer_id(key.public_key().public_bytes_raw()) for key in (RELAY_KEY, PEER_KEY))
ID = multihash_of(PEER).hex()
VOUCHER = Voucher(RELAY, PEER, 1_700_003_600)
PLACES = (b"\x04\x7f\0\0\1\x06\x0f\xa1", b"\x04\xc0\0\2\7\x06\x0f\xa1")
LIMIT = Limit(120, 131_072)

limits = st.none() | st.builds(Limit, st.integers(1, 2**32 - 1), st.integers(0, 2**63 - 1))


# Written by hand after the message definitions of libp2p specs, relay/circuit-v2.
@pytest.mark.parametrize(
    ("message", "encoded"),
    [
        (client.reserve(), "0800"),
        (client.connect(PEER), "0801 1228 0a26" + ID),
        (relay.connected(LIMIT), "0802 2206 0878 10808008 2864"),
        (relay.connected(None), "0802 2864"),
        (relay.refuse(Status.NO_RESERVATION), "0802 28cc01"),
        (relay.call(PEER, LIMIT), "0800 1228 0a26" + ID + "1a06 0878 10808008"),
        (destination.accept_stop(), "0801 2064"),
        (destination.refuse(Status.CONNECTION_FAILED), "0801 20cb01"),
    ],
)
def test_vectors(message: bytes, encoded: str) -> None:
    assert message.hex() == encoded.replace(" ", "")


def test_a_relay_reads_what_its_clients_say() -> None:
    assert relay.read_request(client.reserve()) == relay.Reserve()
    assert relay.read_request(client.connect(PEER)) == relay.Connect(PEER)


@given(limits)
def test_a_client_reads_a_reservation(limit: Limit | None) -> None:
    message = relay.grant(VOUCHER, PLACES, limit, RELAY_KEY.sign)
    expected = client.Reservation(VOUCHER.expires_at, PLACES, VOUCHER, limit)
    assert client.read_reservation(message, RELAY, PEER) == expected


def test_a_reservation_tells_as_many_addresses_as_fit() -> None:
    for size in (1, 20, 200, 256):
        message = relay.grant(VOUCHER, [bytes(size)] * 100, LIMIT, RELAY_KEY.sign)
        assert len(message) <= MAX_MESSAGE
        told = client.read_reservation(message, RELAY, PEER).addresses
        assert 10 < len(told) <= relay.MAX_ADDRESSES and set(told) == {bytes(size)}


def test_addresses_without_sense_or_end_are_left_out() -> None:
    body = encode_message([(1, 5), *((2, address) for address in (b"", bytes(257), *[b"x"] * 100))])
    found = client.read_reservation(encode_message([(1, 2), (3, body), (5, 100)]), RELAY, PEER)
    assert found == client.Reservation(5, (b"x",) * client.MAX_ADDRESSES, None, None)


@given(limits)
def test_both_ends_of_a_circuit_read_its_limit(limit: Limit | None) -> None:
    assert client.read_connected(relay.connected(limit)) == limit
    assert destination.read_stop(relay.call(PEER, limit)) == (PEER, limit)


@pytest.mark.parametrize("status", [status for status in Status if status is not Status.OK])
def test_a_refusal_says_why(status: Status) -> None:
    for read in (client.read_connected, lambda message: client.read_reservation(message, RELAY, PEER)):
        with pytest.raises(CircuitRefused) as refused:
            read(relay.refuse(status))
        assert refused.value.status is status
    with pytest.raises(CircuitRefused) as refused:
        relay.check_accepted(destination.refuse(status))
    assert refused.value.status is status


def test_a_destination_accepts() -> None:
    relay.check_accepted(destination.accept_stop())


def test_a_limit_of_nothing_is_none() -> None:
    assert client.read_connected(bytes.fromhex("0802 2200 2864")) is None
    assert client.read_connected(bytes.fromhex("0802 2204 0800 1000 2864")) is None


@pytest.mark.parametrize(
    "voucher",
    [
        seal_voucher(Voucher(PEER, PEER, 1), PEER_KEY.sign),  # of another relay
        seal_voucher(Voucher(RELAY, RELAY, 1), RELAY_KEY.sign),  # for another peer
        seal_voucher(Voucher(RELAY, PEER, 1), PEER_KEY.sign),  # forged
        seal(PeerRecord(RELAY, 1, ()), RELAY_KEY.sign),  # something else
        b"nonsense",
    ],
)
def test_a_wrong_voucher_is_no_reservation(voucher: bytes) -> None:
    body = encode_message([(1, 5), (3, voucher)])
    with pytest.raises(RemoteProtocolError):
        client.read_reservation(encode_message([(1, 2), (3, body), (5, 100)]), RELAY, PEER)


def test_a_voucher_is_signed_as_the_specification_says() -> None:
    outer = decode_message(seal_voucher(VOUCHER, RELAY_KEY.sign))
    assert outer.blob(2) == b"\x03\x02"
    payload = decode_message(outer.blob(3))
    assert payload == {1: [multihash_of(RELAY)], 2: [multihash_of(PEER)], 3: [VOUCHER.expires_at]}
    signed = b"\x11libp2p-relay-rsvp" + b"\x02\x03\x02" + bytes([len(outer.blob(3))]) + outer.blob(3)
    RELAY_KEY.public_key().verify(outer.blob(5), signed)


@pytest.mark.parametrize(
    "message", ["", "0803", "0802 2864", "0801", "0801 1200", "0801 1202 0a00", "2864", "08"]
)
def test_what_is_no_request_is_refused(message: str) -> None:
    with pytest.raises(RemoteProtocolError):
        relay.read_request(bytes.fromhex(message))


@pytest.mark.parametrize("message", ["", "0802", "0802 2800", "0802 2865", "0800 2864", "0802 2864 2201"])
def test_what_is_no_answer_is_refused(message: str) -> None:
    with pytest.raises(RemoteProtocolError):
        client.read_connected(bytes.fromhex(message))


def test_a_reservation_must_be_told() -> None:
    with pytest.raises(RemoteProtocolError):
        client.read_reservation(relay.connected(LIMIT), RELAY, PEER)


@given(st.binary(max_size=100) | st.binary(max_size=60).map(lambda data: b"\x08\x02\x28\x64" + data))
def test_any_bytes_are_a_message_or_refused(data: bytes) -> None:
    readers = (
        relay.read_request,
        relay.check_accepted,
        client.read_connected,
        destination.read_stop,
        unseal_voucher,
        lambda message: client.read_reservation(message, RELAY, PEER),
    )
    for read in readers:
        try:
            read(data)
        except (RemoteProtocolError, CircuitRefused):
            continue
