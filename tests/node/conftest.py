"""What the tests of the node share."""

from collections.abc import AsyncIterator

import pytest

from tests.node.wire import Wire, open_wire


@pytest.fixture
async def wire() -> AsyncIterator[Wire]:
    """A loopback wire for mDNS nodes."""
    async with open_wire() as opened:
        yield opened
