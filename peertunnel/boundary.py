"""The boundary of a task in the background: what fails in it unforeseen ends nothing else."""

import logging
import traceback
from collections.abc import Awaitable, Callable

import trio

_log = logging.getLogger(__name__)
_told: dict[str, int] = {}  # the hash of each function's last failure, as it was logged


async def contained(work: Callable[..., Awaitable[object]], *details: object) -> bool:
    """Do some work, called with `details`, and return whether it succeeded; its failure is logged, for peers drive it."""
    try:
        await work(*details)
    except Exception as error:  # noqa: BLE001  a task boundary
        note_failure(work, error)
        return False
    return True


async def repeated(pause: float, work: Callable[..., Awaitable[object]], *details: object) -> None:
    """Do some work, contained, and again after each pause (in seconds), until cancelled."""
    while True:
        await contained(work, *details)
        await trio.sleep(pause)


def note_failure(work: Callable[..., object], error: Exception) -> None:
    """Log a failure; one that is the same as the last one of this function gets a line, since rounds repeat without end."""
    name = getattr(work, "__qualname__", type(work).__qualname__)
    places = [(frame.f_code.co_name, line) for frame, line in traceback.walk_tb(error.__traceback__)]
    failure = hash((repr(error), *places))  # cheaper than the text, for peers may drive it
    if _told.get(name) == failure:
        _log.error("%r failed again: %r", work, error)
    else:
        _told[name] = failure
        _log.error("%r failed", work, exc_info=error)
