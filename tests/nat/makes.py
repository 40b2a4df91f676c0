"""Relays, providers and consumers of every make: the commands that start them, and how they tell their paths."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from tests.interop.build import GO, RUST
from tests.nat.lab.machines import Machine
from tests.nat.recorded import Recorded
from tests.tools import PT

PORT = 4001
DIRECT = ("direct", "punched")


@dataclass(frozen=True, slots=True)
class Place:
    """A relay: its make, its peer id, and its addresses, the preferred one first."""

    make: str
    peer_id: str
    addresses: list[str]

    def circuit(self, peer_id: str) -> str:
        """Return the address of a peer behind the relay."""
        return f"{self.addresses[0]}/p2p-circuit/p2p/{peer_id}"


@dataclass(frozen=True, slots=True)
class Step:
    """A change of the way to a peer: trio's time, direct, punched, relayed or none, and tcp or quic."""

    at: float
    path: str
    transport: str


class Make(Protocol):
    """One implementation."""

    @property
    def name(self) -> str:
        """Its name in tables."""

    def relay(self, machine: Machine, unlimited: bool) -> list[str]:
        """Return the command of a relay on the machine's first address."""

    def provider(self, machine: Machine, relay: Place, target: str) -> list[str]:
        """Return the command of a provider, reachable by the relay."""

    def consumer(self, machine: Machine, relay: Place, peer_id: str, provider: str) -> list[str]:
        """Return the command of a consumer, which calls a provider of some make by the relay."""

    def steps(self, consumer: Recorded, peer_id: str) -> list[Step]:
        """Return how the consumer's path to the provider has changed."""

    async def reachable(self, provider: Recorded) -> None:
        """Wait until a provider can be called by its relay."""

    @property
    def transports(self) -> tuple[str, ...]:
        """What it listens on: tcp, quic or both, the preferred one first."""


def listening(ip: str, transports: tuple[str, ...]) -> list[str]:
    """Return the multiaddrs to listen on."""
    family = "ip6" if ":" in ip else "ip4"
    return [f"/{family}/{ip}/{_LAYERS[transport]}" for transport in transports]


_LAYERS = {"tcp": f"tcp/{PORT}", "quic": f"udp/{PORT}/quic-v1"}


def _stack(transports: tuple[str, ...]) -> str:
    """Return what the Go and the Rust peer call these transports."""
    if len(transports) > 1:
        return "all"
    return "noise" if transports == ("tcp",) else "quic"


def _repeated(option: str, values: list[str]) -> Iterator[str]:
    for value in values:
        yield from (option, value)


def _connections(consumer: Recorded, peer_id: str) -> list[Step]:
    """Return the changes of the best path, from the connections that the Go and the Rust peer tell."""
    open_now: list[str] = []
    steps: list[Step] = []
    for it in consumer.told:
        if it.fields.get("peer_id") != peer_id:
            continue
        if it.fields["kind"] == "connected":
            open_now.append(it.fields["address"])
        elif it.fields["kind"] == "disconnected" and it.fields["address"] in open_now:
            open_now.remove(it.fields["address"])
        best = min(open_now, key=lambda address: "p2p-circuit" in address, default="")
        path = "none" if not best else "relayed" if "p2p-circuit" in best else "direct"
        if path != (steps[-1].path if steps else "none"):
            steps.append(Step(it.at, path, "quic" if "quic" in best else "tcp"))
    return steps


@dataclass(frozen=True, slots=True)
class Go:
    """go-libp2p with its own hole punching."""

    transports: tuple[str, ...] = ("tcp",)
    name = "go-libp2p"

    def relay(self, machine: Machine, unlimited: bool) -> list[str]:
        limits = ["-unlimited"] if unlimited else []
        return machine.command(
            str(GO.binary), "relay", "-no-dht", "-seed", _SEED, *limits, *self._listen(machine.ip)
        )

    def provider(self, machine: Machine, relay: Place, target: str) -> list[str]:
        return machine.command(
            *(str(GO.binary), "tunnel-listen", "-holepunch", "-target", target),
            *self._listen("0.0.0.0"),
            *_repeated("-relay", relay.addresses),
        )

    def consumer(self, machine: Machine, relay: Place, peer_id: str, provider: str) -> list[str]:
        return machine.command(
            *(str(GO.binary), "tunnel-dial", "-holepunch", "-peer", relay.circuit(peer_id)),
            *self._listen("0.0.0.0"),
            *_repeated("-relay", relay.addresses),
        )

    def steps(self, consumer: Recorded, peer_id: str) -> list[Step]:
        return _connections(consumer, peer_id)

    async def reachable(self, provider: Recorded) -> None:
        await provider.event("ready")

    def _listen(self, ip: str) -> Iterator[str]:
        yield from ("-transport", _stack(self.transports))
        yield from _repeated("-listen", listening(ip, self.transports))


@dataclass(frozen=True, slots=True)
class Rust:
    """rust-libp2p; it shares the port of an address that it names, not of 0.0.0.0, when it dials."""

    transports: tuple[str, ...] = ("tcp",)
    name = "rust-libp2p"

    def relay(self, machine: Machine, unlimited: bool) -> list[str]:
        limits = ["--circuit-bytes", str(1 << 40), "--circuit-seconds", "86400"] if unlimited else []
        return machine.command(str(RUST.binary), "relay", "--seed", _SEED, *limits, *self._listen(machine))

    def provider(self, machine: Machine, relay: Place, target: str) -> list[str]:
        return machine.command(
            *(str(RUST.binary), "tunnel-listen", "--close-relayed", "--target", target),
            *("--relay", relay.addresses[0]),
            *self._listen(machine),
        )

    def consumer(self, machine: Machine, relay: Place, peer_id: str, provider: str) -> list[str]:
        return machine.command(
            *(str(RUST.binary), "tunnel-dial", "--close-relayed", "--peer", relay.circuit(peer_id)),
            *self._listen(machine),
        )

    def steps(self, consumer: Recorded, peer_id: str) -> list[Step]:
        return _connections(consumer, peer_id)

    async def reachable(self, provider: Recorded) -> None:
        await provider.event("ready")

    def _listen(self, machine: Machine) -> Iterator[str]:
        yield from ("--transport", _stack(self.transports))
        yield from _repeated("--listen", listening(machine.ip, self.transports))


@dataclass(frozen=True, slots=True)
class Pt:
    """peertunnel; with others it shares no secret, so the service is public then."""

    transports: tuple[str, ...] = ("tcp",)
    partner: str = "pt"
    name = "pt"

    def relay(self, machine: Machine, unlimited: bool) -> list[str]:
        listen = _repeated("--listen", listening(machine.ip, self.transports))
        return machine.command(*_PT, "relay", *listen)

    def provider(self, machine: Machine, relay: Place, target: str) -> list[str]:
        return machine.command(
            *_PT, *self._shared(machine, relay), "tcp", "--target", target, *_SECRET, *self._public()
        )

    def consumer(self, machine: Machine, relay: Place, peer_id: str, provider: str) -> list[str]:
        # They find each other at a rendezvous point; a foreign relay is none.
        peer = [] if relay.make == provider == self.name else ["--peer", relay.circuit(peer_id)]
        secret = [] if provider != self.name else _SECRET
        public = ["--public"] if self._public() or provider != self.name else []
        return machine.command(
            *_PT, *self._shared(machine, relay), "bind", "--port", "0", *secret, *peer, *public
        )

    def steps(self, consumer: Recorded, peer_id: str) -> list[Step]:
        told = consumer.past("path", peer_id=peer_id)
        return [Step(it.at, it.fields["path"], it.fields.get("transport", "")) for it in told]

    async def reachable(self, provider: Recorded) -> None:
        while not any("p2p-circuit" in str(it.fields) for it in provider.past("addresses")):
            await provider.news()

    def _shared(self, machine: Machine, relay: Place) -> Iterator[str]:
        yield from ("--no-mdns", "--no-dht")
        yield from ("--transport", "auto" if len(self.transports) > 1 else self.transports[0])
        yield from _repeated("--via", relay.addresses)
        for ip in ("0.0.0.0", "::") if machine.ip6s else ("0.0.0.0",):
            yield from _repeated("--p2p-listen", listening(ip, self.transports))

    def _public(self) -> list[str]:
        return [] if self.partner == self.name else ["--public"]


_SEED = "relay"  # which has the same key when it is started again
_PT = [*PT, "--json"]
_SECRET = ["--id", "behind-every-router-there-is-another"]
