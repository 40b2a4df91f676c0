"""Tunnels between `pt` and the Go peer, over Noise and TLS, each dialling the other."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.interop.exchanges import EXCHANGES, Exchange, check
from tests.interop.tunnels import (
    Tunnel,
    foreign_consumer,
    foreign_provider,
    pt_consumer,
    pt_provider,
    tunnel,
)


@pytest.fixture(params=("noise", "tls"))
def transport(request: pytest.FixtureRequest) -> tuple[str, str]:
    """What the Go peer is told to offer, and nothing else."""
    return "--transport", request.param


@pytest.fixture(params=("pt_to_go", "go_to_pt"))
async def joined(
    request: pytest.FixtureRequest, gopeer: Path, transport: tuple[str, str], tmp_path: Path
) -> AsyncIterator[Tunnel]:
    """A tunnel with the Go peer as its provider or as its consumer."""
    if request.param == "pt_to_go":
        ends = foreign_provider(gopeer, *transport), pt_consumer(tmp_path)
    else:
        ends = pt_provider(tmp_path), foreign_consumer(gopeer, *transport)
    async with tunnel(*ends) as joined:
        yield joined


@pytest.mark.parametrize("exchange", EXCHANGES, ids=lambda exchange: exchange.__name__)
async def test_exchange(joined: Tunnel, exchange: Exchange) -> None:
    await check(exchange, joined)
