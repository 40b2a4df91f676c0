"""`pt doctor` on one machine: its checks in their order, for people and for programs, with and without a relay."""

import json
from pathlib import Path
from typing import Any

from tests.cli.commands import Started, run_pt

CHECKS = [
    "addresses",
    "mapping",
    "filtering",
    "udp",
    "ipv6",
    "hairpin",
    "port-mapping",
    "dht",
    "relay",
    "tunnels",
]
OFFLINE = ("doctor", "--no-mdns", "--p2p-listen", "/ip4/127.0.0.1/tcp/0", "--wait", "20")
COLUMN = 23  # where findings and advice begin
NOWHERE = "/ip4/127.0.0.1/tcp/1/p2p/12D3KooWBpLN2GcxWhMRYURWfc3qkBqh7o5YGDb1hNFXMDLoeFuu"


def examine(home: Path, *options: str, code: int = 0, dht: bool = False) -> dict[str, dict[str, Any]]:
    """Run the doctor and give its checks by name."""
    ended = run_pt(home, *OFFLINE, "--json", *options, PT_DHT=str(int(dht)))
    assert (ended.returncode, ended.stderr) == (code, ""), ended.stdout
    told = [json.loads(line) for line in ended.stdout.splitlines()]
    checks = [event for event in told if event["kind"] == "check"]
    assert [event["check"] for event in checks] == CHECKS
    assert [event["code"] for event in told if event["kind"] == "error"] == [code] * bool(code)
    return {event["check"]: event for event in checks}


def test_a_relay_is_tried_and_the_dht_is_counted(tmp_path: Path) -> None:
    with Started(tmp_path / "relay", "relay", PT_DHT="1") as relay:
        via = relay.until(r"--via (\S+)")[1]
        checks = examine(tmp_path / "here", "--via", via, dht=True)
    assert checks["relay"]["verdict"] == "ok"
    assert checks["relay"]["finding"].startswith(f"…{via[-8:]} answers in ")
    assert checks["relay"]["finding"].endswith("relays for us: 128 KiB each way and 120 s for each circuit")
    assert checks["dht"]["finding"] == "one node has answered, and this machine is a client of it"
    assert checks["mapping"]["verdict"] == checks["filtering"]["verdict"] == "unknown"
    assert checks["tunnels"]["finding"].startswith("by relay at least")


def test_a_relay_without_circuits_is_for_meeting_only(tmp_path: Path) -> None:
    with Started(tmp_path / "relay", "relay", "--no-circuits") as relay:
        via = relay.until(r"--via (\S+)")[1]
        checks = examine(tmp_path / "here", "--via", via)
        assert checks["relay"]["finding"].endswith("relays nothing")
        assert "--no-circuits" in checks["relay"]["advice"]
        assert checks["tunnels"]["verdict"] == "warning"
        examine(tmp_path / "here", "--via", via, "--relay-only", code=1)


def test_a_relay_that_is_not_there_is_a_problem_and_no_tunnel_works(tmp_path: Path) -> None:
    checks = examine(tmp_path, "--via", NOWHERE, code=1)
    assert checks["relay"]["finding"] == "…MDLoeFuu was not reached"
    assert checks["relay"]["verdict"] == checks["tunnels"]["verdict"] == "problem"


def test_people_read_a_line_a_check_and_advice_below(tmp_path: Path) -> None:
    ended = run_pt(tmp_path, *OFFLINE, "-q")
    assert (ended.returncode, ended.stderr) == (0, "")
    findings = [line for line in ended.stdout.splitlines() if not line.startswith(" ")]
    advice = [line for line in ended.stdout.splitlines() if line.startswith(" ")]
    assert [line.split()[1] for line in findings] == CHECKS
    assert advice and all(line[:COLUMN].isspace() for line in advice)
    assert not any(line[COLUMN].isspace() for line in findings + advice)
    assert "unknown  dht           off: --no-dht" in findings


def test_the_deadline_is_kept(tmp_path: Path) -> None:
    checks = examine(tmp_path, "--wait", "0.5", "--bootstrap", NOWHERE, dht=True, code=1)
    assert checks["dht"]["finding"] == "no node has answered"
