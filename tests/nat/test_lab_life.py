"""A lab goes away entirely, whoever was killed, and touches nothing outside it."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.nat.lab import remains
from tests.nat.lab.kinds import LabError, Nat
from tests.nat.lab.lab import Lab
from tests.nat.lab.namespaces import namespaces, run
from tests.nat.lab.probes import UDP, bound, classify_udp, udp_mapping

ROOT = Path(__file__).parents[2]
SECONDS = 10.0  # until what was killed is gone
STUBBORN = "import signal, time; signal.signal(15, signal.SIG_IGN); print(flush=True); time.sleep(99)"
OWNER = """
import sys, time
from tests.nat.lab.kinds import Nat
from tests.nat.lab.lab import Lab
lab = Lab({"alice": Nat("cone", delay_ms=1)}).__enter__()
sleeper = lab.host("alice").popen("sleep", "1000")
print(lab.prefix, sleeper.pid, lab._keeper.pid, flush=True)
time.sleep(1000)
"""
CROWD = """
import sys
from tests.nat.lab.kinds import Nat
from tests.nat.lab.lab import Lab
from tests.nat.lab.probes import UDP, bound, udp_mapping
for _ in range(8):
    with Lab({"alice": Nat("cone", delay_ms=2), "bob": "symmetric"}) as lab:
        sleeper = lab.host("alice").popen("sleep", "100")
        with bound(lab.host("relay"), UDP, 7000, lab.host("relay").ip) as server:
            for name in ("alice", "bob") * 5:
                with bound(lab.host(name), UDP) as here:
                    assert udp_mapping(here, server)[0] == lab.router(name).wan_ip
                    server.settimeout(0)
                    try:
                        raise SystemExit(f"a stranger's packet: {server.recv(100)}")
                    except BlockingIOError:
                        pass
        assert sleeper.poll() is None, "another lab's end was this one's"
"""


def _eventually(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def _is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def test_a_program_runs_inside_and_ends_with_the_lab() -> None:
    with Lab({"alice": "cone"}) as lab:
        alice = lab.host("alice")
        sleeper = alice.popen("sleep", "1000")
        _eventually(lambda: Path(f"/proc/{sleeper.pid}/comm").read_text() == "sleep\n")
        assert os.stat(f"/proc/{sleeper.pid}/ns/net").st_ino != os.stat("/proc/self/ns/net").st_ino
        assert alice.ip in alice.run("ip", "-4", "-o", "addr", "show", "dev", "eth0")
    assert sleeper.wait(SECONDS) == -signal.SIGTERM
    assert not namespaces(lab.prefix) and not remains.record(lab.prefix).exists()


def test_a_program_that_ignores_sigterm_is_killed_and_closing_twice_does_no_harm() -> None:
    with Lab({"alice": "cone"}) as lab:
        stubborn = lab.host("alice").popen(sys.executable, "-c", STUBBORN, stdout=subprocess.PIPE)
        assert stubborn.stdout is not None
        with stubborn.stdout as output:
            output.readline()
        lab.close()
        assert stubborn.wait(SECONDS) == -signal.SIGKILL
        remains.remove(lab.prefix)


def test_a_forked_process_does_not_end_the_lab() -> None:
    with Lab({"alice": "cone"}) as lab:
        pid = os.fork()
        if pid == 0:
            try:
                lab.close()
            finally:
                os._exit(0)
        os.waitpid(pid, 0)
        assert len(namespaces(lab.prefix)) == 4


def test_a_lab_that_fails_leaves_nothing() -> None:
    lab = Lab({"alice": Nat("cone", rate="nonsense")})
    with pytest.raises(LabError, match="nonsense"):
        lab.__enter__()
    assert not namespaces(lab.prefix)


def _owner() -> tuple[subprocess.Popen[str], str, int, int]:
    owner = subprocess.Popen([sys.executable, "-c", OWNER], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert owner.stdout is not None
    with owner.stdout as output:
        prefix, sleeper, keeper = output.readline().split()
    return owner, prefix, int(sleeper), int(keeper)


def test_a_killed_owners_lab_goes_away() -> None:
    with Lab({}):
        owner, prefix, sleeper, keeper = _owner()
        assert len(namespaces(prefix)) == 4
        owner.kill()
        owner.wait()
        _eventually(lambda: not namespaces(prefix) and not _is_alive(sleeper) and not _is_alive(keeper))


def test_the_next_lab_sweeps_what_owner_and_keeper_left() -> None:
    with Lab({}):
        owner, prefix, sleeper, keeper = _owner()
    os.kill(keeper, signal.SIGKILL)
    owner.kill()
    owner.wait()
    assert len(namespaces(prefix)) == 4
    with Lab({}):
        assert not namespaces(prefix)
    assert not _is_alive(sleeper)


def test_labs_in_many_processes_keep_apart() -> None:
    with Lab({}):
        crowd = [subprocess.Popen([sys.executable, "-c", CROWD], cwd=ROOT) for _ in range(3)]
        assert [each.wait(60) for each in crowd] == [0, 0, 0]


def test_two_labs_of_one_process_keep_apart() -> None:
    with Lab({"alice": "cone"}) as one, Lab({"alice": "symmetric"}) as two:
        assert one.host("alice").ip == two.host("alice").ip
        seen = [classify_udp(lab.host("alice"), lab.host("relay")).mapping for lab in (one, two)]
        assert seen == ["endpoint-independent", "address-and-port-dependent"]


def test_nothing_outside_is_touched() -> None:
    nats = {"alice": Nat("cone", delay_ms=1, rate="10mbit", ipv6=True), "bob": Nat("none")}
    with Lab(nats) as lab:
        assert lab.prefix not in run(["ip", "-d", "-o", "link"])
        for prefix in (lab.host("relay").ip, lab.router("alice").wan_ip, lab.host("bob").ip):
            assert prefix.rpartition(".")[0] not in run(["ip", "-o", "addr"]) + run(["ip", "route"])
        assert "mapped_" not in run(["nft", "list", "ruleset"])
        with pytest.raises(LabError):
            lab.host("inet").run("ip", "route", "get", "8.8.8.8")
        relay, alice = lab.host("relay"), lab.host("alice")
        with bound(relay, UDP, ip=relay.ip) as server, bound(alice, UDP) as here:
            assert udp_mapping(here, server)
