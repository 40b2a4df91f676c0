"""An AutoNAT server, of both versions: it dials others back, and tells them whether it came through.

Whoever asks from a LAN, or from this machine, is dialled there, but at the address that it asks from and at no other.
Public addresses that are not the asker's own cost it data first: nobody has others dialled for nothing.
"""

import ipaddress
import logging
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Protocol

import trio
from libp2p.stream_muxer.exceptions import MuxedConnError, MuxedStreamEOF, MuxedStreamError

from peertunnel.budget import place_of
from peertunnel.interfaces import IPAddress, interface_addresses
from peertunnel.protocols.autonat import v1
from peertunnel.protocols.autonat.exchange import MAX_DIAL_DATA, MIN_DIAL_DATA, DialRequested, Server
from peertunnel.protocols.autonat.messages import (
    DIAL_BACK,
    DIAL_REQUEST,
    DialResponse,
    DialStatus,
    Status,
    encode_dial_back,
)
from peertunnel.protocols.delimited import encode_delimited
from peertunnel.protocols.errors import RemoteProtocolError
from peertunnel.transport.autonat_limits import Limits
from peertunnel.transport.candidates import read_place, target_of
from peertunnel.transport.reactor import Reactor
from peertunnel.transport.requests import read_message
from peertunnel.transport.stranger import Stranger
from peertunnel.transport.stream import MuxedStream
from peertunnel.transport.tcp import SockAddress
from peertunnel.transport.upgrade import UpgradeError

if TYPE_CHECKING:
    from trio_typing import TaskStatus

REQUEST = 40.0  # seconds for all of one, dial data on a slow line included
DIAL = 10.0  # seconds until there must be a secured connection; as in go-libp2p
SHOW = 5.0  # seconds for the nonce; the same
MAX_DELAY = 3.0  # seconds before a dial elsewhere, at random: askers can't hit one victim together; the same
MAX_V1_PLACES = 4  # ports of its own that an asker of version 1 has us dial
_log = logging.getLogger(__name__)
_BROKEN = (MuxedConnError, MuxedStreamError, RemoteProtocolError, trio.TooSlowError)


class Answerer(Protocol):
    """The host, as needed here."""

    reactor: Reactor

    def serve(self, protocol: str, handler: Callable[[MuxedStream], None]) -> None:
        """Hand streams of a protocol to a handler."""
        ...

    def stop_serving(self, protocol: str) -> None:
        """Refuse new streams of a protocol."""
        ...


_Answer = Callable[[MuxedStream, bool], Awaitable[str]]


class AutonatServer:
    """Serves both versions while run() runs.

    Args:
        host: whose protocols they are.

    Attributes:
        answers: how many there were, by version and what came of them, in lower case.
    """

    def __init__(self, host: Answerer) -> None:
        self.answers: Counter[tuple[str, ...]] = Counter()
        self._host = host
        self._limits = Limits()
        self._stranger = Stranger(host.reactor)

    async def run(self, task_status: "TaskStatus[None]" = trio.TASK_STATUS_IGNORED) -> None:
        """Answer until cancelled; started as soon as it does."""
        async with trio.open_nursery() as nursery:

            def serve(protocol: str, answer: _Answer, version: str) -> None:
                self._host.serve(
                    protocol, lambda stream: nursery.start_soon(self._serve, stream, answer, version)
                )

            serve(DIAL_REQUEST, self._answer, "2")
            serve(v1.PROTOCOL, self._answer_v1, "1")
            task_status.started()
            try:
                await trio.sleep_forever()
            finally:
                for protocol in (DIAL_REQUEST, v1.PROTOCOL):
                    self._host.stop_serving(protocol)

    async def _serve(self, stream: MuxedStream, answer: _Answer, version: str) -> None:
        connection = stream.muxed_conn
        place = place_of(connection.get_remote_address())
        # Behind a relay nobody can be found, and all who are there look the same.
        is_admitted = connection.way.kind != "relayed" and self._limits.admit(place, trio.current_time())
        outcome = "broken"
        try:
            with trio.fail_after(REQUEST), self._limits.running(place) if is_admitted else nullcontext():
                outcome = await answer(stream, is_admitted)
                await stream.close()
        except _BROKEN:
            stream.abort()
        except Exception:  # noqa: BLE001  a task boundary
            _log.exception("an AutoNAT request by %s failed", stream.peer)
            stream.abort()
        self.answers[version, outcome] += 1

    # -- version 2 ------------------------------------------------------------------------------------------------

    async def _answer(self, stream: MuxedStream, is_admitted: bool) -> str:
        end = Server()
        response = DialResponse(Status.REQUEST_REJECTED)
        if is_admitted:
            response = await self._examine(stream, end)
        end.respond(response)
        await stream.write(end.outgoing())
        return (response.dial_status if response.status is Status.OK else response.status).name.lower()

    async def _examine(self, stream: MuxedStream, end: Server) -> DialResponse:
        """Do what a request asks for."""
        asker = _ip(stream)
        while not (events := end.receive(await stream.read())):
            pass
        request = events[0]
        assert isinstance(request, DialRequested)
        index, target = _choose(request.addresses, asker)
        if target is None:
            return DialResponse(Status.DIAL_REFUSED)
        if ipaddress.ip_address(target[0]) != asker:
            if not self._limits.admit_elsewhere(trio.current_time()):
                return DialResponse(Status.REQUEST_REJECTED)
            end.ask_for_data(index, random.randint(MIN_DIAL_DATA, MAX_DIAL_DATA))
            await stream.write(end.outgoing())
            while not end.receive(await stream.read()):
                pass
            await trio.sleep(random.uniform(0, MAX_DELAY))
        return DialResponse(Status.OK, index, await self._show(stream, target, request.nonce))

    async def _show(self, stream: MuxedStream, target: SockAddress, nonce: int) -> DialStatus:
        """Dial the asker and show it the nonce."""
        try:
            async with self._stranger.at(stream.muxed_conn.peer_id, target, DIAL) as connection:
                try:
                    with trio.fail_after(SHOW):
                        shown = await connection.open_tunnel(DIAL_BACK)
                        await shown.write(encode_delimited(encode_dial_back(nonce)))
                        shown.finish()
                        await shown.read()
                except MuxedStreamEOF:
                    pass  # it has read the nonce, and has nothing to say to it
                except _BROKEN:
                    return DialStatus.DIAL_BACK_ERROR
                return DialStatus.OK
        except (OSError, UpgradeError):
            return DialStatus.DIAL_ERROR

    # -- version 1 ------------------------------------------------------------------------------------------------

    async def _answer_v1(self, stream: MuxedStream, is_admitted: bool) -> str:
        response = v1.DialResponse(v1.Status.DIAL_REFUSED)
        if is_admitted:
            message = v1.decode(await read_message(stream, v1.MAX_MESSAGE))
            if not isinstance(message, v1.Dial):
                raise RemoteProtocolError("an answer came without a question")
            response = await self._dial(stream, message)
        await stream.write(encode_delimited(v1.encode(response)))
        return response.status.name.lower()

    async def _dial(self, stream: MuxedStream, message: v1.Dial) -> v1.DialResponse:
        """Dial the asker at each of its addresses that has the IP address that it asks from."""
        asker, peer_id = _ip(stream), stream.muxed_conn.peer_id
        if message.peer_id not in (b"", peer_id.to_bytes()):
            return v1.DialResponse(v1.Status.BAD_REQUEST)
        read = (place for data in message.addresses if (place := read_place(data)) is not None)
        places = [
            place
            for place in dict.fromkeys(read)
            if (target := target_of(place)).ip == asker and target.transport == "tcp"
        ]
        if not places:
            return v1.DialResponse(v1.Status.DIAL_REFUSED)
        reached: list[bytes] = []
        began = trio.current_time()

        async def dial(place: bytes, race: trio.CancelScope) -> None:
            try:
                async with self._stranger.at(peer_id, target_of(place).address, DIAL):
                    reached.append(place)
                    race.cancel()
            except (OSError, UpgradeError):
                pass

        async with trio.open_nursery() as nursery:
            for place in places[:MAX_V1_PLACES]:
                nursery.start_soon(dial, place, nursery.cancel_scope)
        if reached:
            return v1.DialResponse(v1.Status.OK, reached[0])
        await trio.sleep_until(began + DIAL)  # how soon it failed would tell which ports are closed
        return v1.DialResponse(v1.Status.DIAL_ERROR)


def _choose(addresses: Sequence[bytes], asker: IPAddress) -> tuple[int, SockAddress | None]:
    """Return the first address that we dial for whoever asks from an IP address, and its index."""
    has_ip6 = any(known.ip.version == 6 and known.ip.is_global for known in interface_addresses())
    for index, data in enumerate(addresses):
        if (place := read_place(data)) is None:
            continue
        target = target_of(place)
        is_far = target.ip.is_global and (target.ip.version == 4 or has_ip6)
        if target.transport == "tcp" and (target.ip == asker or is_far):
            return index, target.address
    return 0, None


def _ip(stream: MuxedStream) -> IPAddress:
    """Return the IP address that a stream's peer is at."""
    remote = stream.muxed_conn.get_remote_address()
    assert remote is not None, "it is not behind a relay"
    return ipaddress.ip_address(remote[0].partition("%")[0].removeprefix("::ffff:"))
