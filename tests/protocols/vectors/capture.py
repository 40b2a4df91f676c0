"""Capture what Go's and Rust's yamux and Noise put on the wire: `python -m tests.protocols.vectors.capture`.

Builds the peers, talks to each over loopback and writes go.json and rust.json beside this file: for yamux what was
sent and received around one stream of each fate; for Noise the keys, the records and their plaintext.
"""

import json
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from struct import pack, unpack
from typing import Any

from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.crypto.x25519 import create_new_key_pair as create_static_key_pair
from libp2p.security.noise.messages import NoiseHandshakePayload, make_handshake_payload_sig
from noise.connection import Keypair, NoiseConnection

from tests.interop.build import GO, RUST, Recipe

HERE = Path(__file__).parent
SILENCE = 0.5  # seconds after which a peer has nothing more to say
PING_PAYLOAD = bytes(range(32))
SYN, ACK, RST = 1, 2, 8
DATA, UPDATE, PING = range(3)
FATES = {"echoed": b"eecho", "closed": b"c", "reset": b"r", "opened back": b"o", "gone away": b"a"}


@contextmanager
def running(recipe: Recipe, kind: str, *arguments: str) -> Iterator[dict[str, Any]]:
    """Run a peer and give its first event of a kind."""
    with subprocess.Popen([recipe.binary, *arguments], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            yield next(event for event in map(json.loads, process.stdout) if event["kind"] == kind)
        finally:
            process.terminate()


def frame(kind: int, flags: int, stream_id: int, length: int, payload: bytes = b"") -> bytes:
    """Write a yamux frame."""
    return pack(">BBHII", 0, kind, flags, stream_id, length) + payload


def read_exactly(wire: socket.socket, size: int) -> bytes:
    """Read so many bytes."""
    read = b""
    while len(read) < size:
        if not (chunk := wire.recv(size - len(read))):
            raise EOFError
        read += chunk
    return read


def read_frames(wire: socket.socket) -> Iterator[bytes]:
    """Read frames up to a silence or the end, and answer pings, without which some peers go silent."""
    wire.settimeout(SILENCE)
    while True:
        try:
            header = read_exactly(wire, 12)
        except (TimeoutError, EOFError):
            return
        _, kind, flags, _, length = unpack(">BBHII", header)
        if kind == PING and flags == SYN:
            wire.sendall(frame(PING, ACK, 0, length))
        yield header + (read_exactly(wire, length) if kind == DATA else b"")


def capture_yamux(local: str, command: bytes) -> dict[str, Any]:
    """Open a stream that asks for a fate, half-close it, and collect the answer."""
    host, _, port = local.partition(":")
    sent = frame(DATA, SYN, 1, len(command), command)
    with socket.create_connection((host, int(port))) as wire:
        wire.sendall(sent)
        received = list(read_frames(wire))
        if command[:1] == b"e":
            fin = frame(DATA, 4, 1, 0)
            wire.sendall(fin)
            sent += fin
            received += read_frames(wire)
    return {"sent": sent.hex(), "received": [each.hex() for each in received]}


def delimited(*protocols: str) -> bytes:
    """Write multistream messages."""
    return b"".join(bytes([len(line) + 1]) + line.encode() + b"\n" for line in protocols)


def read_record(wire: socket.socket) -> bytes:
    """Read a length of two bytes and what it counts."""
    length = read_exactly(wire, 2)
    return length + read_exactly(wire, unpack(">H", length)[0])


def shake_hands(wire: socket.socket) -> Any:
    """Become the initiator of a Noise session and give its state."""
    identity, static = create_new_key_pair(), create_static_key_pair()
    wire.sendall(delimited("/multistream/1.0.0", "/noise"))
    expected = delimited("/multistream/1.0.0", "/noise")
    assert read_exactly(wire, len(expected)) == expected
    state = NoiseConnection.from_name(b"Noise_XX_25519_ChaChaPoly_SHA256")
    state.set_keypair_from_private_bytes(Keypair.STATIC, static.private_key.to_bytes())
    state.set_as_initiator()
    state.start_handshake()
    for payload in (b"", payload_of(identity, static)):
        message = bytes(state.write_message(payload))
        wire.sendall(pack(">H", len(message)) + message)
        if not state.handshake_finished:
            state.read_message(read_record(wire)[2:])
    return state


def payload_of(identity: Any, static: Any) -> bytes:
    """Sign the Noise key with the identity."""
    signature = make_handshake_payload_sig(identity.private_key, static.public_key)
    return NoiseHandshakePayload(identity.public_key, signature).serialize()


def capture_noise(address: str) -> dict[str, Any]:
    """Negotiate yamux, then ping, and collect every record both ways."""
    port = int(address.split("/")[4])
    yamux = delimited("/multistream/1.0.0", "/yamux/1.0.0")
    ping = delimited("/multistream/1.0.0", "/ipfs/ping/1.0.0") + PING_PAYLOAD
    sent, received = [], []
    with socket.create_connection(("127.0.0.1", port)) as wire:
        wire.settimeout(5)
        state = shake_hands(wire)
        for plaintext in (yamux, frame(DATA, SYN, 1, len(ping), ping)):
            sealed = state.encrypt(plaintext)
            record = pack(">H", len(sealed)) + sealed
            wire.sendall(record)
            sent.append({"plaintext": plaintext.hex(), "record": record.hex()})
        answer = b""
        while PING_PAYLOAD not in answer:
            record = read_record(wire)
            plaintext = state.decrypt(record[2:])
            received.append({"plaintext": plaintext.hex(), "record": record.hex()})
            answer += plaintext
    ciphers = state.noise_protocol
    return {
        "sent": {"key": ciphers.cipher_state_encrypt.k.hex(), "records": sent},
        "received": {"key": ciphers.cipher_state_decrypt.k.hex(), "records": received},
    }


def main() -> None:
    """Write both files."""
    for recipe, name in ((GO, "go.json"), (RUST, "rust.json")):
        if not recipe.is_fresh():
            recipe.build()
        with running(recipe, "listening", "raw-yamux") as raw:
            yamux = {fate: capture_yamux(raw["local"], command) for fate, command in FATES.items()}
        with running(
            recipe, "ready", "tunnel-listen", "--target", "127.0.0.1:9", "--transport", "noise"
        ) as peer:
            noise = capture_noise(peer["addresses"][0])
        (HERE / name).write_text(json.dumps({"yamux": yamux, "noise": noise}, indent=1) + "\n")


if __name__ == "__main__":
    main()
