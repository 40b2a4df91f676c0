"""Where a network slows UDP down, as some do on purpose, new tunnels go over TCP.

1. A transfer over QUIC that stays slow for some seconds is looked into: how much more does the connection carry?
2. Where that is little, the peer is called over TCP, and as much is sent over that.
3. If TCP is far ahead it is preferred until the network changes, beside later connections, too. Running tunnels stay.
"""

from dataclasses import dataclass

import trio

from peertunnel.boundary import contained
from peertunnel.events import Emit, Warned
from peertunnel.node import Node
from peertunnel.paths import Paths
from peertunnel.transport import perf
from peertunnel.transport.connection import MuxedConnection

LOOK = 1.0  # seconds between looks at what a connection carries
LOOKS = 3  # of them at which a transfer has to be slow
BUSY = 16 * 1024  # bytes a second; less is no transfer
SLOW = 2 * 1024 * 1024  # bytes a second; who gets more has little to complain of
FASTER = 2.0  # times what QUIC carries; TCP begins slowly, and shares the line with what goes over QUIC
PROBE = 3.0  # seconds for one measurement, of 1 MiB at the most
PAUSE = 3600.0  # seconds until slow transfers are looked into again: each time costs 2 MiB
PROOF = 5.0  # seconds to prove ourselves over TCP


@dataclass(frozen=True, slots=True)
class Suspicion:
    """A connection over which a transfer is slow: the direction, and bytes a second."""

    connection: MuxedConnection
    is_upwards: bool
    rate: float

    async def measure(self, connection: MuxedConnection) -> float | None:
        """Return how many bytes a second a connection carries in this direction; see `perf.measure`."""
        sent, received = (perf.MAX_SIZE, 0) if self.is_upwards else (0, perf.MAX_SIZE)
        return await perf.measure(connection, sent=sent, received=received, within=PROBE)


class Throttle:
    """What a consumer has found out about UDP in the network that it is in.

    Args:
        node: whose provider it is.
        emit: takes the warning.
    """

    def __init__(self, node: Node, emit: Emit) -> None:
        self._node = node
        self._emit = emit
        self._slowed_in: trio.Event | None = None  # the network, by the event of its change

    @property
    def is_known(self) -> bool:
        """Whether UDP is slowed down here."""
        return self._slowed_in is self._node.host.network_changed

    async def watch(self, paths: Paths) -> None:
        """Have the faster transport preferred, until cancelled."""
        while True:
            suspicion = await self._suspect(paths)
            await contained(self.look_into, paths, suspicion)
            if paths.best is suspicion.connection:
                with trio.move_on_after(PAUSE):
                    await self._node.host.network_changed.wait()

    async def _suspect(self, paths: Paths) -> Suspicion:
        """Wait for a transfer over QUIC that is slow, or for QUIC itself where it is known to be."""
        streak, last = 0, _Look(None)
        while True:
            if not self.is_known:
                paths.prefer(None)
            look = _Look(paths.best)
            if look.connection is not None and self.is_known:
                return Suspicion(look.connection, is_upwards=False, rate=0.0)
            is_upwards, rate = look.since(last)
            streak = streak + 1 if BUSY <= rate < SLOW else 0
            if look.connection is not None and streak == LOOKS:
                return Suspicion(look.connection, is_upwards, rate)
            last = look
            await trio.sleep(LOOK)

    async def look_into(self, paths: Paths, suspicion: Suspicion) -> None:
        """Find out whether TCP is faster, and prefer it then."""
        wanted = 0.0
        if not self.is_known:
            more = await suspicion.measure(suspicion.connection)
            if more is None or suspicion.rate + more >= SLOW:
                return
            wanted = FASTER * (suspicion.rate + more)
        if (tcp := await self._node.dial_directly(suspicion.connection, "/tcp/")) is None:
            return
        paths.trial = tcp
        try:
            with trio.move_on_after(PROOF):
                while tcp not in paths:
                    await paths.changed.wait()
            if self.is_known or (await suspicion.measure(tcp) or 0.0) >= wanted:
                self._prefer(paths, tcp)
        finally:
            paths.trial = None

    def _prefer(self, paths: Paths, tcp: MuxedConnection) -> None:
        paths.prefer(tcp)
        if not self.is_known:
            self._slowed_in = self._node.host.network_changed
            self._emit(Warned("UDP is slowed down on the way to the provider: new tunnels go over TCP."))


class _Look:
    """What a connection had carried at some time, if it is one over QUIC; circuits are none."""

    def __init__(self, connection: MuxedConnection | None) -> None:
        carried = None if connection is None else connection.carried
        self.connection, self.carried = (None, (0, 0)) if carried is None else (connection, carried)
        self.time = trio.current_time()

    def since(self, before: "_Look") -> tuple[bool, float]:
        """Return whether more has gone upwards than downwards since then, and bytes a second of that; 0 if it can't tell."""
        if self.connection is None or before.connection is not self.connection:
            return False, 0.0
        sent, received = (now - then for now, then in zip(self.carried, before.carried, strict=True))
        return sent > received, max(sent, received) / (self.time - before.time)
