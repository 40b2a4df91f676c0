"""Ports are mapped at a real router, miniupnpd, in each of its protocols, and a stranger comes in through them."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from functools import partial

import pytest
import trio

from tests.interop.peers import Running
from tests.nat.home import HOST6, OUTSIDE, PORT, RENUMBERED, Home, open_home
from tests.nat.together import Ends, meanwhile, together

TCP, UDP = f"/ip4/{OUTSIDE}/tcp/{PORT}", f"/ip4/{OUTSIDE}/udp/{PORT}/quic-v1"
TCP6 = f"/ip6/{HOST6}/tcp/{PORT}"
EVERY = ("PCP", "NAT-PMP", "UPnP")
SOON = 10.0  # seconds; far below the interval at which a router is looked at again without a reason


async def until(condition: Callable[[], Awaitable[object]], seconds: float = SOON) -> None:
    """Wait until something is true."""
    with trio.fail_after(seconds):
        while True:
            if await condition():
                return
            await trio.sleep(0.05)


async def mapped_by(process: Running, protocol: str, seconds: float = SOON) -> dict[str, object]:
    """Wait until the IPv4 ports are mapped by a protocol, and return the first one's status."""
    with trio.fail_after(seconds):
        while True:
            for event in process.past("statuses"):
                for status in event["statuses"]:
                    if status["protocol"] == protocol and status["external"] == OUTSIDE:
                        return dict(status)
            await trio.sleep(0.02)


@asynccontextmanager
async def _leased(protocol: str) -> AsyncIterator[tuple[Home, Running]]:
    """Have a port mapped for 4 s at a time by a router that speaks one protocol."""
    async with open_home() as home:
        await home.route()
        await home.speak([protocol])
        async with home.mapping(lease=4) as process:
            await mapped_by(process, protocol)
            yield home, process


async def _outlives_its_lease(protocol: str) -> None:
    async with _leased(protocol) as (home, process):
        end = trio.current_time() + 10  # seconds: two leases and a half
        while trio.current_time() < end:
            # Once is not enough: miniupnpd takes its rules out and puts them in again, four steps of which a stranger sees each.
            await until(lambda: _greets(home), seconds=2)
            await trio.sleep(0.2)
        process.process.kill()
        await process.process.wait()
        await until(lambda: _is_empty(home), seconds=30)


@pytest.fixture(scope="module", autouse=True)
def leases() -> Iterator[Ends]:
    """Leases run out, and are renewed, while the other tests go on."""
    with meanwhile({protocol: partial(_outlives_its_lease, protocol) for protocol in EVERY}) as ends:
        yield ends


@pytest.mark.parametrize("protocol", EVERY)
async def test_a_stranger_comes_in_until_the_process_ends(protocol: str) -> None:
    async with open_home() as home:
        await home.route()
        await home.speak([protocol])
        assert await home.greeting() == ""
        async with home.mapping() as process:
            assert await mapped_by(process, protocol)
            await process.event("addresses", addresses=[TCP, UDP] + [TCP6] * (protocol == "PCP"))
            assert await home.greeting() == "hello"
            process.process.terminate()
            with trio.fail_after(5):
                await process.process.wait()
        assert await home.mapped() == ""


async def test_all_protocols_together_give_one_mapping_by_the_best() -> None:
    async with open_home() as home:
        await home.route()
        await home.speak()
        async with home.mapping() as process:
            status = await mapped_by(process, "PCP")
            assert status["lease"] == 600
            await process.event("addresses", addresses=[TCP, UDP])
            assert (await home.mapped()).count("dnat") == 2


@pytest.mark.parametrize("protocol", ["PCP", "NAT-PMP"])
async def test_a_router_that_restarts_is_told_again(protocol: str) -> None:
    async with open_home() as home:
        await home.route()
        await home.speak([protocol])
        async with home.mapping() as process:
            await mapped_by(process, protocol)
            await home.stop_daemon()
            await home.speak([protocol])
            await until(lambda: _greets(home))


async def _sees_a_new_address(protocol: str) -> None:
    async with _leased(protocol) as (home, process):
        await home.renumber(is_told=False)
        await until(lambda: _tells(process, f"/ip4/{RENUMBERED}/tcp/{PORT}"))
        assert await home.greeting(RENUMBERED) == "hello"


async def test_a_new_address_is_seen_at_the_next_renewal() -> None:
    await together({protocol: partial(_sees_a_new_address, protocol) for protocol in EVERY})


@pytest.mark.parametrize("protocol", ["PCP", "NAT-PMP"])
async def test_a_router_tells_of_its_new_address(protocol: str) -> None:
    async with open_home() as home:
        await home.route()
        await home.speak([protocol])
        async with home.mapping() as process:
            await mapped_by(process, protocol)
            await home.renumber(is_told=True)
            await until(lambda: _tells(process, f"/ip4/{RENUMBERED}/tcp/{PORT}"))


async def test_a_router_that_appears_is_found_and_one_that_goes_is_forgotten() -> None:
    async with open_home() as home:
        await home.speak(["PCP"])
        async with home.mapping() as process:
            told = await process.event("statuses")
            assert "no default route" in told["statuses"][0]["why_not"]
            await home.route()
            await process.event("addresses", seconds=SOON, addresses=[TCP, UDP, TCP6])
            await home.host.run("ip", "route", "del", "default")
            await process.event("addresses", seconds=SOON, addresses=[TCP6])
            await until(lambda: _without_ipv4(home))


async def test_the_port_of_another_machine_is_left_to_it() -> None:
    async with open_home() as home:
        await home.route()
        await home.speak(["UPnP"])
        async with home.mapping(on=home.neighbour) as first, home.mapping() as second:
            await mapped_by(first, "UPnP")
            await mapped_by(second, "UPnP")
            ports = set()
            for process in (first, second):
                addresses = (await process.event("addresses"))["addresses"]
                port = int(addresses[0].split("/")[4])
                assert await home.greeting(OUTSIDE, port) == "hello"
                ports.add(port)
            assert len(ports) == 2


async def test_after_a_crash_the_same_port_is_ours_again() -> None:
    async with open_home() as home:
        await home.route()
        await home.speak(["PCP"])
        for _ in range(2):
            async with home.mapping(secret="77" * 32) as process:
                await process.event("addresses", seconds=SOON, addresses=[TCP, UDP, TCP6])
                process.process.kill()
                await process.process.wait()


async def test_a_hole_in_the_firewall_for_ipv6() -> None:
    async with open_home() as home:
        await home.route()
        await home.speak(["PCP"])
        assert await home.greeting(HOST6) == ""
        async with home.mapping() as process:
            await process.event("addresses", seconds=SOON, addresses=[TCP, UDP, TCP6])
            assert await home.greeting(HOST6) == "hello"


async def test_where_no_router_maps_ports_nothing_happens() -> None:
    async with open_home() as home:
        await home.route()
        await home.lay()
        async with home.mapping() as process:
            told = await process.event("statuses", seconds=SOON)
            assert {status["why_not"] for status in told["statuses"]} == {
                "no router here answers to PCP, NAT-PMP, UPnP",
                "no router here answers to PCP",
            }
            assert process.past("addresses") == []


async def test_a_router_behind_another_one_gives_no_public_address() -> None:
    async with open_home(
        "100.64.4.1"
    ) as home:  # as providers number their customers who share an address (RFC 6598)
        await home.route()
        await home.speak()
        async with home.mapping() as process:
            told = await process.event("statuses", seconds=SOON)
            why_not = told["statuses"][0]["why_not"]
            assert (
                why_not == "NAT-PMP: NETWORK_FAILURE; UPnP: the router has no address on the internet's side"
            )
            assert process.past("addresses") == []


def test_a_mapping_outlives_its_lease_while_we_do(leases: Ends) -> None:
    for end in leases.values():
        end.result()


async def _tells(process: Running, address: str) -> bool:
    return any(address in event["addresses"] for event in process.past("addresses"))


async def _greets(home: Home) -> bool:
    return await home.greeting() == "hello"


async def _is_empty(home: Home) -> bool:
    return await home.mapped() == ""


async def _without_ipv4(home: Home) -> bool:
    return "dnat" not in await home.mapped()
