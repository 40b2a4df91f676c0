"""A router that speaks NAT-PMP (RFC 6886)."""

import ipaddress
from typing import ClassVar

import trio

from peertunnel.portmap.exchange import ask, open_exchange
from peertunnel.portmap.gateway import Gateway
from peertunnel.portmap.listener import Listener
from peertunnel.portmap.router import Mapping, Refusal
from peertunnel.protocols.portmap import natpmp


class NatPmpRouter:
    """See `Router`."""

    name: ClassVar[str] = "NAT-PMP"

    def __init__(self, sock: trio.socket.SocketType) -> None:
        self._sock = sock

    @classmethod
    async def find(cls, gateway: Gateway) -> "NatPmpRouter":
        """Look whether the gateway speaks NAT-PMP; raises NoAnswer and Refusal."""
        sock = await open_exchange(gateway)
        try:
            await _external_address(sock)
        except BaseException:
            sock.close()
            raise
        return cls(sock)

    async def map(self, listener: Listener, lease: int, before: Mapping | None) -> Mapping:
        """See `Router`."""
        external = await _external_address(self._sock)
        mapped = await self._request(listener, before.external_port if before else listener.port, lease)
        if mapped.lifetime == 0 or mapped.external_port == 0:
            raise Refusal("the router's mapping is none")
        return Mapping(listener, external, mapped.external_port, mapped.lifetime)

    async def unmap(self, mapping: Mapping) -> None:
        """See `Router`."""
        await self._request(mapping.listener, 0, 0)

    async def aclose(self) -> None:
        """See `Router`."""
        self._sock.close()

    async def _request(self, listener: Listener, external_port: int, lifetime: int) -> natpmp.Mapped:
        transport, port, _ = listener
        request = natpmp.encode_map_request(transport, port, external_port, lifetime)
        opcode = natpmp.Opcode(request[1])

        def choose(data: bytes) -> natpmp.Mapped | natpmp.Refused | None:
            answer = natpmp.decode(data)
            match answer:
                case natpmp.Mapped() if (answer.transport, answer.internal_port) == (transport, port):
                    return answer
                case natpmp.Refused() if answer.opcode is opcode:
                    return answer
            return None

        answer: natpmp.Mapped | natpmp.Refused = await ask(self._sock, request, choose)
        if isinstance(answer, natpmp.Refused):
            raise Refusal(answer.result.name)
        return answer


async def _external_address(sock: trio.socket.SocketType) -> ipaddress.IPv4Address:
    def choose(data: bytes) -> natpmp.AddressTold | natpmp.Refused | None:
        answer = natpmp.decode(data)
        match answer:
            case natpmp.AddressTold() | natpmp.Refused(opcode=natpmp.Opcode.ADDRESS):
                return answer
        return None

    answer: natpmp.AddressTold | natpmp.Refused = await ask(sock, natpmp.encode_address_request(), choose)
    if isinstance(answer, natpmp.Refused):
        raise Refusal(answer.result.name)
    if answer.address == ipaddress.IPv4Address(0):
        raise Refusal("the router has no address on the internet's side")
    return answer.address
