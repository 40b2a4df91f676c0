"""`pt doctor` behind routers of every kind, with two `pt relay` on the internet, names what they do."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import trio

from tests.nat.crossing import open_lab
from tests.nat.lab.kinds import Nat, Public
from tests.nat.lab.lab import Lab
from tests.nat.makes import PORT, listening
from tests.nat.recorded import recorded
from tests.tools import PT

COMMAND = (*PT, "--json")
WAIT = "25"  # seconds: an interpreter each, on a machine that does something else
END_SECONDS = 90.0
AT_ONCE = 3  # that start; then they wait more than they work
RELAYS = ("relay", "other")
NATS = {
    "none": Nat("none"),
    "firewall": Nat("firewall"),
    "full-cone": Nat("full-cone"),
    "restricted": Nat("restricted"),
    "cone": Nat("cone"),
    "symmetric": Nat("symmetric", ipv6=True),
    "udp-blocked": Nat("udp-blocked"),
    "upnp": Nat("cone", upnp=True),
    "cgnat": Nat("cone", upnp=True, behind="cone"),
}
ALONE = "alone"  # behind a cone, too; it knows one relay only
ASKING = ("upnp", "cgnat", "none")  # who asks the router for a port

MAPPING = {
    "none": "none",
    "firewall": "none",
    "symmetric": "address- or address-and-port-dependent",
}  # all others: endpoint-independent
FILTERING = {
    "none": "endpoint-independent",
    "full-cone": "endpoint-independent",
    "restricted": "address-dependent",
}  # all others: address-and-port-dependent
ANYWHERE = "direct from anywhere"
PUNCHING = "direct by hole punching with most NATs, by relay with the others"
TUNNELS = {
    "none": ANYWHERE,
    "full-cone": ANYWHERE,
    "upnp": ANYWHERE,
    "symmetric": "direct with peers that let others in, by relay with the others",
}  # all others: PUNCHING

Checks = dict[str, dict[str, str]]


@asynccontextmanager
async def relays(lab: Lab, folder: Path) -> AsyncIterator[list[str]]:
    """Run the relays, and give the options that name them."""
    async with AsyncExitStack() as stack:
        options: list[str] = []
        for name in RELAYS:
            machine = lab.host(name)
            places = [place for ip in (machine.ip, *machine.ip6s) for place in listening(ip, ("tcp",))]
            words = [word for place in places for word in ("--listen", place)]
            relay = await stack.enter_async_context(
                recorded(machine.command(*COMMAND, "relay", *words), folder / name)
            )
            peer_id = (await relay.event("ready")).fields["peer_id"]
            options += ["--via", f"/ip4/{machine.ip}/tcp/{PORT}/p2p/{peer_id}"]
        yield options


async def examine(
    lab: Lab, name: str, options: list[str], folder: Path, attention: trio.CapacityLimiter
) -> Checks:
    """Run the doctor on a machine, and give its checks; of the two relays the last."""
    asking = ["--portmap"] if name in ASKING else []
    words = [*COMMAND, "--no-mdns", "--wait", WAIT, *asking, *options, "doctor"]
    async with AsyncExitStack() as stack:
        async with attention:
            command = lab.host(name).command(*words)
            doctor = await stack.enter_async_context(recorded(command, folder / name))
            await doctor.event("check")
        await doctor.event("check", END_SECONDS, check="tunnels")
        assert await doctor.process.wait() == 0, str(doctor)
        return {it.fields["check"]: it.fields for it in doctor.past("check")}


async def test_every_router_is_named_for_what_it_does(tmp_path: Path) -> None:
    found: dict[str, Checks] = {}
    attention = trio.CapacityLimiter(AT_ONCE)
    async with (
        open_lab({**NATS, ALONE: "cone"}, {name: Public() for name in RELAYS}) as lab,
        relays(lab, tmp_path) as options,
        trio.open_nursery() as nursery,
    ):

        async def run(name: str) -> None:
            named = options[:2] if name == ALONE else options
            found[name] = await examine(lab, name, named, tmp_path, attention)

        for name in (*NATS, ALONE):
            nursery.start_soon(run, name)

    def told(check: str) -> dict[str, str]:
        return {name: found[name][check]["finding"].partition(":")[0] for name in NATS}

    assert told("mapping") == {name: MAPPING.get(name, "endpoint-independent") for name in NATS}
    assert told("filtering") == {name: FILTERING.get(name, "address-and-port-dependent") for name in NATS}
    assert told("tunnels") == {name: TUNNELS.get(name, PUNCHING) for name in NATS}
    assert {check["relay"]["verdict"] for check in found.values()} == {"ok"}
    _check_alone(found[ALONE])
    _check_ports(found, lab.router("upnp").lan_ip)
    assert (
        found["symmetric"]["ipv6"]["finding"] == f"works: a peer was reached from {lab.host('symmetric').ip6}"
    )
    assert found["cone"]["ipv6"]["finding"] == "no global address"
    for name, udp in told("udp").items():
        assert udp == "not tested" or udp == ("blocked" if name == "udp-blocked" else "passes"), name
    # No router of the lab turns its LAN's connections round.
    pins = {
        name: found[name]["hairpin"]["finding"].partition(":")[0] for name in ("none", "full-cone", "upnp")
    }
    assert pins == {"none": "not needed", "full-cone": "doesn't work", "upnp": "doesn't work"}


def _check_ports(found: dict[str, Checks], router: str) -> None:
    ports = {name: found[name]["port-mapping"] for name in NATS}
    assert ports["upnp"]["finding"].startswith(f"PCP at {router} gives us /ip4/")
    assert ports["upnp"]["finding"].endswith(", and peers come in there")
    assert ports["cgnat"]["verdict"] == "warning" and "CGNAT" in ports["cgnat"]["advice"]
    assert ports["none"]["finding"] == "not needed: this machine has a public address"
    assert ports["cone"]["finding"] == "off: --no-portmap"


def _check_alone(checks: Checks) -> None:
    """One relay tells less, and this is said."""
    assert checks["mapping"]["verdict"] == "unknown" and "by one peer only" in checks["mapping"]["finding"]
    assert "Name another pt relay" in checks["mapping"]["advice"]
    assert checks["filtering"]["finding"].startswith("address-and-port-dependent")
