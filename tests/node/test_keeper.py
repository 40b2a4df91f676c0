"""Who wants a connection while the provider is lost gets one to the next."""

import pytest
import trio
import trio.testing

from peertunnel import keeper
from peertunnel.keeper import Keeper
from peertunnel.paths import Paths
from peertunnel.protocols.service import Service
from peertunnel.transport.connection import MuxedConnection
from tests.node.pair import PATIENCE, Log, node, until

STEPS = 100  # of the scheduler, which are more than a loss takes


async def test_who_waits_for_a_provider_gets_the_next_one(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(Paths):
        async def follow(self) -> None:
            await super().follow()
            await is_waited_for.wait()
            raise RuntimeError("on purpose")

    is_waited_for, met = trio.Event(), list[MuxedConnection]()
    monkeypatch.setattr(keeper, "Paths", Broken)
    monkeypatch.setattr(keeper, "FAILURE_PAUSE", 0.01)
    async with node() as there, node(()) as here, trio.open_nursery() as nursery:
        kept = Keeper(here, Service.from_addresses(there.addresses), Log())
        nursery.start_soon(kept.run)
        with trio.fail_after(PATIENCE):
            first = await kept.connection()
            await first.close()

        async def wait() -> None:
            met.append(await kept.connection())

        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        is_waited_for.set()
        await until(lambda: met)
        assert met[0] is not first
        nursery.cancel_scope.cancel()


async def test_who_comes_as_a_provider_is_lost_waits_for_the_next() -> None:
    """At whatever moment: one comes at each step of what follows from the loss."""
    async with node() as there, node(()) as here, trio.open_nursery() as nursery:
        kept = Keeper(here, Service.from_addresses(there.addresses), Log())
        nursery.start_soon(kept.run)
        served = 0

        async def wait() -> None:
            nonlocal served
            while (await kept.connection()) is first:
                await trio.lowlevel.checkpoint()
            served += 1

        with trio.fail_after(PATIENCE):
            first = await kept.connection()
            nursery.start_soon(first.close)
            for _ in range(STEPS):
                nursery.start_soon(wait)
                await trio.lowlevel.checkpoint()
        await until(lambda: served == STEPS)
        nursery.cancel_scope.cancel()
