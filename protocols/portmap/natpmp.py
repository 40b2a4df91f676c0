"""NAT-PMP (RFC 6886): two bytes ask for the public address, twelve for a mapping."""

import ipaddress
from dataclasses import dataclass
from enum import IntEnum
from struct import pack, unpack_from
from typing import TypeAlias

from peertunnel.protocols.errors import RemoteProtocolError
from peertunnel.protocols.portmap import Transport

VERSION = 0
_ANSWER = 128  # added to the opcode that is answered (section 3.5)
_HEADER = 8  # bytes: version, opcode, result, epoch
_ADDRESS, _MAPPING = 12, 16  # bytes of the answers in full (sections 3.2 and 3.3)


class Opcode(IntEnum):
    """What is asked (section 3.2, 3.3)."""

    ADDRESS = 0
    MAP_UDP = 1
    MAP_TCP = 2


class Result(IntEnum):
    """How a request ended (section 3.5)."""

    SUCCESS = 0
    UNSUPPORTED_VERSION = 1
    NOT_AUTHORIZED = 2
    NETWORK_FAILURE = 3
    OUT_OF_RESOURCES = 4
    UNSUPPORTED_OPCODE = 5


_OPCODES: dict[Transport, Opcode] = {"tcp": Opcode.MAP_TCP, "udp": Opcode.MAP_UDP}
_TRANSPORTS: dict[Opcode, Transport] = {opcode: transport for transport, opcode in _OPCODES.items()}


@dataclass(frozen=True, slots=True)
class AddressTold:
    """The router's public address; also multicast when it changes. epoch: seconds since its tables were empty."""

    epoch: int
    address: ipaddress.IPv4Address


@dataclass(frozen=True, slots=True)
class Mapped:
    """A port is mapped for so many seconds, or is no longer if that is 0."""

    epoch: int
    transport: Transport
    internal_port: int
    external_port: int
    lifetime: int


@dataclass(frozen=True, slots=True)
class Refused:
    """A request failed."""

    epoch: int
    opcode: Opcode
    result: Result


Answer: TypeAlias = AddressTold | Mapped | Refused


def encode_address_request() -> bytes:
    """Ask for the public address."""
    return pack(">BB", VERSION, Opcode.ADDRESS)


def encode_map_request(transport: Transport, internal_port: int, external_port: int, lifetime: int) -> bytes:
    """Ask for a mapping, or for its end with a lifetime (seconds) and an external port of 0.

    external_port: the one that we would like, 0 for any.
    """
    return pack(">BBHHHI", VERSION, _OPCODES[transport], 0, internal_port, external_port, lifetime)


def decode(data: bytes) -> Answer:
    """Read what a router sends; raises RemoteProtocolError."""
    if len(data) < _HEADER:
        raise RemoteProtocolError("a NAT-PMP answer has eight bytes at least")
    version, code, result_code, epoch = unpack_from(">BBHI", data)
    if version != VERSION:
        raise RemoteProtocolError(f"{version} is not NAT-PMP's version")
    try:
        opcode, result = Opcode(code - _ANSWER), Result(result_code)
    except ValueError:
        raise RemoteProtocolError(f"a NAT-PMP answer has opcode {code} and result {result_code}") from None
    if result is not Result.SUCCESS:
        return Refused(epoch, opcode, result)
    if len(data) != (_ADDRESS if opcode is Opcode.ADDRESS else _MAPPING):
        raise RemoteProtocolError("a NAT-PMP answer has a wrong length")
    if opcode is Opcode.ADDRESS:
        return AddressTold(epoch, ipaddress.IPv4Address(data[_HEADER:]))
    internal_port, external_port, lifetime = unpack_from(">HHI", data, _HEADER)
    return Mapped(epoch, _TRANSPORTS[opcode], internal_port, external_port, lifetime)
