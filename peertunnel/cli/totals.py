"""A reader of the event stream that adds up what happened."""

from dataclasses import dataclass, field

import trio

from peertunnel.cli.words import size, way_and_time
from peertunnel.events import Event, PathChanged, TrafficMeasured, TunnelClosed, TunnelOpened

SHORTEST = 0.5  # seconds that a measurement stands for at least, so that a burst is no absurd rate
STALE = 2.0  # seconds after which a rate is history: traffic is measured every second while there is any


@dataclass(slots=True)
class Totals:
    """Tunnels, bytes, rate (bytes a second, both ways) and paths, as of the last event."""

    open: set[int] = field(default_factory=set)
    tunnels: int = 0
    sent: int = 0
    received: int = 0
    rate: float = 0.0
    measured: float = 0.0  # when, on trio's clock, in seconds
    paths: dict[str, str] = field(default_factory=dict)

    def __call__(self, event: Event) -> None:
        match event:
            case TunnelOpened(tunnel):
                self.tunnels += 1
                self.open.add(tunnel)
            case TunnelClosed(tunnel):
                self.open.discard(tunnel)
            case TrafficMeasured(sent, received):
                self._measure(sent, received, trio.current_time())
            case PathChanged(peer_id, "none"):
                self.paths.pop(peer_id, None)
            case PathChanged(peer_id):
                self.paths[peer_id] = way_and_time(event)

    def line(self, now: float) -> str:
        """Say it all in one line; now is the time on trio's clock, in seconds."""
        rate = self.rate if now - self.measured < STALE else 0.0
        tunnels = f"{len(self.open)} open of {self.tunnels}"
        moved = f"↑ {size(self.sent)}  ↓ {size(self.received)}  {size(rate)}/s"
        paths = list(self.paths.values())
        return "  ".join([tunnels, moved, *(paths if len(paths) < 2 else [f"{len(paths)} peers"])])

    def _measure(self, sent: int, received: int, now: float) -> None:
        moved = sent + received - self.sent - self.received
        self.rate = moved / min(max(now - self.measured, SHORTEST), STALE)
        self.sent, self.received, self.measured = sent, received, now
