"""The search for a router: every protocol is asked side by side, and the first that grants something is taken."""

from collections.abc import Awaitable, Callable
from functools import partial

import trio

from peertunnel.portmap.gateway import Gateway
from peertunnel.portmap.natpmp import NatPmpRouter
from peertunnel.portmap.pcp import PcpRouter
from peertunnel.portmap.router import NoAnswer, Refusal, Router
from peertunnel.portmap.upnp import UpnpRouter

_BETTER = 0.25  # seconds that a better protocol may come behind a worse one
_RANK = (PcpRouter.name, NatPmpRouter.name, UpnpRouter.name)  # PCP and NAT-PMP end leases that nobody renews
NOBODY = "no router here answers"  # is how the reason begins where none has refused

Find = Callable[[], Awaitable[Router]]
Try = Callable[[Router], Awaitable[bool]]


async def find_router(gateway: Gateway, secret: bytes, grants: Try) -> tuple[Router | None, str]:
    """Return the first router that grants something, or None, and why the others did not.

    secret: what PCP's mappings are made with. grants: asks a router for mappings, and tells whether it gave one.
    """
    finds: dict[str, Find] = {}
    if gateway.ip is not None:
        finds[PcpRouter.name] = partial(PcpRouter.find, gateway, secret)
    if gateway.ip is not None and gateway.own.version == 4:
        finds[NatPmpRouter.name] = partial(NatPmpRouter.find, gateway)
    if gateway.own.version == 4:
        finds[UpnpRouter.name] = partial(UpnpRouter.find, gateway)
    found, routers = trio.open_memory_channel[Router](len(finds))
    refusals: list[str] = []
    try:
        async with trio.open_nursery() as nursery:
            with found:
                for name, find in finds.items():
                    nursery.start_soon(_find, name, find, found.clone(), refusals)
            chosen = await _choose(routers, grants)
            nursery.cancel_scope.cancel()
    finally:
        await _close_all(routers)
    return chosen, "; ".join(refusals) or f"{NOBODY} to {', '.join(finds)}"


async def _find(name: str, find: Find, found: "trio.MemorySendChannel[Router]", refusals: list[str]) -> None:
    with found:
        try:
            found.send_nowait(await find())
        except NoAnswer:
            pass  # most routers don't speak all three
        except Refusal as error:
            refusals.append(f"{name}: {error}")


async def _choose(routers: "trio.MemoryReceiveChannel[Router]", grants: Try) -> Router | None:
    """Try the routers as they come, the best first of those that come together; all but the chosen one are closed."""
    waiting: list[Router] = []
    try:
        while True:
            with trio.move_on_after(_BETTER if waiting else float("inf")) as patience:
                async for router in routers:
                    waiting.append(router)
                    patience.deadline = min(patience.deadline, trio.current_time() + _BETTER)
            if not waiting:
                return None
            waiting.sort(key=lambda router: _RANK.index(router.name))
            router = waiting.pop(0)
            if await grants(router):
                return router
            await router.aclose()
    finally:
        with trio.CancelScope(shield=True):
            for router in waiting:
                await router.aclose()


async def _close_all(routers: "trio.MemoryReceiveChannel[Router]") -> None:
    """Close the routers that came too late."""
    with trio.CancelScope(shield=True):
        async for router in routers:  # nobody sends any more
            await router.aclose()
