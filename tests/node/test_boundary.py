"""What fails in the background is logged and ends nothing else; what cancels it goes on."""

import logging

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from peertunnel.boundary import contained, repeated


async def fail(reason: str) -> None:
    raise ValueError(reason)


async def test_a_failure_is_logged_and_ends_nothing_else(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(contained, fail, "on purpose")
            await trio.testing.wait_all_tasks_blocked()
            assert not nursery.cancel_scope.cancel_called
    assert "on purpose" in caplog.text


async def test_a_failure_that_repeats_is_logged_in_full_once(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    reasons = ["one", "one", "one", "another", "another"]

    async def fail_for_each() -> None:
        await fail(reasons.pop(0))

    with trio.move_on_after(4.5):
        await repeated(1, fail_for_each)
    assert not reasons
    assert [record.exc_info is not None for record in caplog.records] == [True, False, False, True, False]
    assert "ValueError('one')" in caplog.messages[1]


async def test_who_is_cancelled_ends() -> None:
    with trio.move_on_after(0) as scope:
        await contained(trio.sleep_forever)
    assert scope.cancelled_caught
