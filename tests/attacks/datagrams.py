"""A stranger who sends datagrams to a UDP port: `python -m tests.attacks.datagrams garbage|handshakes HOST PORT`."""

import json
import random
import socket
import sys
import time
from itertools import cycle

from peertunnel.transport.quic import _engine
from tests.node.quic_network import engine

PACE = {"garbage": 10_000, "handshakes": 2_000}  # datagrams a second
SIZES = (1, 20, 64, 600, 1300)  # bytes
SOCKETS = 50  # so many addresses they come from
_KINDS = 3000  # different ones, over and over


def garbage() -> list[bytes]:
    """Make datagrams that mean nothing, half of which look like QUIC's at first sight."""
    chance = random.Random(0)
    noise = [chance.randbytes(chance.choice(SIZES)) for _ in range(_KINDS)]
    return [
        bytes([data[0] | 0xC0]) + b"\0\0\0\1" + data[5:] if at % 2 else data for at, data in enumerate(noise)
    ]


def handshakes() -> list[bytes]:
    """Make the first datagrams of handshakes that never go on."""
    client: _engine.Endpoint = engine(0, is_server=False)
    for _ in range(_KINDS):
        client.connect(("192.0.2.1", 4001), 0.0)
    found: list[bytes] = []
    while batch := client.transmit(1, 0.0):
        found.append(batch[0])
    return found


def main(kind: str, host: str, port: str) -> None:
    """Send for ever."""
    datagrams, pace, to = (
        {"garbage": garbage, "handshakes": handshakes}[kind](),
        PACE[kind],
        (host, int(port)),
    )
    sockets = [
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) for _ in range(SOCKETS)
    ]
    began = time.monotonic()
    for sent, (sock, data) in enumerate(zip(cycle(sockets), cycle(datagrams)), 1):
        try:
            sock.sendto(data, to)
        except OSError:
            pass  # whatever stands in the way of a stranger
        if sent == pace:
            print(json.dumps({"kind": "flooding"}), flush=True)
        time.sleep(max(0.0, began + sent / pace - time.monotonic()))


if __name__ == "__main__":
    main(*sys.argv[1:])
