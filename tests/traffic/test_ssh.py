"""OpenSSH through a tunnel, and with `pt bind --stdio` as its ProxyCommand."""

import getpass
import os
import shlex
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from random import Random

import pytest
import trio

from tests.tools import PT, need
from tests.traffic.processes import (
    CLIENT_SECONDS,
    NAME,
    Forwarding,
    forwarding,
    held_port,
    lasting,
    need_all,
    run,
    server,
)

MIB = 1 << 20
SSHD = """
ListenAddress 127.0.0.1:{port}
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/user_key.pub
PidFile none
UsePAM no
StrictModes no
PermitRootLogin yes
Subsystem sftp internal-sftp
"""
CLIENT = """
Host there
    HostName localhost
    HostKeyAlias there
    User {user}
    Port {port}
    IdentityFile {folder}/user_key
    IdentitiesOnly yes
    BatchMode yes
    UserKnownHostsFile {folder}/known_hosts
    GlobalKnownHostsFile /dev/null
    LogLevel ERROR
"""


@dataclass(frozen=True, slots=True)
class Ssh:
    """A server's own client configuration, and the tunnel to the server."""

    folder: Path
    tunnel: Forwarding

    def command(self, program: str, *arguments: str) -> list[str]:
        return [need(program), "-F", str(self.folder / "config"), *arguments]

    @property
    def proxy(self) -> str:
        """Give the option that reaches the server with no local port."""
        words = [*PT, "bind", "--stdio", "--no-mdns"]
        words += ["--peer", self.tunnel.address, "--id", NAME, "--p2p-listen", "/ip4/127.0.0.1/tcp/0"]
        return f"-oProxyCommand={shlex.join(words)}"

    async def run(self, command: list[str], *, stdin: bytes = b"", expected: int = 0) -> bytes:
        """Run a client, whose ProxyCommand has files of its own, to its end."""
        return await run(command, stdin=stdin, expected=expected, PT_HOME=str(self.folder / "stdio"))


@asynccontextmanager
async def opened(folder: Path) -> AsyncIterator[Ssh]:
    """Run a server with keys of its own, and a tunnel to it."""
    for key in ("host_key", "user_key"):
        await run([need("ssh-keygen"), "-q", "-t", "ed25519", "-N", "", "-f", str(folder / key)])
    (folder / "known_hosts").write_text("there " + (folder / "host_key.pub").read_text())
    if os.geteuid() == 0:
        with suppress(FileExistsError):
            os.mkdir("/run/sshd", 0o755)  # the system's own service makes it at its start
    command = [need("sshd"), "-D", "-e", "-f", str(folder / "sshd_config")]
    with held_port() as port:
        (folder / "sshd_config").write_text(SSHD.format(folder=folder, port=port))
        async with server(command, lambda: _greets(port)), forwarding(folder, f"127.0.0.1:{port}") as tunnel:
            config = CLIENT.format(folder=folder, user=getpass.getuser(), port=tunnel.port)
            (folder / "config").write_text(config)
            yield Ssh(folder, tunnel)


def _greets(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port)) as client:
        return client.recv(4) == b"SSH-"
    return False


@pytest.fixture(scope="module")
def ssh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ssh]:
    """An ssh server, a tunnel and what a client needs to log in through it."""
    need_all("ssh", "scp", "sshd", "ssh-keygen")
    with lasting(opened(tmp_path_factory.mktemp("ssh"))) as opened_ssh:
        yield opened_ssh


async def test_a_login_gives_the_commands_output_and_exit_code(ssh: Ssh) -> None:
    command = ssh.command("ssh", "there", "echo $SSH_CONNECTION; exit 7")
    assert (await ssh.run(command, expected=7)).startswith(b"127.0.0.1 ")


async def test_scp_of_256_mib_arrives_whole(ssh: Ssh, tmp_path: Path) -> None:
    noise = Random(1).randbytes(MIB - 8)
    data = b"".join(number.to_bytes(8) + noise for number in range(256))
    file, there = tmp_path / "file", tmp_path / "there"
    try:
        file.write_bytes(data)
        await ssh.run(ssh.command("scp", "-q", str(file), f"there:{there}"))
        assert there.stat().st_size == len(data)
        assert sha256(there.read_bytes()).digest() == sha256(data).digest()
    finally:
        for used in (file, there):
            used.unlink(missing_ok=True)


async def test_a_proxy_command_passes_output_and_exit_code(ssh: Ssh) -> None:
    command = ssh.command("ssh", ssh.proxy, "there", "echo out; echo err >&2; exit 7")
    assert await ssh.run(command, expected=7) == b"out\n"


@pytest.mark.parametrize("option", ["", " --json -vv"])
async def test_a_proxy_command_carries_data_and_nothing_else(ssh: Ssh, option: str) -> None:
    data = Random(2).randbytes(8 * MIB)
    assert await ssh.run(ssh.command("ssh", ssh.proxy + option, "there", "cat"), stdin=data) == data


async def test_a_proxy_command_that_has_done_its_work_ends_in_silence(ssh: Ssh) -> None:
    with trio.fail_after(CLIENT_SECONDS):
        done = await trio.run_process(
            ssh.command("ssh", ssh.proxy, "there", "true"),
            capture_stderr=True,  # to its end, which is that of the proxy
            check=False,
            env=os.environ | {"PT_DHT": "0", "PT_PORTMAP": "0", "PT_HOME": str(ssh.folder / "stdio")},
        )
    assert done.returncode == 0
    lines = done.stderr.decode().splitlines()
    assert [line for line in lines if not line.startswith("Connected to ")] == [], lines
