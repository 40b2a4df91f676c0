"""AutoNAT servers of every make tell a machine behind each kind of router whether strangers reach it."""

import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import trio

from tests.nat.crossing import open_lab
from tests.nat.lab.kinds import Kind, Nat, Public
from tests.nat.lab.lab import Lab
from tests.nat.makes import PORT, Go, Make, Pt, Rust
from tests.nat.recorded import Recorded, recorded
from tests.nat.together import together

MAKES: tuple[Make, ...] = (Pt(), Go(), Rust())
SETTLED_SECONDS = 60.0  # until it is known: dials that nobody answers take 10 s, or 15


@asynccontextmanager
async def servers(lab: Lab, folder: Path) -> AsyncIterator[list[str]]:
    """Run a server of each make on a public machine of its own; their addresses."""
    async with AsyncExitStack() as stack:
        found: list[str] = []
        for make in MAKES:
            machine = lab.host(make.name)
            command = make.relay(machine, True)
            process = await stack.enter_async_context(recorded(command, folder / make.name))
            peer_id = (await process.event("ready")).fields["peer_id"]
            found.append(f"/ip4/{machine.ip}/tcp/{PORT}/p2p/{peer_id}")
        yield found


async def settled(process: Recorded) -> dict[str, object]:
    """Wait until more is known than nothing."""
    with trio.move_on_after(SETTLED_SECONDS):
        while True:
            for told in process.past("reachability"):
                if told.fields["value"] != "unknown":
                    return told.fields
            await process.news()
    raise AssertionError(f"nothing known within {SETTLED_SECONDS} s:\n{process}")


VALUES: dict[Kind, str] = {"none": "public", "full-cone": "public", "cone": "private", "firewall": "private"}


async def _learns(kind: Kind, folder: Path) -> None:
    public = {make.name: Public() for make in MAKES}
    async with open_lab({"asker": Nat(kind)}, public) as lab, servers(lab, folder) as places:
        machine = lab.host("asker")
        command = machine.command(sys.executable, "-m", "tests.nat.autonat_process", str(PORT), *places)
        async with recorded(command, folder) as process:
            found = await settled(process)
            assert found["value"] == VALUES[kind]
            assert len(found["addresses"]) == (VALUES[kind] == "public")  # type: ignore[arg-type]


@pytest.mark.usefixtures("gopeer", "rspeer")
async def test_a_machine_learns_whether_strangers_reach_it(tmp_path_factory: pytest.TempPathFactory) -> None:
    await together({kind: partial(_learns, kind, tmp_path_factory.mktemp(kind)) for kind in VALUES})
