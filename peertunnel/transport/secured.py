"""Any other secured connection (TLS, later relayed) under the same multiplexer, through plain reads and writes."""

from collections.abc import Callable

import trio
from libp2p.abc import ISecureConn
from libp2p.exceptions import BaseLibp2pError

from peertunnel.protocols.errors import RemoteProtocolError
from peertunnel.transport.channel import Buffer, Channel


class SecuredChannel(Channel):
    """A secured connection of the library, read and written by tasks of ours.

    Args:
        conn: secured connection; belongs to the channel from now on.
        close: closes what lies under it at once.
    """

    def __init__(self, conn: ISecureConn, close: Callable[[], None]) -> None:
        self.is_blocked = False
        self._close = close
        self._conn = conn
        self._output = b""
        self._ready = trio.Event()
        self._progressed = False

    async def run(self, received: Callable[[memoryview], None], drained: Callable[[], None]) -> None:
        failure: Exception | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._write, drained)
            try:
                while data := await self._read():
                    received(memoryview(data))
            except RemoteProtocolError as error:  # not to leave as a group
                failure = error
            nursery.cancel_scope.cancel()
        if failure is not None:
            raise failure

    async def _read(self) -> bytes:
        """Return what came next, b"" at the end: the library tells a lost connection from a closed one by no sign."""
        try:
            return await self._conn.read()
        except BaseLibp2pError:
            return b""

    def send(self, *batch: Buffer) -> None:
        self._output = b"".join(batch)
        self.is_blocked = True
        self._ready.set()

    async def _write(self, drained: Callable[[], None]) -> None:
        while True:
            await self._ready.wait()
            self._ready = trio.Event()
            try:
                await self._conn.write(self._output)
            except (BaseLibp2pError, OSError, RuntimeError):
                return  # the reader learns it too, and tells
            self._progressed = True
            self.is_blocked = False
            drained()

    def progressed(self) -> bool:
        progressed, self._progressed = self._progressed, False
        return progressed and self.is_blocked

    def finish(self) -> None:
        """A secured connection of the library has no half-close."""

    def close(self) -> None:
        self._close()
