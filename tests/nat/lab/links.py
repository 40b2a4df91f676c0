"""A link between the internet and a router or a public machine; what it does to packets can be changed."""

from dataclasses import dataclass

from tests.nat.lab import rules
from tests.nat.lab.keeper import Keeper
from tests.nat.lab.kinds import LabError, Wire
from tests.nat.lab.namespaces import nft, run

BURST = "64kb"
LATENCY = "50ms"  # that a queue may add


@dataclass(slots=True)
class Link:
    """Its number and its two ends: namespace and device there, namespace and device in the internet's core."""

    number: int
    namespace: str
    device: str
    core: str
    core_device: str
    wire: Wire
    keeper: Keeper | None = None

    def load(self) -> None:
        """Apply loss and rate for the first time."""
        if self.wire.loss:
            self.set_loss(self.wire.loss)
        if self.wire.rate:
            self._limit(*self._rates(self.wire.rate))

    def set_delay(self, delay_ms: float, jitter_ms: float = 0) -> None:
        """Let packets take so many milliseconds in each direction."""
        if not self.wire.delayed or self.keeper is None:
            raise LabError(f"{self.core_device} was made without delay; make it with delay_ms=0")
        self.keeper.set(self.number, delay_ms, jitter_ms)

    def set_loss(self, probability: float) -> None:
        """Lose packets in each direction; on a link without delay they are up to 64 KiB long, and rare."""
        nft(rules.loss(f"loss{self.number}", self.core_device, probability), self.core)

    def lose_every(self, packets: int, first: int = 0) -> None:
        """Lose one of so many packets in each direction, the first after so many others: the same in each run."""
        nft(rules.every(f"loss{self.number}", self.core_device, packets, first), self.core)

    def throttle(self, protocol: str, kib: int) -> None:
        """Lose what is above so many KiB/s of a protocol ("udp") in each direction from now on."""
        nft(rules.throttled(f"throttle{self.number}", self.core_device, protocol, kib), self.core)

    def _limit(self, up: str, down: str) -> None:
        for namespace, device, rate in (
            (self.namespace, self.device, up),
            (self.core, self.core_device, down),
        ):
            shaped = ["tbf", "rate", rate, "burst", BURST, "latency", LATENCY]
            run(["tc", "qdisc", "replace", "dev", device, "root", *shaped], namespace=namespace)

    @staticmethod
    def _rates(rate: str | tuple[str, str]) -> tuple[str, str]:
        return (rate, rate) if isinstance(rate, str) else rate
