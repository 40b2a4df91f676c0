"""A stranger who sends the datagrams of a file, a line of hexadecimal each, over and over: `datagrams.py FILE PACE HOST PORT`."""

import json
import socket
import sys
import time
from itertools import cycle
from pathlib import Path

SOCKETS = 50  # so many addresses they come from


def main(file: str, pace: str, host: str, port: str) -> None:
    """Send so many datagrams a second for ever; say so after the first second."""
    datagrams, to = [bytes.fromhex(line) for line in Path(file).read_text().splitlines()], (host, int(port))
    sockets = [
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) for _ in range(SOCKETS)
    ]
    began = time.monotonic()
    for sent, (sock, data) in enumerate(zip(cycle(sockets), cycle(datagrams)), 1):
        try:
            sock.sendto(data, to)
        except OSError:
            pass  # whatever stands in the way of a stranger
        if sent == int(pace):
            print(json.dumps({"kind": "flooding"}), flush=True)
        time.sleep(max(0.0, began + sent / int(pace) - time.monotonic()))


if __name__ == "__main__":
    main(*sys.argv[1:])
