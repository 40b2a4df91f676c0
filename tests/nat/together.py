"""Cases side by side: each mostly waits, for a network to fail or a hole to open."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from concurrent.futures import Future
from contextlib import AbstractContextManager, asynccontextmanager

import trio

from tests.traffic.processes import lasting

AT_ONCE = 5  # with some three programs each, on two cores

Case = Callable[[], Awaitable[object]]
Ends = Mapping[str, Future[None]]


async def together(cases: Mapping[str, Case], at_once: int = AT_ONCE) -> None:
    """Run cases, a few at a time and the first ones first; what fails is raised by its name when all have ended."""
    failed: list[Exception] = []
    turns = trio.Semaphore(at_once)

    async def run(name: str, case: Case) -> None:
        try:
            await case()
        except Exception as error:  # noqa: BLE001  the others go on
            error.add_note(f"in the case {name!r}")
            failed.append(error)
        finally:
            turns.release()

    async with trio.open_nursery() as nursery:
        for name, case in cases.items():
            await turns.acquire()  # here: tasks begin in any order
            nursery.start_soon(run, name, case)
    if failed:
        raise ExceptionGroup(f"{len(failed)} of {len(cases)} cases failed", failed)


@asynccontextmanager
async def _begun(cases: Mapping[str, Case]) -> AsyncIterator[Ends]:
    ends: Ends = {name: Future() for name in cases}

    async def run(name: str, case: Case) -> None:
        try:
            await case()
        except trio.Cancelled:
            raise
        except BaseException as error:  # noqa: BLE001  the test that asks for it is told, of a skip too
            error.add_note(f"in the case {name!r}")
            ends[name].set_exception(error)
        else:
            ends[name].set_result(None)

    async with trio.open_nursery() as nursery:
        for name, case in cases.items():
            nursery.start_soon(run, name, case)
        yield ends
        nursery.cancel_scope.cancel()


def meanwhile(cases: Mapping[str, Case]) -> AbstractContextManager[Ends]:
    """Run cases, which must do next to nothing but wait, all at once in a thread of their own, while tests go on.

    They run programs: hosts of this process share buffers with those of the tests, and must not be in two threads.
    A test has the result of its case wait for the case's end, and raise what it raised. Who leaves the block ends the rest.
    """
    return lasting(_begun(cases))
