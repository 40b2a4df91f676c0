"""A router on a loopback address, for what real ones don't do on request: odd leases, hostile answers."""

import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial

import trio

from peertunnel.protocols.portmap import ssdp
from peertunnel.protocols.portmap.xml import Element, read_xml

KIND = "urn:schemas-upnp-org:service:WANIPConnection:1"
DESCRIPTION = (
    f"<root><device><serviceList><service><serviceType>{KIND}</serviceType><controlURL>/ctl</controlURL>"
    "</service></serviceList></device></root>"
)


def ok(action: str, **values: str) -> bytes:
    """Answer a call."""
    inner = "".join(f"<{name}>{value}</{name}>" for name, value in values.items())
    return http(f"<Envelope><Body><{action}Response>{inner}</{action}Response></Body></Envelope>")


def fault(code: int) -> bytes:
    """Refuse a call."""
    error = f"<UPnPError><errorCode>{code}</errorCode><errorDescription>No</errorDescription></UPnPError>"
    return http(
        f"<Envelope><Body><Fault><detail>{error}</detail></Fault></Body></Envelope>",
        "500 Internal Server Error",
    )


def http(body: str, status: str = "200 OK") -> bytes:
    """Wrap a document."""
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()


def connected(call: Element) -> bytes:
    """Answer every call well, as a router with a public address."""
    if call.name == "GetExternalIPAddress":
        return ok(call.name, NewExternalIPAddress="1.2.4.1")
    return ok(call.name)


@dataclass(slots=True)
class IgdServer:
    """What it is called with, and how it answers. location: None for its own description's URL."""

    ip: str
    answer: Callable[[Element], bytes] = connected
    location: str | None = None
    page: bytes = field(default_factory=lambda: http(DESCRIPTION))
    is_endless: bool = False  # whether the page's last bytes go on for ever
    calls: list[Element] = field(default_factory=list)

    async def serve(self, stream: trio.SocketStream) -> None:
        """Answer one request, and close."""
        async with stream:
            data = b""
            while b"\r\n\r\n" not in data:
                data += await stream.receive_some()
            head, _, body = data.partition(b"\r\n\r\n")
            if head.startswith(b"GET"):
                await stream.send_all(self.page)
                while self.is_endless:
                    await stream.send_all(self.page[-16:] * 4096)
                return
            while b"</s:Envelope>" not in body:
                body += await stream.receive_some()
            inner = read_xml(body).child("Body")
            assert inner is not None
            self.calls.append(inner.children[0])
            await stream.send_all(self.answer(inner.children[0]))

    async def respond(self, sock: trio.socket.SocketType, port: int) -> None:
        """Answer searches."""
        location = self.location or f"http://{self.ip}:{port}/desc.xml"
        while True:
            _, source = await sock.recvfrom(ssdp.MAX_MESSAGE)
            await sock.sendto(f"HTTP/1.1 200 OK\r\nST: x\r\nLOCATION: {location}\r\n\r\n".encode(), source)


@asynccontextmanager
async def running_igd(server: IgdServer) -> AsyncIterator[IgdServer]:
    """Run a router until the block ends."""
    async with trio.open_nursery() as nursery:
        [listener] = await trio.open_tcp_listeners(0, host=server.ip)
        port = listener.socket.getsockname()[1]

        async def tolerant(stream: trio.SocketStream) -> None:
            try:
                await server.serve(stream)
            except trio.BrokenResourceError:
                pass  # we had enough of it

        nursery.start_soon(partial(trio.serve_listeners, tolerant, [listener]))
        with trio.socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            await sock.bind((server.ip, ssdp.PORT))
            nursery.start_soon(server.respond, sock, port)
            yield server
            nursery.cancel_scope.cancel()
