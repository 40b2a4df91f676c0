"""The load on all routes, and what went wrong with it."""

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from random import Random
from typing import TYPE_CHECKING

import trio

from tests.soak.exchanges import ALL, Exchange, Short, Want, Wrong, answer, request, short
from tests.soak.stage import Route

if TYPE_CHECKING:
    from trio_typing import TaskStatus

PATIENCE = 90.0  # seconds for one tunnel, on a busy machine
BACK_SECONDS = 60.0  # seconds for the load to come back after a kill
_REST_SECONDS = 90.0  # seconds for the tunnels that are open to end
_BREATH = 0.02  # seconds between the tunnels of one client, and between two tries
_CUTS = (OSError, trio.BrokenResourceError, trio.ClosedResourceError)


class Load:
    """Clients on every route, one for each exchange, and the target that they meet.

    Attributes:
        routes: what they use.
        tunnels: how many of each exchange ended as they should.
        checked: bytes.
        cut: tunnels that a kill cut.
        failures: what should not have happened.
    """

    def __init__(self, random: Random) -> None:
        self.routes: list[Route] = []
        self.tunnels: Counter[str] = Counter()
        self.checked = self.cut = 0
        self.failures: list[str] = []
        self._random = random
        self._may_go = trio.Event()
        self._is_idle = trio.Event()
        self._busy = 0

    async def run(self, routes: list[Route]) -> None:
        """Keep all clients busy, but at rest, until cancelled."""
        self.routes = routes
        async with trio.open_nursery() as nursery:
            for route in routes:
                for name, exchange in ALL.items():
                    nursery.start_soon(self._repeat, route, name, exchange)

    async def _repeat(self, route: Route, name: str, exchange: Exchange) -> None:
        while True:
            await self._may_go.wait()
            self._busy += 1
            await self._tunnel(route, name, exchange)
            self._busy -= 1
            if not self._busy:
                self._is_idle.set()
            await trio.sleep(_BREATH)

    async def _tunnel(self, route: Route, name: str, exchange: Exchange) -> None:
        """Use one tunnel; what goes wrong is a failure, unless an end of it was killed."""
        consumer, kills, was_whole = route.consumer.kills, route.kills, route.is_whole
        try:
            with trio.fail_after(PATIENCE):
                async with await trio.open_tcp_stream("127.0.0.1", route.port) as stream:
                    self.checked += await exchange(stream, route.number, self._random)
            self.tunnels[name] += 1
            return
        except _CUTS as error:
            is_excused, what = not was_whole or route.kills != kills, f"was cut: {error!r}"
        except (
            Short
        ) as error:  # the system ends the connections of a process that was killed, and not all by a reset
            is_excused, what = route.consumer.kills != consumer, str(error)
        except Wrong as error:
            is_excused, what = False, str(error)
        except trio.TooSlowError:
            is_excused, what = False, f"hung for {PATIENCE:g} s"
        if is_excused:
            self.cut += 1
        else:
            self.failures.append(f"{route.name}: {name}: {what}")

    @asynccontextmanager
    async def rest(self) -> AsyncIterator[None]:
        """Open no tunnels for the length of the block, which begins when none is left."""
        self._may_go = trio.Event()
        with trio.fail_after(_REST_SECONDS):
            while self._busy:
                self._is_idle = trio.Event()
                await self._is_idle.wait()
        yield
        self.go()

    def go(self) -> None:
        """Let the clients begin."""
        self._may_go.set()

    async def back(self, route: Route) -> float:
        """Wait until a route carries tunnels again; return how many seconds that took."""
        began = trio.current_time()
        with trio.fail_after(BACK_SECONDS):
            while True:
                try:
                    async with await trio.open_tcp_stream("127.0.0.1", route.port) as stream:
                        await short(stream, route.number, self._random)
                    return trio.current_time() - began
                except (*_CUTS, Short):
                    await trio.sleep(_BREATH)

    # -- the target -----------------------------------------------------------------------------------------------

    async def serve(self, task_status: "TaskStatus[int]" = trio.TASK_STATUS_IGNORED) -> None:
        """Serve the target of all providers until cancelled; its port is told at the start."""
        async with trio.open_nursery() as nursery:
            serve = partial(trio.serve_tcp, self._serve, 0, host="127.0.0.1")
            (listener,) = await nursery.start(serve)
            task_status.started(listener.socket.getsockname()[1])

    async def _serve(self, stream: trio.SocketStream) -> None:
        try:
            want, number, size = await request(stream)
        except (*_CUTS, Short):
            return  # a client that was killed on its way
        provider = self.routes[number].provider
        kills = provider.kills
        try:
            await answer(stream, want, size)
        except _CUTS:
            pass  # the client knows why
        except Wrong as error:
            if provider.kills == kills:
                self.failures.append(f"{self.routes[number].name}: target: {Want(want).name}: {error}")
