"""Two engines and a network between them, in virtual time: it delays, loses, duplicates and reorders datagrams."""

import heapq
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count
from random import Random

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from peertunnel.protocols.certificate import issue
from peertunnel.protocols.peerid import ed25519_peer_id
from peertunnel.transport.quic import _engine

Address = tuple[str, int]
CLIENT, SERVER, MOVED = ("192.0.2.1", 1), ("192.0.2.2", 2), ("192.0.2.9", 9)
MOST_SECONDS = 600.0  # of virtual time


def credentials(seed: int) -> tuple[bytes, bytes, str]:
    """Give a certificate and its key, both DER, and the peer id."""
    key = ec.derive_private_key(seed + 1, ec.SECP256R1())
    own = Ed25519PrivateKey.from_private_bytes(seed.to_bytes(32))
    peer_id = ed25519_peer_id(own.public_key().public_bytes_raw())
    private = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    return issue(key, peer_id, own.sign, 1, datetime.now(UTC)), private, peer_id


CREDENTIALS = [credentials(seed) for seed in range(2)]


def engine(
    number: int, *, window: int = 256 * 1024, is_server: bool = True, seed: int = 0
) -> _engine.Endpoint:
    """Make an engine."""
    certificate, key, _ = CREDENTIALS[number]
    return _engine.Endpoint(
        certificate,
        key,
        bytes([seed]) * 32,
        bytes([number]) * 32,
        is_server,
        16,
        ((window, 4 * window, 4 * window),) * 2,
        (10.0, 4.0),
        (1452, 1452),
        ("cubic", "cubic"),
    )


def happened(engine: _engine.Endpoint) -> list[tuple[str, int, int | None, str]]:
    """Take what has happened."""
    return engine.turn(0, 0.0)[0]


class Lost(Exception):
    """A connection has ended."""


@dataclass
class Weather:
    """What the network does to datagrams: fractions that are lost, doubled and garbled, and seconds."""

    loss: float = 0.0
    doubles: float = 0.0
    garbles: float = 0.0
    delay: float = 0.02
    jitter: float = 0.0


@dataclass
class Network:
    """Carries datagrams between two engines, each at its address; `run` lets time pass."""

    random: Random
    weather: Weather
    client: _engine.Endpoint
    server: _engine.Endpoint
    now: float = 0.0
    client_address: Address = CLIENT
    sent: int = 0
    _numbers: Iterator[int] = field(default_factory=count)
    _under_way: list[tuple[float, int, bool, bytes]] = field(default_factory=list)

    def run(self, happened: Callable[[], None], until: Callable[[], bool]) -> None:
        """Let time pass, and call `happened` at each step, until a condition holds."""
        while not until():
            assert self.now < MOST_SECONDS, "nothing moves any more"
            happened()
            self._collect()
            if until():
                return
            self._advance()

    def _collect(self) -> None:
        for engine, to_server in ((self.client, True), (self.server, False)):
            while batch := engine.transmit(self.random.choice((1, 4, 44)), self.now):
                data, segment, _, _ = batch
                for start in range(0, len(data), segment or len(data)):
                    self._send(to_server, data[start : start + (segment or len(data))])

    def _send(self, to_server: bool, datagram: bytes) -> None:
        self.sent += 1
        for _ in range(2 if self.random.random() < self.weather.doubles else 1):
            if self.random.random() >= self.weather.loss:
                if self.random.random() < self.weather.garbles:
                    datagram = self._garbled(datagram)
                arrives = self.now + self.weather.delay + self.random.random() * self.weather.jitter
                heapq.heappush(self._under_way, (arrives, next(self._numbers), to_server, datagram))

    def _garbled(self, datagram: bytes) -> bytes:
        changed = bytearray(datagram)
        changed[self.random.randrange(len(changed))] ^= self.random.randrange(1, 256)
        return bytes(changed[: self.random.randrange(1, len(changed) + 1)])

    def _advance(self) -> None:
        due = [when for engine in (self.client, self.server) if (when := engine.timeout()) is not None]
        if self._under_way:
            due.append(self._under_way[0][0])
        self.now = max(self.now + 1e-5, min(due, default=self.now + 1.0))
        for engine in (self.client, self.server):
            engine.handle_timeouts(self.now)
        while self._under_way and self._under_way[0][0] <= self.now:
            _, _, to_server, datagram = heapq.heappop(self._under_way)
            if to_server:
                self.server.receive(datagram, len(datagram), self.client_address, None, self.now)
            else:
                self.client.receive(datagram, len(datagram), SERVER, None, self.now)


class End:
    """One end of one stream, with what it sends and what it has received: the oracle."""

    def __init__(self, engine: _engine.Endpoint, data: bytes) -> None:
        self.engine = engine
        self.received = bytearray()
        self.connection: int | None = None
        self.stream: int | None = None
        self.is_finished = False
        self.is_read = False
        self._data = memoryview(data)

    @property
    def is_over(self) -> bool:
        """Whether both directions have ended."""
        return self.is_finished and self.is_read

    def send(self, most: int) -> None:
        """Write up to so many bytes, and the end behind the last one."""
        if self.connection is None or self.stream is None or self.is_finished:
            return
        taken = self.engine.write(self.connection, self.stream, self._data[:most])
        assert taken is not None
        self._data = self._data[taken:]
        if not self._data:
            self.is_finished = self.engine.finish(self.connection, self.stream)

    def receive(self, most: int) -> None:
        """Read up to so many bytes."""
        if self.connection is None or self.stream is None or self.is_read:
            return
        buffer = bytearray(most)
        read = self.engine.read_into(self.connection, self.stream, buffer)
        assert read is not None
        self.received += buffer[: read[0]]
        self.is_read = read[1] is True


class Exchange:
    """A stream between two engines, over which each end sends its bytes and then closes its direction.

    Args:
        seed: of everything that is left to chance.
        weather: of the network.
        size: bytes each way.
        moves_after: seconds from the stream's opening until the client's address changes, None for never.
    """

    def __init__(self, seed: int, weather: Weather, size: int, moves_after: float | None = None) -> None:
        self.random = Random(seed)
        self.sent = [self.random.randbytes(size) for _ in range(2)]
        window = self.random.choice((4_096, 65_536, 262_144))
        engines = [engine(number, window=window, seed=seed % 256) for number in range(2)]
        self.ends = [End(*pair) for pair in zip(engines, self.sent, strict=True)]
        self.network = Network(self.random, weather, engines[0], engines[1])
        self._moves_after = moves_after
        self._moves_at = float("inf")
        self.ends[0].connection = engines[0].connect(SERVER, 0.0)

    @property
    def is_established(self) -> bool:
        """Whether both ends have seen the handshake through; the server is the last one."""
        return self.ends[1].connection is not None

    def run(self) -> None:
        """Run it to its end."""
        self.network.run(self._step, lambda: all(end.is_over for end in self.ends))

    def _step(self) -> None:
        for end in self.ends:
            for kind, connection, stream, reason in happened(end.engine):
                if kind == "lost":
                    raise Lost(reason)
                if kind == "connected" and end is self.ends[0]:
                    end.stream = end.engine.open(connection)
                    assert end.engine.write(connection, end.stream or 0, b"") == 0
                elif kind == "connected":
                    end.connection = connection
                elif kind == "opened":
                    end.stream = stream
                    if self._moves_after is not None:
                        self._moves_at = self.network.now + self._moves_after
            end.send(self.random.randrange(1, 60_000))
            if self.random.random() < 0.9:  # else the reader is busy elsewhere
                end.receive(self.random.randrange(1, 50_000))
        if self.network.now > self._moves_at:
            self.network.client_address = MOVED
