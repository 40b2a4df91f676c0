"""A router that speaks PCP (RFC 6887): for IPv4 it maps ports, for IPv6 it opens its firewall."""

import hashlib
from typing import ClassVar

import trio

from peertunnel.portmap.exchange import ask, open_exchange
from peertunnel.portmap.gateway import Gateway
from peertunnel.portmap.listener import Listener
from peertunnel.portmap.router import Mapping, NoAnswer, Refusal
from peertunnel.protocols.portmap import pcp


class PcpRouter:
    """See `Router`."""

    name: ClassVar[str] = "PCP"

    def __init__(self, sock: trio.socket.SocketType, gateway: Gateway, secret: bytes) -> None:
        self._sock = sock
        self._own = gateway.own
        self._secret = secret

    @classmethod
    async def find(cls, gateway: Gateway, secret: bytes) -> "PcpRouter":
        """Look whether the gateway speaks PCP; raises NoAnswer. secret: what mappings are made with, and changed."""
        sock = await open_exchange(gateway)
        try:
            answer: pcp.Answer = await ask(sock, pcp.encode_announce(gateway.own), pcp.decode)
            if isinstance(answer, pcp.Refused) and answer.result is not pcp.Result.UNSUPP_OPCODE:
                raise NoAnswer(answer.result.name)
        except BaseException:
            sock.close()
            raise
        return cls(sock, gateway, secret)

    async def map(self, listener: Listener, lease: int, before: Mapping | None) -> Mapping:
        """See `Router`."""
        mapped = await self._request(listener, before.external_port if before else listener.port, lease)
        if mapped.lifetime == 0 or mapped.external_port == 0:
            raise Refusal("the router's mapping is none")
        return Mapping(listener, mapped.external, mapped.external_port, mapped.lifetime)

    async def unmap(self, mapping: Mapping) -> None:
        """See `Router`."""
        await self._request(mapping.listener, 0, 0)

    async def aclose(self) -> None:
        """See `Router`."""
        self._sock.close()

    async def _request(self, listener: Listener, external_port: int, lifetime: int) -> pcp.Mapped:
        transport, port, _ = listener
        nonce = self._nonce(listener)

        def choose(data: bytes) -> pcp.Mapped | pcp.Refused | None:
            answer = pcp.decode(data)
            match answer:
                case pcp.Mapped() if (answer.nonce, answer.transport, answer.internal_port) == (
                    nonce,
                    transport,
                    port,
                ):
                    return answer
                case pcp.Refused(opcode=pcp.Opcode.MAP) if answer.nonce in (nonce, b""):
                    return answer
            return None

        request = pcp.encode_map(self._own, nonce, transport, port, external_port, lifetime)
        answer: pcp.Mapped | pcp.Refused = await ask(self._sock, request, choose)
        if isinstance(answer, pcp.Refused):
            raise Refusal(answer.result.name)
        return answer

    def _nonce(self, listener: Listener) -> bytes:
        """Give the nonce of a port: whoever has another one can't change its mapping, even we ourselves (section 11.2)."""
        what = f"{self._own} {listener.transport} {listener.port}".encode()
        return hashlib.blake2b(what, key=self._secret, digest_size=pcp.NONCE).digest()
