"""A router that speaks UPnP IGD: found by SSDP, called by HTTP."""

import ipaddress
import random
from contextlib import closing
from typing import ClassVar

import httpx  # executed when a router is asked, see peertunnel.deferred
import trio

from peertunnel.portmap.gateway import Gateway
from peertunnel.portmap.listener import Listener
from peertunnel.portmap.router import Mapping, NoAnswer, Refusal
from peertunnel.portmap.ssdp import Search
from peertunnel.protocols.errors import RemoteProtocolError
from peertunnel.protocols.portmap import igd
from peertunnel.protocols.portmap.xml import MAX_XML

_HTTP = 5.0  # seconds for one call; slow routers take two
_PORTS = range(10_000, 60_000)  # external ports to try when ours is another machine's
_MAX_TRIES = 5  # external ports that are tried


class UpnpRouter:
    """See `Router`."""

    name: ClassVar[str] = "UPnP"

    def __init__(self, client: "httpx.AsyncClient", service: igd.Service, own: ipaddress.IPv4Address) -> None:
        self._client = client
        self._service = service
        self._own = own
        self._lease_for_ever = False

    @classmethod
    async def find(cls, gateway: Gateway) -> "UpnpRouter":
        """Search for a gateway that is connected to the internet; raises NoAnswer and Refusal."""
        own = gateway.own
        if not isinstance(own, ipaddress.IPv4Address):
            raise NoAnswer("UPnP is for IPv4")
        failure: NoAnswer | Refusal = NoAnswer("no answer")
        try:
            with closing(Search(gateway, own)) as search:
                while (location := await search.next_place()) is not None:
                    try:
                        return await cls._open(location, own)
                    except (NoAnswer, Refusal) as error:
                        failure = error
        except OSError as error:
            raise NoAnswer(str(error)) from error
        raise failure

    @classmethod
    async def _open(cls, location: str, own: ipaddress.IPv4Address) -> "UpnpRouter":
        failure: NoAnswer | Refusal = NoAnswer("the router's description has no service that maps ports")
        client = _client(own)
        try:
            services = igd.read_description(await _fetch(client, "GET", location), location)
            for service in services:
                router = cls(client, service, own)
                try:
                    await router._external_address()
                    return router
                except (NoAnswer, Refusal) as error:
                    failure = error
            raise failure
        except RemoteProtocolError as error:
            await client.aclose()
            raise NoAnswer(str(error)) from error
        except BaseException:
            with trio.CancelScope(shield=True):
                await client.aclose()
            raise

    async def map(self, listener: Listener, lease: int, before: Mapping | None) -> Mapping:
        """See `Router`."""
        external = await self._external_address()
        port, any_port = before.external_port if before else listener.port, False
        if self._lease_for_ever:
            lease = 0
        failed = igd.Failed(0, "")
        for _ in range(_MAX_TRIES):
            answer = await self._add(listener, port, lease, any_port)
            if isinstance(answer, igd.Returned):
                self._lease_for_ever = lease == 0
                return Mapping(listener, external, _granted(answer) if any_port else port, lease)
            failed = answer
            match answer.code:
                # Some routers take our own mapping for another's; a new port at each renewal would leak them.
                case igd.Fault.CONFLICT_IN_MAPPING_ENTRY if before and port == before.external_port:
                    await self._delete(before)
                    before = None
                case igd.Fault.CONFLICT_IN_MAPPING_ENTRY | igd.Fault.CONFLICT_WITH_OTHER_MECHANISMS:
                    any_port = self._service.chooses_ports and not any_port
                    port = random.choice(_PORTS)
                # Some map for ever only, and not all of them say so with ONLY_PERMANENT_LEASES_SUPPORTED.
                case _ if lease:
                    lease = 0
                case _:
                    break
        raise Refusal(f"{failed.code} {failed.reason}".strip())

    async def unmap(self, mapping: Mapping) -> None:
        """See `Router`."""
        answer = await self._delete(mapping)
        if isinstance(answer, igd.Failed):
            raise Refusal(f"{answer.code} {answer.reason}".strip())

    async def aclose(self) -> None:
        """See `Router`."""
        await self._client.aclose()

    async def _add(self, listener: Listener, external_port: int, lease: int, any_port: bool) -> igd.Answer:
        transport, port, _ = listener
        service, own = self._service, self._own
        call = igd.add_mapping(service, transport, external_port, own, port, lease, any_port=any_port)
        return await self._call(call)

    async def _delete(self, mapping: Mapping) -> igd.Answer:
        call = igd.delete_mapping(self._service, mapping.listener.transport, mapping.external_port)
        return await self._call(call)

    async def _external_address(self) -> ipaddress.IPv4Address:
        answer = await self._call(igd.external_address(self._service))
        if isinstance(answer, igd.Failed):
            raise Refusal(f"{answer.code} {answer.reason}".strip())
        try:
            address = answer.external_address
        except RemoteProtocolError as error:
            raise NoAnswer(str(error)) from error
        if address is None:
            raise Refusal("the router has no address on the internet's side")
        return address

    async def _call(self, call: igd.Call) -> igd.Answer:
        headers = {"Content-Type": 'text/xml; charset="utf-8"', "SOAPAction": call.header}
        data = await _fetch(self._client, "POST", self._service.url, headers, call.body)
        try:
            return igd.decode(call, data)
        except RemoteProtocolError as error:
            raise NoAnswer(str(error)) from error


def _granted(answer: igd.Returned) -> int:
    try:
        return answer.reserved_port
    except RemoteProtocolError as error:
        raise NoAnswer(str(error)) from error


def _client(own: ipaddress.IPv4Address) -> "httpx.AsyncClient":
    """No proxy stands between us and the router, and none of its answers is worth unpacking."""
    transport = httpx.AsyncHTTPTransport(local_address=str(own))
    return httpx.AsyncClient(
        transport=transport, trust_env=False, timeout=_HTTP, headers={"Accept-Encoding": "identity"}
    )


async def _fetch(
    client: "httpx.AsyncClient",
    method: str,
    url: str,
    headers: dict[str, str] | None = None,
    body: bytes | None = None,
) -> bytes:
    """Return the body of an answer, whatever its status; raises NoAnswer."""
    data = bytearray()
    try:
        with trio.fail_after(_HTTP):
            async with client.stream(method, url, headers=headers, content=body) as response:
                async for part in response.aiter_raw():
                    data += part
                    if len(data) > MAX_XML:
                        raise NoAnswer("the router says too much")
    # A ValueError is what the library makes of a redirection to a name that is none.
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, trio.TooSlowError) as error:
        raise NoAnswer(str(error) or type(error).__name__) from error
    return bytes(data)
