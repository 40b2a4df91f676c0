"""PCP (RFC 6887): the opcodes MAP, which also opens firewalls for IPv6, and ANNOUNCE."""

import ipaddress
from dataclasses import dataclass
from enum import IntEnum
from struct import pack, unpack_from
from typing import TypeAlias

from peertunnel.protocols.errors import RemoteProtocolError
from peertunnel.protocols.portmap import Transport

VERSION = 2
NONCE = 12  # bytes, random (section 11.1)
MAX_MESSAGE = 1100  # bytes (section 7)
_ANSWER = 0x80  # the R bit beside the opcode
_HEADER, _MAP = 24, 36  # bytes (sections 7.2 and 11.1)
_NUMBERS: dict[Transport, int] = {"tcp": 6, "udp": 17}  # of IANA's protocol numbers
_TRANSPORTS: dict[int, Transport] = {number: transport for transport, number in _NUMBERS.items()}

IPAddress: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address


class Opcode(IntEnum):
    """What is asked (section 19.2)."""

    ANNOUNCE = 0
    MAP = 1
    PEER = 2


class Result(IntEnum):
    """How a request ended (section 7.4)."""

    SUCCESS = 0
    UNSUPP_VERSION = 1
    NOT_AUTHORIZED = 2
    MALFORMED_REQUEST = 3
    UNSUPP_OPCODE = 4
    UNSUPP_OPTION = 5
    MALFORMED_OPTION = 6
    NETWORK_FAILURE = 7
    NO_RESOURCES = 8
    UNSUPP_PROTOCOL = 9
    USER_EX_QUOTA = 10
    CANNOT_PROVIDE_EXTERNAL = 11
    ADDRESS_MISMATCH = 12
    EXCESSIVE_REMOTE_PEERS = 13


@dataclass(frozen=True, slots=True)
class Announced:
    """The router is there; also multicast when it has restarted. epoch: seconds since its tables were empty."""

    epoch: int


@dataclass(frozen=True, slots=True)
class Mapped:
    """A port is mapped for so many seconds, or is no longer if that is 0. nonce: that of the request."""

    epoch: int
    nonce: bytes
    transport: Transport
    internal_port: int
    external_port: int
    external: IPAddress
    lifetime: int


@dataclass(frozen=True, slots=True)
class Refused:
    """A request failed. lifetime: seconds that this will last. nonce: that of a MAP request, else empty."""

    epoch: int
    opcode: Opcode
    result: Result
    lifetime: int
    nonce: bytes = b""


Answer: TypeAlias = Announced | Mapped | Refused


def encode_announce(client: IPAddress) -> bytes:
    """Ask whether the router is there. client: the address that this is sent from."""
    return _header(Opcode.ANNOUNCE, 0, client)


def encode_map(
    client: IPAddress,
    nonce: bytes,
    transport: Transport,
    internal_port: int,
    external_port: int,
    lifetime: int,
) -> bytes:
    """Ask for a mapping, or with IPv6 for a hole in the firewall; for its end with a lifetime (seconds) of 0.

    client: the address that this is sent from and that is mapped. external_port: the one that we would like, 0 for any.
    """
    any_address = ipaddress.IPv4Address(0) if client.version == 4 else ipaddress.IPv6Address(0)
    ports = pack(">B3xHH", _NUMBERS[transport], internal_port, external_port)
    return _header(Opcode.MAP, lifetime, client) + nonce + ports + _pack(any_address)


def decode(data: bytes) -> Answer:
    """Read what a router sends; raises RemoteProtocolError.

    Options are not looked at: we ask for none.
    """
    if not _HEADER <= len(data) <= MAX_MESSAGE or len(data) % 4:
        raise RemoteProtocolError("a PCP answer has a wrong length")
    version, code, result_code, lifetime, epoch = unpack_from(">BBxBII", data)
    if version != VERSION or code < _ANSWER:
        raise RemoteProtocolError("this is no PCP answer")
    try:
        opcode, result = Opcode(code - _ANSWER), Result(result_code)
    except ValueError:
        raise RemoteProtocolError(f"a PCP answer has opcode {code} and result {result_code}") from None
    is_map = opcode is Opcode.MAP and len(data) >= _HEADER + _MAP
    if result is not Result.SUCCESS:
        return Refused(epoch, opcode, result, lifetime, data[_HEADER : _HEADER + NONCE] if is_map else b"")
    if opcode is Opcode.ANNOUNCE:
        return Announced(epoch)
    if not is_map:
        raise RemoteProtocolError("a PCP answer is to a question that we don't ask")
    return _mapped(data, epoch, lifetime)


def _header(opcode: Opcode, lifetime: int, client: IPAddress) -> bytes:
    return pack(">BBHI", VERSION, opcode, 0, lifetime) + _pack(client)


def _mapped(data: bytes, epoch: int, lifetime: int) -> Mapped:
    nonce, body = data[_HEADER : _HEADER + NONCE], data[_HEADER + NONCE :]
    number, internal_port, external_port = unpack_from(">B3xHH", body)
    if number not in _TRANSPORTS:
        raise RemoteProtocolError(f"a PCP answer is about protocol {number}")
    external = ipaddress.IPv6Address(body[8:24])
    return Mapped(
        *(epoch, nonce, _TRANSPORTS[number], internal_port, external_port),
        *(external.ipv4_mapped or external, lifetime),
    )


def _pack(ip: IPAddress) -> bytes:
    """IPv4 addresses travel as ::ffff:192.0.2.1 (section 5)."""
    return bytes(10) + b"\xff\xff" + ip.packed if ip.version == 4 else ip.packed
