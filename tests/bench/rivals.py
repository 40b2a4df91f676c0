"""Programs that people forward ports with today, measured where `cargo install` has put them on PATH.

Each is given its own listening end and its own dialling end on loopback, set up as its makers say.
"""

import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.bench.programs import find, free_port, program
from tests.bench.samples import load_target
from tests.bench.tunnel import Tunnel
from tests.nat.lab.kinds import Public
from tests.nat.lab.lab import Lab

_BORE_PORT = 7835  # its server takes no other
_LISTEN = ("dumbpipe", "listen-tcp", "--host")
_KEY = re.compile(r"Key:\s*(\S+)")  # the private one, then the public one
_SERVER = """\
[server]
bind_addr = "127.0.0.1:{port}"
default_token = "bench"
[server.transport]
type = "noise"
[server.transport.noise]
local_private_key = "{private}"
[server.services.bench]
bind_addr = "127.0.0.1:{local}"
"""
_CLIENT = """\
[client]
remote_addr = "127.0.0.1:{port}"
default_token = "bench"
[client.transport]
type = "noise"
[client.transport.noise]
remote_public_key = "{public}"
[client.services.bench]
local_addr = "{target}"
"""


@contextmanager
def rathole(target: str, folder: Path) -> Iterator[Tunnel]:
    """Forward a port of its server to the target beside its client, encrypted with Noise."""
    port, local = free_port(), free_port()
    keys = subprocess.run(["rathole", "--genkey"], check=True, capture_output=True, text=True).stdout
    private, public = _KEY.findall(keys)
    files = {"server": _SERVER, "client": _CLIENT}
    for name, text in files.items():
        filled = text.format(port=port, local=local, target=target, private=private, public=public)
        (folder / f"{name}.toml").write_text(filled)
    with program(["rathole", "--server", str(folder / "server.toml")]) as server:
        server.wait_for_port(port)
        with program(["rathole", "--client", str(folder / "client.toml")]) as client:
            client.wait_for_port(local)  # the server listens when the client has come
            yield Tunnel(f"127.0.0.1:{local}", (server.pid, client.pid))


@contextmanager
def bore(target: str, _folder: Path) -> Iterator[Tunnel]:
    """Forward a port of its server to the target beside its client; nothing is encrypted."""
    host, _, target_port = target.rpartition(":")
    local = free_port()
    with program(["bore", "server", "--bind-addr", "127.0.0.1"]) as server:
        server.wait_for_port(_BORE_PORT)
        ends = ["--local-host", host, "--to", "127.0.0.1", "--port", str(local)]
        with program(["bore", "local", target_port, *ends]) as client:
            client.wait_for_port(local)
            yield Tunnel(f"127.0.0.1:{local}", (server.pid, client.pid))


def no_dumbpipe() -> str | None:
    """Tell why dumbpipe can't be measured here, or None."""
    return _alone().lacking() if find("dumbpipe") else "dumbpipe not installed"


def _alone() -> Lab:
    return Lab({}, {"alone": Public(addresses=1)})


@contextmanager
def dumbpipe(_target: str, _folder: Path) -> Iterator[Tunnel]:
    """Forward a port over QUIC to a target of its own, all in a network where its makers' relays can't be called."""
    with _alone() as lab:
        alone = lab.host("alone")
        local, entering = free_port(), alone.command()
        with load_target(entering) as target, program([*entering, *_LISTEN, target]) as server:
            ticket = server.printed(r"dumbpipe connect-tcp (\S+)")
            connect = ["dumbpipe", "connect-tcp", "--addr", f"127.0.0.1:{local}", ticket]
            with program([*entering, *connect]) as client:
                alone.inside(lambda: client.wait_for_port(local))
                yield Tunnel(f"127.0.0.1:{local}", (server.pid, client.pid), tuple(entering))
