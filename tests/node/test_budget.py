"""How many proofs may fail, and who waits for whom."""

import pytest
import trio
import trio.testing

from peertunnel.budget import (
    BURST,
    FIRST_INTERVAL,
    LAST_INTERVAL,
    MAX_COUNTED,
    QUIET,
    STEP,
    Budget,
    Origin,
    place_of,
)

HERE = Origin("here", "somebody")


@pytest.mark.parametrize(
    ("host", "place"),
    [
        ("192.0.2.9", "192.0.2.9"),
        ("::ffff:192.0.2.9", "192.0.2.9"),
        ("2001:db8:1:2:3::9", "2001:db8:1::/56"),
        ("2001:db8:1:ff::9", "2001:db8:1::/56"),
        ("2001:db8:1:102::9", "2001:db8:1:100::/56"),
        ("fe80::1%eth0", "fe80::/56"),
    ],
)
def test_a_place_is_an_address_or_a_subscribers_network(host: str, place: str) -> None:
    assert place_of((host, 4001)) == place


async def spend(budget: Budget, count: int) -> float:
    """Fail so many times and give the seconds that it took."""
    began = trio.current_time()
    for _ in range(count):
        await budget.take(HERE)
        budget.fail(HERE)
    return trio.current_time() - began


async def test_a_burst_is_free_and_then_tokens_come_back_ever_more_slowly(autojump_clock: object) -> None:
    budget = Budget()
    assert await spend(budget, BURST) == 0
    assert await spend(budget, 1) == pytest.approx(2 * FIRST_INTERVAL)
    await spend(budget, 10 * STEP)
    assert await spend(budget, 10) == pytest.approx(10 * LAST_INTERVAL)


async def test_after_a_quiet_time_all_is_forgotten(autojump_clock: object) -> None:
    budget = Budget()
    await spend(budget, 10 * STEP)
    await trio.sleep(QUIET + 1)
    assert await spend(budget, BURST) == 0
    assert await spend(budget, 1) <= 2 * FIRST_INTERVAL


async def test_a_success_costs_nothing(autojump_clock: object) -> None:
    budget, began = Budget(), trio.current_time()
    for _ in range(10 * BURST):
        await budget.take(HERE)
        budget.give_back(HERE)
    assert trio.current_time() == began


async def wait(budget: Budget, origin: Origin, order: list[Origin]) -> None:
    """Take a token, and note whose turn it was."""
    await budget.take(origin)
    order.append(origin)


@pytest.mark.parametrize("newcomer", [Origin("elsewhere", "a newcomer"), Origin("here", "a neighbour")])
async def test_who_comes_from_where_nobody_has_failed_is_first(
    newcomer: Origin, autojump_clock: object
) -> None:
    """Or at a place from where many have, whoever has not."""
    budget, order = Budget(), list[Origin]()
    await spend(budget, BURST)
    async with trio.open_nursery() as nursery:
        for origin in (*[HERE] * 5, newcomer):
            nursery.start_soon(wait, budget, origin, order)
            await trio.testing.wait_all_tasks_blocked()
    assert order.index(newcomer) == 0
    assert len(order) == 6


async def test_who_asks_often_is_not_heard_more_often(autojump_clock: object) -> None:
    """Nobody has failed yet, and one peer asks all the time: the others of its place are as likely to come next."""
    budget, order = Budget(), list[Origin]()
    for _ in range(BURST):
        await budget.take(HERE)
    neighbour = Origin("here", "a neighbour")
    async with trio.open_nursery() as nursery:
        for _ in range(60):
            nursery.start_soon(wait, budget, HERE, order)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(wait, budget, neighbour, order)
    assert order.index(neighbour) < 40  # there is one chance in 2**40 that it is not


async def test_who_gives_up_waiting_takes_nothing_along(autojump_clock: object) -> None:
    budget = Budget()
    await spend(budget, BURST)
    with trio.move_on_after(FIRST_INTERVAL / 2):
        await budget.take(HERE)
    began = trio.current_time()
    await budget.take(HERE)
    assert trio.current_time() - began <= 2 * FIRST_INTERVAL


async def test_places_are_not_counted_without_bounds(autojump_clock: object) -> None:
    budget = Budget()
    for number in range(2 * MAX_COUNTED):
        budget.fail(Origin(f"place {number}", f"peer {number}"))
    assert len(budget._counted) == MAX_COUNTED
