"""Events: their JSON, which scripts rely on, and the fan-out."""

import dataclasses
import json

import pytest

from peertunnel import events
from peertunnel.errors import StoreError, TargetError
from peertunnel.events import Event, Events

NO_LIMIT = {"limit_bytes": None, "limit_seconds": None}
JSON: list[tuple[Event, dict[str, object]]] = [
    (events.Ready("12D3", ("/a", "/b")), {"kind": "ready", "peer_id": "12D3", "addresses": ["/a", "/b"]}),
    (events.AddressesChanged(("/a",)), {"kind": "addresses", "addresses": ["/a"]}),
    (
        events.Checked("udp", "ok", "found", "advice"),
        {"kind": "check", "check": "udp", "verdict": "ok", "finding": "found", "advice": "advice"},
    ),
    (events.Listening("127.0.0.1:2022"), {"kind": "listening", "local": "127.0.0.1:2022"}),
    (
        events.PathChanged("12D3", "direct", 1.5),
        {"kind": "path", "peer_id": "12D3", "path": "direct", "rtt_ms": 1.5, **NO_LIMIT, "transport": None},
    ),
    (
        events.PathChanged("12D3", "none", None),
        {"kind": "path", "peer_id": "12D3", "path": "none", "rtt_ms": None, **NO_LIMIT, "transport": None},
    ),
    (
        events.PunchFailed("12D3", "of the weather"),
        {"kind": "punch-failed", "peer_id": "12D3", "reason": "of the weather"},
    ),
    (
        events.TunnelOpened(1, "12D3", "[::1]:5000"),
        {"kind": "tunnel-opened", "tunnel": 1, "peer_id": "12D3", "remote": "[::1]:5000"},
    ),
    (
        events.TunnelClosed(1, 10, 20, "finished"),
        {"kind": "tunnel-closed", "tunnel": 1, "sent_bytes": 10, "received_bytes": 20, "reason": "finished"},
    ),
    (
        events.TrafficMeasured(10, 20),
        {"kind": "traffic", "sent_bytes": 10, "received_bytes": 20},
    ),
    (
        events.Pong("12D3", "relayed", "/a", 30.0),
        {"kind": "pong", "peer_id": "12D3", "path": "relayed", "address": "/a", "rtt_ms": 30.0, **NO_LIMIT},
    ),
    (events.Shared("pk://12D3#secret"), {"kind": "shared", "link": "pk://12D3#secret"}),
    (events.Offered("/a/p2p/12D3"), {"kind": "relay", "via": "/a/p2p/12D3"}),
    (
        events.ProofsFailed(3, "12D3", "192.0.2.9"),
        {"kind": "proofs-failed", "count": 3, "peer_id": "12D3", "place": "192.0.2.9"},
    ),
    (events.Warned("Mind."), {"kind": "warning", "message": "Mind."}),
    (events.LeftOut(12), {"kind": "left-out", "lines": 12}),
    (
        events.ErrorOccurred.of(TargetError("Gone.", hint="Look.")),
        {"kind": "error", "code": 6, "message": "Gone.", "hint": "Look."},
    ),
]

KINDS = {
    kind
    for kind in vars(events).values()
    if isinstance(kind, type) and issubclass(kind, Event) and kind is not Event
}


@pytest.mark.parametrize(("event", "expected"), JSON)
def test_json(event: Event, expected: dict[str, object]) -> None:
    assert event.to_json() == json.dumps(expected, separators=(",", ":"))  # the order counts, too


def test_every_event_is_tested() -> None:
    assert {type(event) for event, _ in JSON} == KINDS


def test_events_do_not_change() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        events.Listening("22").local = "23"  # type: ignore[misc]


def test_a_log_of_events_keeps_the_secret() -> None:
    assert "secret" not in repr(events.Shared("pk://12D3#secret"))


def test_fan_out() -> None:
    first: list[Event] = []
    second: list[Event] = []
    emit = Events(first.append)
    emit(events.Warned("one"))
    emit.subscribe(second.append)
    emit(events.Warned("two"))
    assert first == [events.Warned("one"), events.Warned("two")]
    assert second == [events.Warned("two")]


def test_a_complaint_is_made_once_until_it_is_another_one_or_all_was_well() -> None:
    made: list[Event] = []
    complaint = events.Complaint()
    torn, full = StoreError("The file is torn."), StoreError("The disk is full.")
    for error in (torn, torn, full, full):
        complaint.make(error, made.append)
    complaint.withdraw()
    complaint.make(full, made.append)
    assert made == [events.ErrorOccurred.of(error) for error in (torn, full, full)]
