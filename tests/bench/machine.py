"""What a run was made on and with, for the figures to mean something elsewhere."""

import os
import platform
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

from cryptography.hazmat.backends.openssl import backend

from tests.interop.build import GO, RUST

_PACKAGES = ("peertunnel", "libp2p", "trio", "cryptography")


def machine() -> str:
    """Describe processor, memory and system in a line."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)
    cores = len(os.sched_getaffinity(0))
    kernel = f"{platform.system()} {platform.release().split('-')[0]}"
    return f"{cores} cores of {_processor()}, {memory:.0f} GiB, {kernel}"


def _processor() -> str:
    found = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return found[1] if found else platform.machine()


def versions() -> str:
    """List what was measured, with versions."""
    packages = (f"{name} {metadata.version(name)}" for name in _PACKAGES)
    return ", ".join((_python(), *packages, backend.openssl_version_text(), *_peers(), _ssh()))


def _python() -> str:
    """Name the interpreter, and whose it is: builds of one version differ by more than many a rival."""
    is_systems = sys.base_prefix == "/usr"
    whose = platform.freedesktop_os_release()["PRETTY_NAME"] if is_systems else "no distribution"
    return f"Python {platform.python_version()} of {whose}"


def _peers() -> tuple[str, str]:
    go = re.search(r"go-libp2p (v\S+)", (GO.folder / "go.mod").read_text())
    rust = re.search(r'name = "libp2p"\nversion = "(.*)"', (RUST.folder / "Cargo.lock").read_text())
    return f"go-libp2p {go[1] if go else '?'}", f"rust-libp2p {rust[1] if rust else '?'}"


def _ssh() -> str:
    try:
        return subprocess.run(["ssh", "-V"], check=False, capture_output=True, text=True).stderr.split(",")[0]
    except FileNotFoundError:
        return "no OpenSSH"
