"""A reader of the event stream that counts for Prometheus."""

from dataclasses import dataclass

from peertunnel.events import Event, ProofsFailed, TrafficMeasured, TunnelClosed, TunnelOpened
from peertunnel.metrics import Metrics


@dataclass(slots=True)
class Counters:
    """What a service has done so far."""

    opened: int = 0
    closed: int = 0
    sent: int = 0
    received: int = 0
    failed_proofs: int = 0

    def __call__(self, event: Event) -> None:
        match event:
            case TunnelOpened():
                self.opened += 1
            case TunnelClosed():
                self.closed += 1
            case TrafficMeasured(sent, received):
                self.sent, self.received = sent, received
            case ProofsFailed(count):
                self.failed_proofs = count

    def metrics(self) -> Metrics:
        """Tell the counts, whenever they are asked for."""
        metrics = Metrics()
        metrics.gauge("tunnels_open", "Tunnels that are open.", lambda: self.opened - self.closed)
        metrics.counter("tunnels", "Tunnels so far.", (), lambda: {(): self.opened})
        metrics.counter(
            "bytes",
            "Payload bytes to and from the peers.",
            ("direction",),
            lambda: {("sent",): self.sent, ("received",): self.received},
        )
        metrics.counter(
            "proofs_failed", "Tries to come in without the id.", (), lambda: {(): self.failed_proofs}
        )
        return metrics
