"""`ssh -L` through a real sshd of our own, on a port, with keys and settings that nobody else uses."""

import os
import pwd
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.bench.programs import find, free_port, program
from tests.bench.tunnel import Tunnel

_SETTINGS = """\
ListenAddress 127.0.0.1:{port}
HostKey {folder}/host
AuthorizedKeysFile {folder}/user.pub
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
AllowTcpForwarding local
"""
_CLIENT = ("BatchMode=yes", "IdentitiesOnly=yes", "IdentityAgent=none", "ExitOnForwardFailure=yes")


@contextmanager
def ssh(cipher: str | None, target: str, folder: Path) -> Iterator[Tunnel]:
    """Forward a port to the target, with a cipher or with OpenSSH's default."""
    port, local = free_port(), free_port()
    for name in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)
    (folder / "known").write_text(f"[127.0.0.1]:{port} {(folder / 'host.pub').read_text()}")
    (folder / "sshd_config").write_text(_SETTINGS.format(port=port, folder=folder))
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # where root's sshd locks its unprivileged half in
    sshd = find("sshd") or "sshd"  # it starts itself again, which takes an absolute path
    with program([sshd, "-D", "-e", "-f", str(folder / "sshd_config")]) as server:
        server.wait_for_port(port)
        options = [f"-o{option}" for option in (*_CLIENT, f"UserKnownHostsFile={folder / 'known'}")]
        where = ["-p", str(port), "-i", str(folder / "user"), f"{_user()}@127.0.0.1"]
        ciphers = ["-c", cipher] if cipher else []
        forward = ["-N", "-L", f"127.0.0.1:{local}:{target}"]
        with program(["ssh", "-F", "none", *options, *ciphers, *forward, *where]) as client:
            client.wait_for_port(local)
            yield Tunnel(f"127.0.0.1:{local}", (server.pid, client.pid))


def _user() -> str:
    return pwd.getpwuid(os.getuid()).pw_name
