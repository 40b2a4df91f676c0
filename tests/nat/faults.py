"""What befalls networks: a router that forgets, moves, is cut off or replaced."""

from collections.abc import Awaitable, Callable

import trio

from tests.nat.crossing import Site
from tests.nat.lab.machines import Router

OUTAGE_SECONDS = 20.0

Fault = Callable[[Site, Router], Awaitable[None]]


async def flushed(site: Site, router: Router) -> None:
    """The router is switched off and on: it has forgotten every connection."""
    router.flush()


async def renumbered(site: Site, router: Router) -> None:
    """The provider gives the router another address."""
    router.renumber()


async def cut_off(site: Site, router: Router, seconds: float = OUTAGE_SECONDS) -> None:
    """The line is dead for a while."""
    router.wan_down()
    await trio.sleep(seconds)
    router.wan_up()


async def replaced(site: Site, router: Router) -> None:
    """Another router takes its place, with another address, one that is symmetric."""
    router.renumber()
    router.load(kind="symmetric")


async def moved(site: Site, router: Router) -> None:
    """A machine behind the router gets another address there, as in another room."""
    machine = router.hosts[0]
    (line,) = (line for line in machine.run("ip", "-o", "-4", "addr").splitlines() if machine.ip in line)
    device, old = line.split()[1], line.split()[3]
    new = machine.ip.rpartition(".")[0] + ".77/" + old.partition("/")[2]
    route = next(line for line in machine.run("ip", "route").splitlines() if line.startswith("default"))
    machine.run("ip", "addr", "del", old, "dev", device)
    machine.run("ip", "addr", "add", new, "dev", device)
    machine.run("ip", "route", "replace", *route.split())


async def relay_killed(site: Site, router: Router) -> None:
    """The relay is gone, for good."""
    site.relay.process.kill()
    await site.relay.process.wait()
