"""Two libp2p programs that take the same options and print the same events, as the ends of a tunnel."""

import sys
import sysconfig
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.bench.programs import program
from tests.bench.tunnel import Tunnel
from tests.interop.build import Recipe

LOOPBACK = "127.0.0.1"
INSTALLED = Path(sysconfig.get_path("scripts")) / "pt"
_ID = "lava-torch-wisdom-acid-robot-maple"  # as `pt id` makes them
_PLACES = {"tcp": "tcp/0", "noise": "tcp/0", "tls": "tcp/0", "quic": "udp/0/quic-v1"}


@dataclass(frozen=True, slots=True)
class Ends:
    """The commands of both: the provider's before its target, the consumer's before the provider's address."""

    provide: tuple[str, ...]
    consume: tuple[str, ...]

    @contextmanager
    def open(self, target: str, folder: Path, seconds: float = 0.0) -> Iterator[Tunnel]:
        """Start both on this machine, so many seconds away from each other in each direction."""
        with self.provider(target, folder) as (pid, address):
            _, _, host, _, port, *rest = address.split("/")
            with delayed(f"{host}:{port}", seconds) as place:
                if seconds:
                    address = "/".join(("", "ip4", LOOPBACK, "tcp", place.rpartition(":")[2], *rest))
                with self.consumer(address, folder) as (consumer, local):
                    yield Tunnel(local, (pid, consumer))

    @contextmanager
    def provider(self, target: str, folder: Path, entering: Sequence[str] = ()) -> Iterator[tuple[int, str]]:
        """Run one end, in the place that some words before a command enter; yields its pid and address."""
        command = [*entering, *self.provide, "--target", target]
        with program(command, {"PT_HOME": str(folder / "provider")}) as running:
            yield running.pid, running.event("ready")["addresses"][0]

    @contextmanager
    def consumer(self, address: str, folder: Path, entering: Sequence[str] = ()) -> Iterator[tuple[int, str]]:
        """Run the other end likewise; yields its pid and where clients connect."""
        command = [*entering, *self.consume, "--peer", address]
        with program(command, {"PT_HOME": str(folder / "consumer")}) as running:
            yield running.pid, running.event("listening")["local"]


def pt_ends(transport: str, command: tuple[str, ...], host: str = LOOPBACK) -> Ends:
    """Return `pt tcp` and `pt bind`, as a command starts them, over a transport and listening on an address."""
    listen = ("--p2p-listen", f"/ip4/{host}/{_PLACES[transport]}")
    shared = (*command, "--json", "--no-mdns", "--no-dht", "--transport", transport, *listen)
    return Ends((*shared, "tcp", "--id", _ID), (*shared, "bind", "--id", _ID, "--port", "0"))


def foreign_ends(recipe: Recipe, transport: str, host: str = LOOPBACK) -> Ends:
    """Return a peer of ours in another language, as `pt_ends` does."""
    shared: tuple[str, ...] = ("--transport", transport)
    if host != LOOPBACK:
        shared += ("--listen", f"/ip4/{host}/{_PLACES[transport]}")
    peer = str(recipe.binary)
    return Ends((peer, "tunnel-listen", *shared), (peer, "tunnel-dial", *shared))


@contextmanager
def delayed(place: str, seconds: float) -> Iterator[str]:
    """Give another host:port that leads to a place, with a wait in each direction; the same where there is none."""
    if not seconds:
        yield place
        return
    with program([sys.executable, "-m", "tests.bench.delay", place, str(seconds)]) as proxy:
        yield str(proxy.event("listening")["local"])
