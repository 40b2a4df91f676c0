"""Cases side by side: each mostly waits, for a network to fail or a hole to open."""

from collections.abc import Awaitable, Callable, Mapping

import trio

AT_ONCE = 5  # with some three programs each, on two cores


async def together(cases: Mapping[str, Callable[[], Awaitable[None]]], at_once: int = AT_ONCE) -> None:
    """Run cases, a few at a time; what fails is raised under the case's name when all have ended."""
    failed: list[Exception] = []
    turns = trio.CapacityLimiter(at_once)

    async def run(name: str, case: Callable[[], Awaitable[None]]) -> None:
        async with turns:
            try:
                await case()
            except Exception as error:  # noqa: BLE001  the others go on
                error.add_note(f"in the case {name!r}")
                failed.append(error)

    async with trio.open_nursery() as nursery:
        for name, case in cases.items():
            nursery.start_soon(run, name, case)
    if failed:
        raise ExceptionGroup(f"{len(failed)} of {len(cases)} cases failed", failed)
