"""Events in words: what people read on stderr, and what they read only when they ask for more."""

import re
from dataclasses import replace

from peertunnel.cli.results import Described, Judged, Stepped
from peertunnel.errors import Interrupted
from peertunnel.events import (
    AddressesChanged,
    Checked,
    ErrorOccurred,
    Event,
    LeftOut,
    Listening,
    Offered,
    PathChanged,
    Pong,
    ProofsFailed,
    PunchFailed,
    Ready,
    Shared,
    TrafficMeasured,
    TunnelClosed,
    TunnelOpened,
    Warned,
)
from peertunnel.strength import WEAK

QUIET, NORMAL, VERBOSE, NEVER = -1, 0, 1, 99  # verbosity: the count of -v, or -1 for -q
# What a terminal obeys, or shows in another order: peers that end a connection may give any text as their reason.
_COMMANDS = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_UNITS = ("B", "KB", "MB", "GB", "TB", "PB")


def threshold(event: Event) -> int:
    """Give the lowest verbosity at which people see an event."""
    match event:
        case ErrorOccurred() | LeftOut():
            return QUIET
        case AddressesChanged() | PunchFailed() | TunnelOpened() | TunnelClosed(reason="finished"):
            return VERBOSE
        case TrafficMeasured():
            return NEVER  # the display shows it, once a second and in one place
    return NORMAL


def sentence(event: Event, verbosity: int = NORMAL) -> str:
    """Say in words what happened, with details for those who want them, and nothing that a terminal would obey."""
    return _sentence(_harmless(event), verbosity)


def _harmless(event: Event) -> Event:
    texts = {name: text for name in event.__match_args__ if isinstance(text := getattr(event, name), str)}
    if not any(map(_COMMANDS.search, texts.values())):
        return event
    return replace(event, **{name: _COMMANDS.sub("?", text) for name, text in texts.items()})  # type: ignore[type-var]


def _sentence(event: Event, verbosity: int) -> str:
    match event:
        case Ready(peer_id, addresses):
            details = addresses if verbosity >= VERBOSE else ()
            return "\n  ".join([f"Ready as {peer_id}", *details])
        case AddressesChanged(addresses):
            return "\n  ".join(["Reachable at", *addresses]) if addresses else "Not reachable"
        case Listening(local):
            return f"Listening on {local}"
        case PathChanged(peer_id, "none"):
            return f"Lost the connection to {peer_id}"
        case PathChanged(peer_id):
            return f"Connected to {peer_id}: {way_and_time(event)}"
        case PunchFailed(peer_id, reason):
            return f"No direct way to {peer_id}: {reason}"
        case TunnelOpened(tunnel, _, remote):
            return f"Tunnel {tunnel} opened: {remote}"
        case TunnelClosed(tunnel, sent, received, reason):
            return f"Tunnel {tunnel} closed: {reason}; sent {size(sent)}, received {size(received)}"
        case Pong(peer_id, _, address, rtt_ms):
            return f"pong from {peer_id} {way(event)} via {address} in {rtt_ms:.1f} ms"
        case Offered(via):
            return f"--via {via}"
        case Shared(link):
            return link
        case Described():
            return _table(event)
        case Checked(check, verdict, finding, advice):
            return f"{verdict:<8} {check:<13} {finding}" + (f"\n{'':<23}{advice}" if advice else "")
        case Judged(bits, None):
            return f"about {bits} bits" + ("" if bits >= WEAK else f": too few, {WEAK:.0f} are wanted")
        case Judged(_, text):
            return text or ""
        case Stepped(step, message, seconds):
            return f"{step}. {message} ({seconds:.1f} s)"
        case ProofsFailed(count, peer_id, place):
            times = "once" if count == 1 else f"{count} times so far"
            return f"warning: somebody did not prove the id or the link, or was not let in, {times}: last peer {peer_id} from {place}."
        case Warned(message):
            return f"warning: {message}"
        case LeftOut(lines):
            missing = "1 line was" if lines == 1 else f"{lines} lines were"
            return f"warning: {missing} left out here, since nobody had read for long."
        case ErrorOccurred(Interrupted.exit_code, message):
            return message
        case ErrorOccurred(_, message, hint):
            return f"error: {message}" + (f"\n hint: {hint}" if hint else "")
    return str(event)


def size(count: float) -> str:
    """Write a number of bytes with three digits or so, in powers of 1000: 64.0 MB."""
    for unit in _UNITS[:-1]:
        if count < 999.95:
            return f"{count:.1f} {unit}" if unit != "B" else f"{count:.0f} B"
        count /= 1000
    return f"{count:.1f} {_UNITS[-1]}"


def way(event: PathChanged | Pong) -> str:
    """Describe a path: its kind, and what a relay still carries."""
    left = [] if event.limit_bytes is None else [_binary(event.limit_bytes)]
    left += [] if event.limit_seconds is None else [_duration(event.limit_seconds)]
    return event.path + (f" ({', '.join(left)} left)" if left else "")


def way_and_time(event: PathChanged) -> str:
    """Describe a path, its round trip included."""
    return way(event) + (f", {event.rtt_ms:.1f} ms" if event.rtt_ms is not None else "")


def _binary(count: int) -> str:
    """Write what a relay carries as its settings are written, in powers of 1024."""
    return f"{count / 1024:.0f} KiB" if count < 1024 * 1024 else f"{count / 1024 / 1024:.0f} MiB"


def _duration(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 60 else f"{seconds:.0f} s"


def _table(described: Described) -> str:
    rows = {
        "peer id": [described.peer_id],
        "addresses": described.addresses or ["none"],
        "identity": [described.identity],
        "config": [described.config],
        "versions": described.versions,
        "QUIC": [described.quic],
    }
    return "\n".join(f"{name + ':':<11}{f'{chr(10):<12}'.join(texts)}" for name, texts in rows.items())
