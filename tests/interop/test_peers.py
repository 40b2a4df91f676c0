"""The foreign peers among themselves: where these fail, a failure against `pt` says nothing about `pt`."""

from pathlib import Path

import pytest

from tests.interop.exchanges import ENDS, Exchange, bulk_both_ways, check
from tests.interop.tunnels import foreign_consumer, foreign_provider, tunnel


@pytest.mark.parametrize("exchange", (bulk_both_ways, *ENDS), ids=lambda exchange: exchange.__name__)
@pytest.mark.parametrize("transport", ("noise", "tls"))
@pytest.mark.parametrize("direction", ("go_to_go", "go_to_rust", "rust_to_go"))
async def test_exchange(
    gopeer: Path, rspeer: Path, direction: str, transport: str, exchange: Exchange
) -> None:
    consumer, _, provider = direction.partition("_to_")
    binaries = {"go": gopeer, "rust": rspeer}
    async with tunnel(
        foreign_provider(binaries[provider], "--transport", transport),
        foreign_consumer(binaries[consumer], "--transport", transport),
    ) as joined:
        await check(exchange, joined)
