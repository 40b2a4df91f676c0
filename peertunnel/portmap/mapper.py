"""The port mapper of a node: a keeper for each router, and the addresses that come of it."""

import logging
import secrets
from collections.abc import Callable, Iterable

import trio

from peertunnel.boundary import repeated
from peertunnel.changes import watch_network
from peertunnel.interfaces import IPAddress
from peertunnel.portmap.announcements import listen
from peertunnel.portmap.gateway import Gateway, default_gateways
from peertunnel.portmap.keeper import Keeper
from peertunnel.portmap.listener import Listener
from peertunnel.portmap.status import Status

LEASE = 7200  # seconds (RFC 6886 section 3.3)
_DEAF = 60.0  # seconds until we listen again where that has failed
_LOOK = 2.0  # seconds between looks at the routes and at what we listen on
_log = logging.getLogger(__name__)


class PortMapper:
    """Maps the ports that we listen on. Its run() goes into a nursery; nothing waits for it."""

    def __init__(
        self,
        ports: Callable[[], Iterable[Listener]],
        *,
        secret: bytes | None = None,
        lease: int = LEASE,
    ) -> None:
        """Map ports.

        Args:
            ports: tells what we listen on at the moment; see `listeners`.
            secret: up to 64 bytes that only we know, and know again after a crash, so that a PCP router gives us the same
                port again; random by default.
            lease: seconds that mappings shall last; they are renewed at half of it.
        """
        self._ports = ports
        self._secret = secrets.token_bytes() if secret is None else secret
        self._lease = lease
        self._keepers: dict[Gateway, tuple[Keeper, trio.CancelScope]] = {}
        self._looked = trio.Event()

    @property
    def addresses(self) -> tuple[str, ...]:
        """The multiaddrs under which the whole internet reaches us through routers, without our peer id."""
        found = [status.address for status in self.statuses]
        return tuple(dict.fromkeys(address for address in found if address is not None))

    @property
    def statuses(self) -> tuple[Status, ...]:
        """How every port stands at every router; empty before the first look at the routes."""
        if self._looked.is_set() and not self._keepers:
            return (Status(None, why_not="there is no router: this machine has no default route"),)
        return tuple(status for keeper, _ in self._keepers.values() for status in keeper.statuses)

    async def settled(self) -> None:
        """Wait until every router has granted something, or has been asked in vain: some seconds."""
        await self._looked.wait()
        for keeper, _ in list(self._keepers.values()):
            await keeper.settled.wait()

    async def run(self) -> None:
        """Map until cancelled, then remove all mappings, which takes a second at most."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(repeated, _DEAF, self._listen)
            nursery.start_soon(watch_network, self._ask_again)
            await repeated(_LOOK, self._look, nursery)

    async def _look(self, nursery: trio.Nursery) -> None:
        """Begin with routers that have appeared, and end with those that are gone."""
        try:
            gateways = default_gateways()
        except OSError:
            return  # no descriptors left, say: that is no news of them
        listeners = tuple(self._ports())
        for gateway in [gateway for gateway in self._keepers if gateway not in gateways]:
            _, scope = self._keepers.pop(gateway)
            scope.cancel()
        for gateway in gateways:
            if gateway in self._keepers:
                self._keepers[gateway][0].want(listeners)
                continue
            keeper = Keeper(gateway, listeners, self._secret, self._lease)
            scope = trio.CancelScope()
            self._keepers[gateway] = keeper, scope
            nursery.start_soon(_run, keeper, scope)
        self._looked.set()

    async def _listen(self) -> None:
        try:
            await listen(self._hear)
        except OSError as error:  # another program has the port for itself, or there are no descriptors left
            _log.info("Can't hear routers that restart: %s", error)

    def _hear(self, source: IPAddress) -> None:
        for gateway, (keeper, _) in self._keepers.items():
            if gateway.ip == source:
                keeper.wake()

    async def _ask_again(self) -> None:
        """Ask every router at once: the network has changed under us, or the machine was asleep."""
        for keeper, _ in self._keepers.values():
            keeper.wake()


async def _run(keeper: Keeper, scope: trio.CancelScope) -> None:
    with scope:
        await repeated(_LOOK, keeper.run)  # routers drive what happens in it
