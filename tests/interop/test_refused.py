"""Only Noise and TLS secure a connection and only yamux divides it: whoever offers else is refused, dialling or dialled."""

from pathlib import Path

import pytest
import trio

from tests.interop.exchanges import check, client_half_closes, read_until_reset
from tests.interop.peers import STOP_SECONDS
from tests.interop.tunnels import (
    foreign_consumer,
    foreign_provider,
    pt_consumer,
    pt_provider,
    tcp_address,
    tunnel,
)

transports = pytest.mark.parametrize(
    ("transport", "refusal"),
    (
        ("plain", "failed to negotiate security protocol"),
        ("secio", "failed to negotiate security protocol"),
        ("mplex", "failed to negotiate stream multiplexer"),
    ),
)


@transports
async def test_pt_refuses_who_dials_it(gopeer: Path, tmp_path: Path, transport: str, refusal: str) -> None:
    async with tunnel(pt_provider(tmp_path), foreign_consumer(gopeer)) as joined:
        address = tcp_address(await joined.provider.event("ready"))
        async with foreign_consumer(gopeer, "--transport", transport)(address) as refused:
            assert refusal in (await refused.event("error"))["message"]
            with trio.fail_after(STOP_SECONDS):
                assert await refused.process.wait() == 1
            assert refused.past("connected") == []
        await check(client_half_closes, joined)


@transports
async def test_pt_refuses_whom_it_dials(gopeer: Path, tmp_path: Path, transport: str, refusal: str) -> None:
    async with tunnel(
        foreign_provider(gopeer, "--transport", transport), pt_consumer(tmp_path, "--wait", "2")
    ) as joined:
        with trio.fail_after(STOP_SECONDS):
            await read_until_reset(await joined.connect())
        assert joined.provider.past("connected") == []
        assert joined.provider.past("tunnel-opened") == []
