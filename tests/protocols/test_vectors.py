"""What Go and Rust put on the wire, captured by vectors/capture.py, is understood, and what we sent them is still what we send."""

import json
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

from peertunnel.protocols.noise import Opener, Sealer, sealed_size
from peertunnel.protocols.yamux import (
    ClientSession,
    Event,
    GoAwayReceived,
    StreamAcknowledged,
    StreamFinished,
    StreamOpened,
    StreamReset,
)
from tests.protocols.wire import ACK, DATA, FIN, RST, SYN, UPDATE, feed, merged, received

VECTORS: dict[str, Any] = {
    path.stem: json.loads(path.read_text()) for path in Path(__file__).parent.glob("vectors/*.json")
}
ANSWERED: list[Event] = [StreamAcknowledged(1), StreamFinished(1)]
GREETED: list[Event] = [StreamOpened(2), received(2, b"hello"), StreamFinished(2)]
GONE: list[Event] = [StreamAcknowledged(1), GoAwayReceived(0), StreamFinished(1)]

EVENTS: dict[tuple[str, str], list[Event]] = {
    ("go", "echoed"): [StreamAcknowledged(1), received(1, b"echo"), StreamFinished(1)],
    ("go", "closed"): ANSWERED,
    ("go", "reset"): [StreamAcknowledged(1), StreamReset(1)],
    ("go", "opened back"): [StreamAcknowledged(1), *GREETED],
    ("go", "gone away"): GONE,
    ("rust", "echoed"): [StreamAcknowledged(1), received(1, b"echo"), StreamFinished(1)],
    ("rust", "closed"): ANSWERED,
    ("rust", "reset"): [StreamReset(1)],
    ("rust", "opened back"): [*ANSWERED, *GREETED],
    ("rust", "gone away"): [*ANSWERED, GoAwayReceived(0)],
}

# Frames that few would think of, and so must be among the captured ones: library, type, flags.
UNUSUAL = {
    ("go", UPDATE, FIN),
    ("go", UPDATE, RST),
    ("rust", DATA, FIN | ACK),
    ("rust", DATA, RST),
    ("rust", DATA, SYN),
}


def client() -> ClientSession:
    """Return the session that the peer answered: one stream, opened and half-closed."""
    session = ClientSession(0.0)
    session.open_stream(0.0)
    session.outgoing()
    return session


@pytest.mark.parametrize(("library", "fate"), EVENTS, ids=" ".join)
@pytest.mark.parametrize("cut", (1, 5, 1 << 16))
def test_yamux_means_what_the_peer_did(library: str, fate: str, cut: int) -> None:
    wire = b"".join(map(bytes.fromhex, VECTORS[library]["yamux"][fate]["received"]))
    session = client()
    events = chain.from_iterable(feed(session, wire[at : at + cut]) for at in range(0, len(wire), cut))
    assert merged(events) == EVENTS[library, fate]


def test_yamux_vectors_are_all_used() -> None:
    assert {(library, fate) for library in VECTORS for fate in VECTORS[library]["yamux"]} == set(EVENTS)


def test_yamux_vectors_hold_the_unusual_frames() -> None:
    headers = {
        (library, frame[1], frame[3])
        for library, vectors in VECTORS.items()
        for fate in vectors["yamux"].values()
        for frame in map(bytes.fromhex, fate["received"])
    }
    assert headers >= UNUSUAL


@pytest.mark.parametrize("library", VECTORS)
@pytest.mark.parametrize("direction", ("sent", "received"))
def test_noise_records(library: str, direction: str) -> None:
    half = VECTORS[library]["noise"][direction]
    key = bytes.fromhex(half["key"])
    plaintexts = [bytes.fromhex(record["plaintext"]) for record in half["records"]]
    records = b"".join(bytes.fromhex(record["record"]) for record in half["records"])
    plaintext = bytearray(sum(map(len, plaintexts)))
    assert Opener(key).open(memoryview(records), memoryview(plaintext)) == (len(records), len(plaintext))
    assert plaintext == b"".join(plaintexts)
    sealed = bytearray(sum(map(sealed_size, map(len, plaintexts))))
    sealer, at = Sealer(key), 0
    for each in plaintexts:
        at = sealer.seal(memoryview(each), memoryview(sealed), at)
    assert sealed == records
