"""Inputs for the targets: good conversations, and what chance makes of them."""

from collections.abc import Callable, Iterator
from random import Random
from struct import pack

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from peertunnel.protocols import auth, circuit, dcutr, punch
from peertunnel.protocols.autonat import messages as autonat
from peertunnel.protocols.circuit import client, destination
from peertunnel.protocols.circuit import relay as relay_says
from peertunnel.protocols.delimited import encode_delimited
from peertunnel.protocols.handshake import sign_static
from peertunnel.protocols.identify import Identify
from peertunnel.protocols.kademlia import messages as kad
from peertunnel.protocols.peerid import ed25519_peer_id, multihash_of
from peertunnel.protocols.portmap import igd
from peertunnel.protocols.protobuf import encode_message
from peertunnel.protocols.record import Form, PeerRecord, seal
from peertunnel.protocols.rendezvous import Discover, Message, Register, Unregister, encode

SCRIPT = 16  # bytes at the start of an input that are choices, not wire

IGD = igd.Service("urn:schemas-upnp-org:service:WANIPConnection:1", "http://192.168.1.1/ctl")
REGISTRANT_KEY = Ed25519PrivateKey.from_private_bytes(b"r" * 32)
RELAY_KEY = Ed25519PrivateKey.from_private_bytes(b"R" * 32)

OPENER_KEY = Ed25519PrivateKey.from_private_bytes(b"o" * 32)
OPENER = ed25519_peer_id(OPENER_KEY.public_key().public_bytes_raw())
STATIC = X25519PrivateKey.from_private_bytes(b"s" * 32)
YAMUX = "/yamux/1.0.0"

_NOISE = [b"plaintext", bytes(100), b"\x00\x10" + bytes(16), b"\xff\xff"]
_MULTISTREAM = [
    b"\x13/multistream/1.0.0\n",
    b"\x0c/echo/1.0.0\n",
    b"\x16/portkey/tunnel/1.0.0\n",
    b"\x03na\n",
    b"\x03ls\n",
    b"\x80\x08",
    b"payload",
]


def opener_payload() -> bytes:
    """Give what an honest peer shows in a handshake."""
    key = encode_message([(1, 1), (2, OPENER_KEY.public_key().public_bytes_raw())])
    muxers = encode_message([(2, YAMUX.encode())])
    return encode_message([(1, key), (2, sign_static(STATIC, OPENER_KEY.sign)), (4, muxers)])


def _identify() -> list[bytes]:
    told = Identify("agent", frozenset({"/a/1", "/b/2"}), (b"\x04" + bytes(7),) * 3, b"\x04", b"record")
    return [told.encode(OPENER)]


def _addresses(rng: Random) -> bytearray:
    """Write a multiaddr, as bytes or as text."""
    relay = ed25519_peer_id(RELAY_KEY.public_key().public_bytes_raw())
    parts = rng.choices(
        ("ip4/192.0.2.1/tcp/1", "p2p/" + relay, "p2p-circuit", *_PARTS), k=rng.randrange(1, 7)
    )
    if rng.randrange(2):
        return bytearray(rng.randbytes(SCRIPT) + "".join(f"/{part}" for part in parts).encode())
    binary = {"p2p/" + relay: b"\xa5\x03\x26" + multihash_of(relay), **_BINARY}
    return bytearray(rng.randbytes(SCRIPT) + b"".join(binary.get(part, b"") for part in parts))


_BINARY = {
    "ip4/192.0.2.1/tcp/1": b"\x04\xc0\0\2\1\6\0\1",
    "ip6/2001:db8::1/udp/1/quic-v1": b"\x29\x20\1\x0d\xb8" + bytes(11) + b"\1\x91\2\0\1\xcd\3",
    "p2p-circuit": b"\xa2\2",
    "ws": b"\xdd\3",
    "webrtc-direct": b"\x98\2" * 60,
    "dns4/a.example/tcp/1": b"\x36\x09a.example\6\0\1",
    "ip6zone/x": b"\x2a\1x",
}
_PARTS = (*_BINARY, "certhash/zzz", "sni/_", "dns4/\u05d01.example/tcp/1")


def _yamux(rng: Random) -> bytearray:
    """Write frames of a peer that opens streams before it uses them."""
    server = rng.randrange(2)
    unopened = {1, 3, 5, 7, 9, 11} if server else {2, 4, 6, 8, 10, 12}
    data = bytearray([server]) + rng.randbytes(SCRIPT - 1)
    for _ in range(rng.randrange(1, 30)):
        kind, stream_id = rng.choice((0, 0, 0, 0, 1, 1, 1, 2, 3)), rng.randrange(1, 7)
        flags, length = rng.choice((0, 0, 0, 0, 2, 4, 6, 8)), rng.choice((0, 1, 13, 100, 2**16))
        if stream_id in unopened and kind < 2:
            unopened.remove(stream_id)
            flags |= 1
        data += pack(">BBHII", 0, kind, flags, stream_id, length)
        if kind == 0:
            data += bytes(length)
    return data


def _chosen(seeds: list[bytes]) -> Callable[[Random], bytearray]:
    """Return a generator of inputs that are seeds in any order."""
    return lambda rng: bytearray().join([rng.randbytes(SCRIPT), *rng.choices(seeds, k=rng.randrange(1, 8))])


def _rendezvous() -> list[bytes]:
    """Give requests of one peer."""
    who = ed25519_peer_id(REGISTRANT_KEY.public_key().public_bytes_raw())
    records = [PeerRecord(who, sequence, (b"\x04\x7f\0\0\1\x06\x0f\xa1",)) for sequence in (1, 2)]
    messages: list[Message] = [
        Register(name, seal(record, REGISTRANT_KEY.sign, form), ttl)
        for name in "ab"
        for record in records
        for form in Form
        for ttl in (None, 60)
    ]
    cookie = b"run\0\0\0\0\1a"
    messages += [Unregister("a"), Discover("a"), Discover("b", 1), Discover("a", 5, cookie), Discover(None)]
    return [encode_delimited(encode(message)) for message in messages]


def _auth() -> list[bytes]:
    """Give what both ends say that know another secret."""
    said: list[bytes] = []
    for role in auth.Role:
        opener = auth.Opener(role, b"wrong", "them", "us", bytes)
        responder = auth.Responder(role.other, b"wrong", "us", "them", bytes)
        reply = responder.receive(opener.hello())
        said += [opener.hello(), reply, opener.receive(reply), auth.accepted()]
    return [encode_delimited(message) for message in said]


def _kademlia() -> list[bytes]:
    """Give requests and answers of every kind."""
    contact = kad.Contact(bytes(34), (b"\x04\x7f\0\0\1\x06\x0f\xa1",) * 2, kad.Connection.CONNECTED)
    return [
        encode_delimited(kad.encode(kad.Message(kind, b"key", (contact,), (contact, contact), b"record")))
        for kind in kad.Type
    ]


def _dcutr() -> list[bytes]:
    """Give the messages of either end."""
    known = b"\x04\x7f\0\0\1\x06\x0f\xa1"
    crowd = dcutr.HolePunch(dcutr.Kind.CONNECT, (known,) * dcutr.MAX_ADDRESSES)
    said = [dcutr.HolePunch(dcutr.Kind.CONNECT, (known, known)), crowd, dcutr.HolePunch(dcutr.Kind.SYNC)]
    return [encode_delimited(dcutr.encode(message)) for message in said]


def _punch() -> list[bytes]:
    """Give the messages of either end."""
    known = (b"\x04\x7f\0\0\1\x91\x02\x0f\xa1\xcd\x03",) * 2
    said: list[punch.Proposal | punch.Kind] = [punch.Proposal(mapping, known) for mapping in punch.Mapping]
    said += [punch.Kind.OPENED, punch.Kind.PROBED]
    return [encode_delimited(punch.encode(message)) for message in said]


def _autonat() -> list[bytes]:
    """Give the messages of either end of version 2."""
    known = b"\x04\x7f\0\0\1\x06\x0f\xa1"
    said: list[autonat.Message] = [autonat.DialRequest((known, known), 7), autonat.DialRequest((), 7)]
    said += [autonat.DialDataRequest(0, 30_000), autonat.DialDataResponse(bytes(4000))]
    said += [autonat.DialResponse(autonat.Status.OK, 0, status) for status in autonat.DialStatus]
    return [encode_delimited(autonat.encode(message)) for message in said]


def _circuits() -> tuple[list[bytes], list[bytes]]:
    """Give what is said on HOP, and what is said on STOP."""
    relay, peer = (ed25519_peer_id(k.public_key().public_bytes_raw()) for k in (RELAY_KEY, REGISTRANT_KEY))
    voucher, limit = circuit.Voucher(relay, peer, 1_700_000_000), circuit.Limit(120, 131_072)
    places = [b"\x04\x7f\0\0\1\x06\x0f\xa1"] * 2
    hop = [client.reserve(), client.connect(peer), relay_says.grant(voucher, places, limit, RELAY_KEY.sign)]
    hop += [relay_says.connected(limit), relay_says.refuse(circuit.Status.NO_RESERVATION)]
    stop = [relay_says.call(peer, limit), destination.accept_stop()]
    stop += [destination.refuse(circuit.Status.CONNECTION_FAILED)]
    return list(map(encode_delimited, hop)), list(map(encode_delimited, stop))


_HOP, _STOP = _circuits()
_DATAGRAMS = [
    bytes.fromhex("0280000000000000 0000004d 000000000000000000000000"),
    bytes.fromhex("0281000000001c20 0000004d 000000000000000000000000") + bytes(12) + b"\6\0\0\0" + bytes(20),
    bytes.fromhex("0281000200001c20 0000004d 000000000000000000000000") + bytes(36),
    bytes.fromhex("00800000 0000004d c0000209"),
    bytes.fromhex("00820000 0000004d 0fa10fa2 00001c20"),
    bytes.fromhex("00820002 0000004d"),
    b"HTTP/1.1 200 OK\r\nST: x\r\nLOCATION: http://192.168.1.1:5000/root.xml\r\n\r\n",
]
_UPNP = [
    b"<root><URLBase>http://192.168.1.1/</URLBase><device><service><serviceType>" + IGD.kind.encode(),
    b"</serviceType><controlURL>//192.168.1.1:80/x</controlURL></service></device></root>",
    b"<Envelope><Body><GetExternalIPAddressResponse><NewExternalIPAddress>192.0.2.9</NewExternalIPAddress>",
    b"</GetExternalIPAddressResponse></Body></Envelope>",
    b"<Envelope><Body><Fault><UPnPError><errorCode>718</errorCode></UPnPError></Fault></Body></Envelope>",
]


def _upnp(rng: Random) -> bytearray:
    """Write one document, or two pieces that make none."""
    first = rng.choice((0, 0, 2, 2, 4, rng.randrange(5)))
    pieces = _UPNP[first : first + rng.choice((1, 2, 2))]
    return bytearray().join([rng.randbytes(SCRIPT), *pieces])


_CONVERSATIONS = {
    "datagrams": _chosen(_DATAGRAMS),
    "upnp": _upnp,
    "auth": _chosen(_auth()),
    "autonat": _chosen(_autonat()),
    "dcutr": _chosen(_dcutr()),
    "punch": _chosen(_punch()),
    "hop": _chosen(_HOP),
    "stop": _chosen(_STOP),
    "kademlia": _chosen(_kademlia()),
    "rendezvous": _chosen(_rendezvous()),
    "handshake": lambda rng: bytearray(rng.randbytes(SCRIPT) + opener_payload()),
    "identify": _chosen(_identify()),
    "addresses": _addresses,
    "yamux": _yamux,
    "noise": _chosen(_NOISE),
    "multistream": _chosen(_MULTISTREAM),
    "quic": _chosen([b""]),  # all of it is choices
}


def _flip(rng: Random, data: bytearray) -> None:
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def _replace(rng: Random, data: bytearray) -> None:
    data[rng.randrange(len(data))] = rng.choice((0, 1, 2, 4, 8, 127, 128, 255))


def _cut_out(rng: Random, data: bytearray) -> None:
    start = 1 + rng.randrange(len(data))  # something is always left
    del data[start : start + rng.randrange(1, 14)]


def _repeat(rng: Random, data: bytearray) -> None:
    start = rng.randrange(len(data))
    data[start:start] = data[start : start + rng.randrange(1, 30)]


_MUTATIONS: list[Callable[[Random, bytearray], None]] = [_flip, _replace, _cut_out, _repeat]


def inputs(target: str, seed: int) -> Iterator[bytes]:
    """Yield inputs for a target without end; the same for the same seed."""
    rng = Random(seed)
    while True:
        data = _CONVERSATIONS[target](rng)
        for _ in range(rng.choice((0, 0, 1, 1, 2, 5))):
            rng.choice(_MUTATIONS)(rng, data)
        yield bytes(data)
