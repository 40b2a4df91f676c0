"""The keeper of our mappings at one router: made, renewed, made again when they are lost, removed at the end."""

import logging
from collections.abc import Iterable

import trio

from peertunnel.portmap.gateway import Gateway
from peertunnel.portmap.listener import Listener
from peertunnel.portmap.router import Mapping, NoAnswer, Refusal, Router
from peertunnel.portmap.search import find_router
from peertunnel.portmap.status import Status, status_of

_CHECK = 120.0  # seconds between renewals at most, so that a router that has forgotten us is noticed
_SHORTEST = 1.0  # seconds between renewals at least, whatever the router's leases are
_AFTER_LOSS = (5.0, 10.0, 30.0, 60.0)  # seconds between searches for a router that was there
_AFTER_NONE = (300.0, 1800.0)  # seconds between searches where there was none
_FAREWELL = 1.0  # seconds to remove the mappings in
_log = logging.getLogger(__name__)


class Keeper:
    """One router's mappings. statuses: how they stand, one for each listener."""

    def __init__(
        self,
        gateway: Gateway,
        wanted: Iterable[Listener],
        secret: bytes,
        lease: int,
    ) -> None:
        """Keep mappings of what is wanted at a router; see `PortMapper` for secret and lease."""
        self.gateway = gateway
        self.statuses: tuple[Status, ...] = ()
        self.settled = trio.Event()
        self._wanted = self._of_our_version(wanted)
        self._secret = secret
        self._lease = lease
        self._held: dict[Listener, Mapping] = {}
        self._refused: dict[Listener, str] = {}
        self._router: Router | None = None
        self._wake = trio.Event()

    def want(self, listeners: Iterable[Listener]) -> None:
        """Change what is mapped."""
        wanted = self._of_our_version(listeners)
        if wanted != self._wanted:
            self._wanted = wanted
            self._wake.set()

    def wake(self) -> None:
        """Ask the router at once: it has announced that it lost its mappings, has another address, or is there at last."""
        self._wake.set()

    async def run(self) -> None:
        """Keep the mappings until cancelled, and remove them then, which takes a second at most."""
        try:
            delays = iter(_AFTER_NONE)
            delay = _AFTER_NONE[-1]
            while True:
                if await self._search():
                    await self._renew()
                    delays = iter(_AFTER_LOSS + _AFTER_NONE)
                else:
                    delay = next(delays, delay)
                    await self._sleep(delay)
        finally:
            self._publish(())
            with trio.move_on_after(_FAREWELL) as farewell:
                farewell.shield = True
                await self._leave()

    async def _search(self) -> bool:
        """Look for a router that maps something; without one nothing is mapped any longer."""
        if not self._wanted:
            why_not = ""
        else:
            router, why_not = await find_router(self.gateway, self._secret, self._map_all)
            if router is not None:
                self._show(router)
                return True
            _log.info("No port is mapped at %s: %s", self.gateway.ip or "any router", why_not)
        self._held.clear()
        self._publish(Status(self.gateway.ip, listener, why_not=why_not) for listener in self._wanted)
        return False

    async def _renew(self) -> None:
        """Renew what is mapped, until the router is lost."""
        router = self._router
        while router is not None:
            leases = [mapping.lease / 2 for mapping in self._held.values() if mapping.lease]
            await self._sleep(min([*leases, _CHECK]))
            await self._unmap(router, [listener for listener in self._held if listener not in self._wanted])
            if not await self._map_all(router) and not await self._map_again(router):
                _log.info("%s at %s is lost", router.name, self.gateway.ip or "a router")
                await router.aclose()
                return
            self._show(router)

    async def _map_again(self, router: Router) -> bool:
        """Ask a router once more that has refused: it may have been between two addresses of its own."""
        if not self._refused:
            return False
        await trio.sleep(_SHORTEST)
        return await self._map_all(router)

    async def _sleep(self, seconds: float) -> None:
        """Wait for the time, or for news."""
        await trio.sleep(_SHORTEST)  # a router that always has news gets no more of us than this
        with trio.move_on_after(max(0.0, seconds - _SHORTEST)):
            await self._wake.wait()
        self._wake = trio.Event()

    async def _map_all(self, router: Router) -> bool:
        """Map or renew what is wanted; tell whether the router is there and does so for anything."""
        self._router = router
        self._refused.clear()
        for listener in self._wanted:
            try:
                mapping = await router.map(listener, self._lease, self._held.get(listener))
            except Refusal as error:
                self._refused[listener] = f"{router.name}: {error}"
                self._held.pop(listener, None)
            except NoAnswer:
                self._router = None
                return False
            else:
                self._held[listener] = mapping
        grants = any(listener in self._held for listener in self._wanted)
        if not grants:
            self._router = None
        return grants

    async def _unmap(self, router: Router, listeners: Iterable[Listener]) -> None:
        for listener in listeners:
            try:
                await router.unmap(self._held.pop(listener))
            except Refusal as error:
                _log.info("%s keeps the mapping of port %d: %s", router.name, listener.port, error)
            except NoAnswer:
                return  # its lease ends by itself

    async def _leave(self) -> None:
        router, self._router = self._router, None
        if router is not None:
            await self._unmap(router, list(self._held))
            await router.aclose()

    def _show(self, router: Router) -> None:
        gateway = self.gateway.ip
        self._publish(
            status_of(gateway, router.name, self._held[listener])
            if listener in self._held
            else Status(gateway, listener, why_not=self._refused.get(listener, ""))
            for listener in self._wanted
        )

    def _publish(self, statuses: Iterable[Status]) -> None:
        before, self.statuses = self.statuses, tuple(statuses)
        self.settled.set()
        if self.statuses != before:
            for status in self.statuses:
                _log.info("%s", status)

    def _of_our_version(self, listeners: Iterable[Listener]) -> tuple[Listener, ...]:
        return tuple(listener for listener in listeners if listener.version == self.gateway.own.version)
