"""What is measured: `pt` and its rivals, each as a way from a local port to the target."""

import functools
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.bench import rivals
from tests.bench.ends import INSTALLED, Ends, delayed, foreign_ends, pt_ends
from tests.bench.programs import find, free_port, program
from tests.bench.ssh import ssh
from tests.bench.tunnel import Tunnel
from tests.interop.build import GO, RUST, Recipe

_COPY_BUFFER = 65536  # bytes; socat's own 8192 would make it no yardstick
_BACKLOG = 128  # connections; socat's own 5 would refuse some of 16 at once


@dataclass(frozen=True, slots=True)
class Subject:
    """One thing to measure.

    Attributes:
        name: as in the tables.
        open: starts it, given the target's host:port and a folder of its own, and yields the tunnel.
        missing: returns why it can't be measured here, or None; builds what it can.
        drops: whether it may cut connections that come in a burst, so that a load is tried again.
        open_far: as `open`, with the two ends so many seconds away from each other; None if that is not measured.
        ends: returns the commands of its two ends, which listen on the address that is given; None for all else.
    """

    name: str
    open: Callable[[str, Path], AbstractContextManager[Tunnel]]
    missing: Callable[[], str | None] = lambda: None
    drops: bool = False
    open_far: Callable[[str, Path, float], AbstractContextManager[Tunnel]] | None = None
    ends: Callable[[str], Ends] | None = None


def folder_of(subject: Subject, base: Path) -> Path:
    """Make a folder for what a subject keeps on disk."""
    folder = base / "".join(letter if letter.isalnum() else "-" for letter in subject.name)
    folder.mkdir(parents=True)
    return folder


_UNBATCHED = (
    "import sys; from peertunnel.transport.quic import udp; udp._IS_LINUX = False; "
    "from peertunnel.cli.main import main; sys.exit(main())"
)


def _pt(name: str, transport: str, command: tuple[str, ...] = (str(INSTALLED),)) -> Subject:
    ends = functools.partial(pt_ends, transport, command)
    return _libp2p(name, ends, transport == "tcp", functools.partial(_not_installed, transport))


def _not_installed(transport: str) -> str | None:
    if not INSTALLED.exists():
        return f"pt is not installed beside {sys.executable}"
    if transport != "quic":
        return None
    # What is installed is asked: the folder that we run in may lack the engine.
    asked = [
        sys.executable,
        "-P",
        "-c",
        "from peertunnel.transport.quic import why_not; print(why_not() or '')",
    ]
    return subprocess.run(asked, check=True, capture_output=True, text=True).stdout.strip() or None


def _foreign(name: str, recipe: Recipe, transport: str, drops: bool = False) -> Subject:
    ends = functools.partial(foreign_ends, recipe, transport)
    return _libp2p(name, ends, transport == "noise", functools.partial(built, recipe), drops)


def _libp2p(
    name: str,
    ends: Callable[..., Ends],
    is_far: bool,
    missing: Callable[[], str | None],
    drops: bool = False,
) -> Subject:
    opened = ends().open
    return Subject(name, opened, missing, drops, opened if is_far else None, ends)


def built(recipe: Recipe) -> str | None:
    """Build a peer if its sources have changed; return why it can't be built, or None."""
    if not recipe.is_fresh():
        if not find(recipe.tool):
            return f"{recipe.tool} is not installed"
        recipe.build()
    return None


def _installed(*tools: str) -> str | None:
    lacking = [tool for tool in tools if not find(tool)]
    return f"{' and '.join(lacking)} not installed" if lacking else None


@contextmanager
def _socat(target: str, _folder: Path) -> Iterator[Tunnel]:
    """Forward twice without encryption: what two copies through user space cost."""
    near, far = free_port(), free_port()

    def hop(port: int, to: str) -> list[str]:
        listen = f"TCP-LISTEN:{port},bind=127.0.0.1,fork,reuseaddr,nodelay,backlog={_BACKLOG}"
        return ["socat", "-b", str(_COPY_BUFFER), listen, f"TCP:{to},nodelay"]

    with program(hop(far, target)) as second, program(hop(near, f"127.0.0.1:{far}")) as first:
        second.wait_for_port(far)
        first.wait_for_port(near)
        yield Tunnel(f"127.0.0.1:{near}", (first.pid, second.pid))


@contextmanager
def _direct(target: str, _folder: Path, seconds: float = 0.0) -> Iterator[Tunnel]:
    with delayed(target, seconds) as place:
        yield Tunnel(place, ())


PT = _pt("pt", "tcp")
PT_QUIC = _pt("pt, QUIC", "quic")
# As on systems whose sockets take and give one datagram at a time.
PT_QUIC_UNBATCHED = _pt("pt, QUIC, unbatched", "quic", (sys.executable, "-P", "-c", _UNBATCHED))
GO_NOISE = _foreign("Go, Noise", GO, "noise")
GO_TLS = _foreign("Go, TLS", GO, "tls")
GO_QUIC = _foreign("Go, QUIC", GO, "quic")
RUST_QUIC = _foreign("Rust, QUIC", RUST, "quic", drops=True)
RUST_NOISE = _foreign("Rust, Noise", RUST, "noise", drops=True)  # as libp2p-stream does
_SSH_TOOLS = ("ssh", "sshd", "ssh-keygen")
SSH = Subject("ssh -L", functools.partial(ssh, None), functools.partial(_installed, *_SSH_TOOLS))
SSH_GCM = Subject(
    "ssh -L, aes128-gcm",
    functools.partial(ssh, "aes128-gcm@openssh.com"),
    functools.partial(_installed, *_SSH_TOOLS),
)
SOCAT = Subject("socat, two hops", _socat, functools.partial(_installed, "socat"))
RATHOLE = Subject("rathole, Noise", rivals.rathole, functools.partial(_installed, "rathole"))
BORE = Subject("bore, unencrypted", rivals.bore, functools.partial(_installed, "bore"))
DUMBPIPE = Subject("dumbpipe, QUIC", rivals.dumbpipe, rivals.no_dumbpipe)
DIRECT = Subject("direct TCP", _direct, open_far=_direct)

TCP = (PT, GO_NOISE, GO_TLS, RUST_NOISE, RATHOLE, SSH, SSH_GCM, BORE, SOCAT, DIRECT)
QUIC = (PT_QUIC, PT_QUIC_UNBATCHED, GO_QUIC, RUST_QUIC, DUMBPIPE)
ALL = (*TCP, *QUIC)
QUICK = (PT, GO_NOISE, DIRECT)
