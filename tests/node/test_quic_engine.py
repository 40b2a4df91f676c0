"""The QUIC engine in virtual time: every byte arrives, whatever the network does, and strangers are bounded."""

import resource
import sys
from pathlib import Path
from random import Random

import pytest

from peertunnel.transport import quic
from tests.tools import lack

if (reason := quic.why_not()) is not None:
    lack(f"no QUIC: {reason}")

from datetime import UTC, datetime

from peertunnel.protocols.certificate import peer_of
from peertunnel.transport.quic import _engine
from tests.node.quic_network import CLIENT, CREDENTIALS, SERVER, Exchange, Network, Weather, engine, happened

MIB = 1 << 20


@pytest.mark.parametrize(
    ("weather", "size", "moves_after"),
    [
        (Weather(), MIB, None),
        (Weather(delay=0.0), MIB, None),
        (Weather(loss=0.05, doubles=0.02, jitter=0.01), MIB, None),
        (Weather(loss=0.2, doubles=0.1, jitter=0.05), 64 * 1024, None),
        (Weather(garbles=0.05), MIB, None),
        (Weather(loss=0.02, doubles=0.02, jitter=0.02), MIB, 0.5),
    ],
    ids=("fine", "at once", "rain", "storm", "noise", "moving"),
)
def test_every_byte_arrives_in_order(weather: Weather, size: int, moves_after: float | None) -> None:
    exchange = Exchange(1, weather, size, moves_after)
    exchange.run()
    assert [bytes(end.received) for end in exchange.ends] == exchange.sent[::-1]


def connected(server: _engine.Endpoint, client: _engine.Endpoint) -> tuple[Network, int, int]:
    """Join two engines; give the network and both ends' numbers of the connection."""
    network = Network(Random(1), Weather(), client, server)
    ours, theirs = client.connect(SERVER, 0.0), -1
    up: set[bool] = set()

    def step() -> None:
        nonlocal theirs
        for one in (client, server):
            for kind, number, _, reason in happened(one):
                assert kind == "connected", (kind, reason)
                up.add(one is client)
                theirs = number if one is server else theirs

    network.run(step, lambda: len(up) == 2)
    return network, ours, theirs


def test_both_ends_know_each_others_certificates() -> None:
    client, server = engine(0), engine(1)
    _, ours, theirs = connected(server, client)
    now = datetime.now(UTC)
    assert peer_of(client.peer_certificate(ours) or b"", now) == CREDENTIALS[1][2]
    assert peer_of(server.peer_certificate(theirs) or b"", now) == CREDENTIALS[0][2]
    assert [(path or ())[:2] for path in (client.path(ours), server.path(theirs))] == [SERVER, CLIENT]


def test_a_silent_peer_is_lost_within_15_s() -> None:
    client, server = engine(0), engine(1)
    network, *_ = connected(server, client)
    began, lost = network.now, list[str]()
    network.weather.loss = 1.0

    def step() -> None:
        lost.extend(reason for kind, _, _, reason in happened(client) if kind == "lost")

    network.run(step, lambda: bool(lost))
    assert lost == ["timed out"]
    assert network.now - began < 15


def test_what_has_come_can_be_read_when_the_end_is_told_however_late() -> None:
    """A process that was held up sees the peer's close, and its own timer for what follows, at once."""
    client, server = engine(0), engine(1)
    network, ours, theirs = connected(server, client)
    stream = client.open(ours)
    assert stream is not None and client.write(ours, stream, b"the last words") == 14
    assert client.finish(ours, stream)
    delivered: list[str] = []
    network.run(
        lambda: delivered.extend(kind for kind, *_ in happened(client)), lambda: "delivered" in delivered
    )
    happened(server)
    client.close(ours, 0, network.now)
    data, _, _, _ = client.transmit(1, network.now) or (b"", 0, SERVER, None)
    server.receive(data, len(data), CLIENT, None, network.now)
    server.handle_timeouts(network.now + 60.0)
    assert [(kind, number) for kind, number, *_ in happened(server)] == [("lost", theirs)]
    buffer = bytearray(64)
    assert server.read_into(theirs, stream, buffer) == (14, True)
    assert buffer.startswith(b"the last words")
    happened(server)
    assert server.path(theirs) is None  # forgotten then


def resident() -> int:
    """Count the bytes of memory that this process has."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


@pytest.mark.skipif(sys.platform != "linux", reason="it looks into /proc")
def test_what_nobody_reads_keeps_nothing_else_in_memory() -> None:
    """Datagrams that were read at once, most of them of a stream that is read on."""
    client, server = engine(0, window=4 * MIB), engine(1, window=4 * MIB)
    network, ours, theirs = connected(server, client)
    stalled, lively = (client.open(ours) or 0 for _ in range(2))
    buffer, before = bytearray(64 * 1024), resident()
    for _ in range(2 * MIB // 1400):
        assert client.write(ours, stalled, bytes(1400)) == 1400
        assert client.write(ours, lively, bytes(14 * 1400)) == 14 * 1400
        network.now += 0.1
        while batch := client.transmit(44, network.now):
            server.receive(batch[0], batch[1] or len(batch[0]), CLIENT, None, network.now)
        while server.read_into(theirs, lively, buffer) not in (None, (0, False)):
            pass
        while batch := server.transmit(44, network.now):
            client.receive(batch[0], batch[1] or len(batch[0]), SERVER, None, network.now)
    assert resident() - before < 8 * MIB


def test_an_idle_connection_lives() -> None:
    client, server = engine(0), engine(1)
    network, *_ = connected(server, client)
    kinds: list[str] = []
    network.run(
        lambda: kinds.extend(kind for one in (client, server) for kind, *_ in happened(one)),
        lambda: network.now > 300,
    )
    assert "lost" not in kinds


def test_who_comes_again_without_its_memory_ends_old_connections_at_once() -> None:
    """A stateless reset: the peer's key is the same, so it knows that the connection once was its own."""
    client, server = engine(0), engine(1)
    network, ours, _ = connected(server, client)
    began, lost = network.now, list[str]()
    network.server = engine(1, seed=7)
    client.ping(ours)

    def step() -> None:
        lost.extend(reason for kind, _, _, reason in happened(client) if kind == "lost")

    network.run(step, lambda: bool(lost))
    assert lost == ["reset by peer"]
    assert network.now - began < 2


def first_packets(number: int, seed: int = 1) -> list[bytes]:
    """Give the first datagrams of so many handshakes that never go on."""
    client = engine(0, is_server=False, seed=seed)
    for _ in range(number):
        client.connect(SERVER, 0.0)
    packets: list[bytes] = []
    while batch := client.transmit(1, 0.0):
        packets.append(batch[0])
    return packets


def answers(server: _engine.Endpoint, now: float = 0.0) -> list[bytes]:
    """Take everything that an engine has to send."""
    found: list[bytes] = []
    while batch := server.transmit(1, now):
        found.append(batch[0])
    return found


def is_retry(datagram: bytes) -> bool:
    """Tell a Retry packet (RFC 9000, 17.2.5)."""
    return datagram[0] & 0xF0 == 0xF0


def test_a_flood_of_handshakes_has_to_prove_its_addresses_and_is_bounded() -> None:
    server = engine(1)
    flood, sent = first_packets(1000), list[bytes]()
    for number, packet in enumerate(flood):
        source = (f"203.0.113.{number % 250}", 1024 + number)
        server.receive(packet, len(packet), source, None, 0.0)
        sent += answers(server)
    assert sum(map(is_retry, sent)) >= len(flood) - 64
    assert sum(map(len, sent)) < 3 * sum(map(len, flood))  # RFC 9000, 8.1: no amplifier


def flooded(server: _engine.Endpoint, number: int = 100) -> list[bytes]:
    """Have strangers begin so many handshakes, and return what they are answered."""
    found = list[bytes]()
    for port, packet in enumerate(first_packets(number), 1024):
        server.receive(packet, len(packet), ("203.0.113.1", port), None, 0.0)
        found += answers(server)
    return found


def test_an_honest_peer_comes_in_during_a_flood() -> None:
    client, server = engine(0), engine(1)
    flooded(server)
    connected(server, client)


def test_one_seed_gives_one_course_of_ids_and_tokens() -> None:
    """Nothing of them is drawn from the system's chance or clock; keys of TLS are."""
    first, again, other = ([packet[1:23] for packet in first_packets(3, seed)] for seed in (4, 4, 5))
    assert first == again
    assert len({head[5:13] for head in first + other} | {head[14:22] for head in first + other}) == 12
    flooding = first_packets(40)
    retries = []
    for seed in (4, 4, 5):
        server = engine(1, seed=seed)
        for packet in flooding:
            server.receive(packet, len(packet), CLIENT, None, 0.0)
        retries.append([answer for answer in answers(server) if is_retry(answer)])
    assert len(retries[0]) == 8
    assert retries[0] == retries[1]
    assert not set(retries[0]) & set(retries[2])


@pytest.mark.parametrize(
    ("seconds", "reasons"),
    [(15.0, []), (17.0, ["aborted by peer: received an invalid Retry Token in a client Initial"])],
)
def test_tokens_grow_old_by_the_callers_clock(seconds: float, reasons: list[str]) -> None:
    client, server = engine(0), engine(1)
    flooded(server)
    client.connect(SERVER, 0.0)
    (hello,) = answers(client)
    server.receive(hello, len(hello), CLIENT, None, 0.0)
    (retry,) = answers(server)
    assert is_retry(retry)
    client.receive(retry, len(retry), SERVER, None, 0.0)
    (hello,) = answers(client)
    server.receive(hello, len(hello), CLIENT, None, seconds)
    replies = answers(server, seconds)
    assert replies
    for reply in replies:
        client.receive(reply, len(reply), SERVER, None, 0.0)
    assert [reason for kind, _, _, reason in happened(client) if kind == "lost"] == reasons


def test_garbage_is_harmless() -> None:
    client, server = engine(0), engine(1)
    random = Random(1)
    for _ in range(5000):
        garbage = random.randbytes(random.choice((1, 20, 64, 600, 1300)))
        server.receive(garbage, len(garbage), ("203.0.113.1", 1), None, 0.0)
    answers(server)
    connected(server, client)


def garbled(datagram: bytes, byte: int, bits: int) -> bytes:
    """Change a byte, and cut off what follows the first packet's beginning."""
    changed = bytearray(datagram[:100])
    changed[byte] ^= bits
    return bytes(changed)


def test_a_byte_that_makes_a_retry_ends_one_handshake() -> None:
    """No key protects a packet's type; servers alone send Retry packets (RFC 9000, 17.2.5)."""
    client, server = engine(0), engine(1)
    client.connect(SERVER, 0.0)
    for hello in answers(client):
        server.receive(hello, len(hello), CLIENT, None, 0.0)
    for reply in answers(server):
        client.receive(reply, len(reply), SERVER, None, 0.0)
    retry = garbled(answers(client)[0], 0, 0x30)
    server.receive(retry, len(retry), CLIENT, None, 0.0)
    ((kind, _, _, reason),) = happened(server)
    assert kind == "lost" and reason.endswith("client sent Retry")
    connected(server, engine(0, seed=2))


def test_a_byte_that_makes_a_version_negotiation_ends_one_handshake() -> None:
    """Nor its version; who is told of no version that it speaks has to give up (RFC 9000, 6.2)."""
    client, server = engine(0), engine(1)
    client.connect(SERVER, 0.0)
    for hello in answers(client):
        server.receive(hello, len(hello), CLIENT, None, 0.0)
    negotiation = garbled(answers(server)[0], 4, 0x01)
    client.receive(negotiation, len(negotiation), SERVER, None, 0.0)
    assert [event[::3] for event in happened(client)] == [
        ("lost", "peer doesn't implement any supported version")
    ]
    connected(engine(1, seed=2), client)


def test_connections_take_turns() -> None:
    server = engine(1)
    client = engine(0)
    network = Network(Random(1), Weather(), client, server)
    numbers = [client.connect(SERVER, 0.0) for _ in range(4)]
    up: set[int] = set()

    def step() -> None:
        happened(server)
        up.update(number for kind, number, *_ in happened(client) if kind == "connected")

    network.run(step, lambda: up == set(numbers))
    for number in numbers:
        stream = client.open(number)
        assert stream is not None
        assert client.write(number, stream, bytes(20_000))
    order: list[bytes] = []
    while batch := client.transmit(1, network.now):
        order.append(batch[0][1:13])  # the peer's connection id
    assert len(set(order[:4])) == 4


def test_what_is_held_for_a_peer_has_a_limit_that_may_change() -> None:
    client, server = engine(0), engine(1)
    _, ours, _ = connected(server, client)
    stream = client.open(ours)
    assert stream is not None
    client.limit(ours, 10_000)
    assert [client.write(ours, stream, bytes(20_000)) for _ in range(2)] == [10_000, 0]
    client.limit(ours, 25_000)
    assert ("writable", ours, stream, "") in happened(client)
    assert client.write(ours, stream, bytes(20_000)) == 15_000


def test_a_panic_costs_one_connection() -> None:
    """Asked for a stream that this end can't write to, quinn panics."""
    client, server = engine(0), engine(1)
    _, ours, _ = connected(server, client)
    assert client.write(ours, 3, b"x") is None
    assert [(kind, reason) for kind, _, _, reason in happened(client)] == [("lost", "internal error")]
    assert client.write(ours, 0, b"x") is None
    connected(server, client)


@pytest.mark.parametrize("segments", [1, 44, 1000])
def test_a_batch_is_no_larger_than_one_send_takes(segments: int) -> None:
    client, server = engine(0, window=4 * MIB), engine(1, window=4 * MIB)
    network, ours, _ = connected(server, client)
    stream = client.open(ours)
    assert stream is not None
    largest = 0
    for _ in range(50):
        client.write(ours, stream, bytes(200_000))
        while batch := client.transmit(segments, network.now):
            data, segment, _, _ = batch
            largest = max(largest, len(data))
            server.receive(data, segment or len(data), CLIENT, None, network.now)
        buffer = bytearray(MIB)
        for kind, number, opened, _ in happened(server):
            if kind in ("opened", "readable"):
                server.read_into(number, opened or 0, buffer)
        while batch := server.transmit(segments, network.now):
            client.receive(batch[0], batch[1] or len(batch[0]), SERVER, None, network.now)
        network.now += 0.01
        client.handle_timeouts(network.now)
        server.handle_timeouts(network.now)
    assert largest <= 65_507
    assert (largest > 1452) == (segments > 1)
