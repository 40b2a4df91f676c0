"""The boundary of a task in the background: what fails in it unforeseen ends nothing else."""

import logging
from collections.abc import Awaitable, Callable

_log = logging.getLogger(__name__)


async def contained(work: Callable[..., Awaitable[object]], *details: object) -> bool:
    """Do some work, called with `details`, and return whether it succeeded; its failure is logged, for peers drive it."""
    try:
        await work(*details)
    except Exception:  # noqa: BLE001  a task boundary
        _log.exception("%r failed", work)
        return False
    return True
