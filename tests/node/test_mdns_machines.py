"""mDNS between processes, on machines that have networks of their own."""

from tests.node.lan import open_machine
from tests.node.wire import new_peer, place

ROOT = b"r" * 32
HERE = "/ip4/0.0.0.0/tcp/4001"


async def test_processes_meet_when_every_interface_but_loopback_is_down() -> None:
    peer_id = new_peer()
    async with open_machine() as machine:
        cable = await machine.cable("10.1.0.1/24")
        await cable.down()
        assert "MULTICAST" not in await machine.run("ip", "address", "show", "lo")
        async with machine.finding(ROOT) as early, machine.announcing(peer_id, ROOT, HERE) as provider:
            await early.event("ready")
            await provider.event("ready")
            await early.event("found", seconds=1, first=place(peer_id), more=[])
            async with machine.finding(ROOT) as late:
                await late.event("ready")
                await late.event("found", seconds=1, first=place(peer_id), more=[])


async def test_a_killed_process_is_found_at_its_new_address_within_a_second() -> None:
    peer_id = new_peer()
    async with open_machine() as machine, machine.finding(ROOT) as finder:
        await finder.event("ready")
        async with machine.announcing(peer_id, ROOT, HERE) as provider:
            await finder.event("found", first=place(peer_id), more=[])
            provider.process.kill()
            await provider.process.wait()
        async with machine.announcing(peer_id, ROOT, "/ip4/0.0.0.0/tcp/4002") as provider:
            await provider.event("ready")
            await finder.event("found", seconds=1, first=place(peer_id, 4002), more=[place(peer_id)])


async def test_machines_meet_as_soon_as_the_cable_is_in() -> None:
    peer_id = new_peer()
    async with (
        open_machine() as left,
        open_machine(left) as right,
        left.finding(ROOT) as finder,
        right.announcing(peer_id, ROOT, HERE) as provider,
    ):
        await finder.event("ready")
        await provider.event("ready")
        cable = await left.cable("10.1.0.1/24", (right, "10.1.0.2/24"))
        there = f"/ip4/10.1.0.2/tcp/4001/p2p/{peer_id}"
        await finder.event("found", seconds=5, first=there, more=[])
        await right.run("ip", "address", "flush", "dev", cable.far_name)
        await right.run("ip", "address", "add", "10.1.0.3/24", "dev", cable.far_name)
        await finder.event("found", seconds=5, first=there.replace("0.2", "0.3"))


async def test_machines_meet_over_ipv6() -> None:
    peer_id = new_peer()
    async with open_machine() as left, open_machine(left) as right:
        await left.cable("fd00::1/64", (right, "fd00::2/64"))
        async with left.finding(ROOT) as finder, right.announcing(peer_id, ROOT, "/ip6/::/tcp/4001"):
            await finder.event("found", first=f"/ip6/fd00::2/tcp/4001/p2p/{peer_id}", more=[])


async def test_loopback_addresses_stay_at_home() -> None:
    peer_id = new_peer()
    there = f"/ip4/10.1.0.2/tcp/4001/p2p/{peer_id}"
    async with open_machine() as left, open_machine(left) as right:
        await left.cable("10.1.0.1/24", (right, "10.1.0.2/24"))
        async with (
            left.finding(ROOT) as elsewhere,
            right.finding(ROOT) as home,
            right.announcing(peer_id, ROOT, HERE),
        ):
            await elsewhere.event("found", first=there, more=[])
            await home.event("found", first=there, more=[place(peer_id)])
            assert len(elsewhere.past("found")) == len(elsewhere.past("found", more=[]))
