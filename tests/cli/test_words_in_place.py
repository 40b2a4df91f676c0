"""What goes where: words on stderr, results on stdout, and the command for the other side as the id was given."""

import json
import re
import shlex
from pathlib import Path

import pytest

from tests.cli.commands import Started, environment, run_pt
from tests.cli.test_terminal import Terminal

READY = r"^On the other machine: (.*)$"


def advice(home: Path, *arguments: str, **variables: str) -> str:
    with Started(home, "tcp", *arguments, **variables) as provider:
        return provider.until(READY)[1]


def test_an_id_on_the_command_line_is_told_as_it_is_to_people(tmp_path: Path) -> None:
    with Terminal(tmp_path, "tcp", "--port", "22", "--id", "blue heron") as provider:
        provider.until(r"On the other machine: pt bind --port 2022 --id 'blue heron'\r\n")


def test_an_id_on_the_command_line_is_not_told_to_a_log(tmp_path: Path) -> None:
    told = advice(tmp_path, "--port", "22", "--id", "blue heron")
    assert told == "pt bind --port 2022 --id NAME"


def test_a_public_id_is_told_to_everybody(tmp_path: Path) -> None:
    told = advice(tmp_path, "--port", "22", "--id", "blue heron", "--public")
    assert told == "pt bind --port 2022 --id 'blue heron' --public"


def test_an_id_from_a_file_is_told_by_its_file(tmp_path: Path) -> None:
    (tmp_path / "name").write_text("heron")
    told = advice(tmp_path, "--port", "8000", "--id-file", f"{tmp_path}/name")
    assert told == f"pt bind --port 8000 --id-file {shlex.quote(f'{tmp_path}/name')}"


def test_an_id_from_the_environment_is_not_told(tmp_path: Path) -> None:
    told = advice(tmp_path, "--target", "unix:/run/app.sock", PT_ID="heron")
    assert told == "pt bind --port 0 (with the same PT_ID)"


def test_stdout_stays_empty_and_there_is_no_colour_in_a_file(tmp_path: Path) -> None:
    with Started(tmp_path, "tcp", "--port", "22", "--id", "heron", FORCE_COLOR="1") as provider:
        provider.until(READY)
        assert provider.output == ""
        assert "\x1b" not in provider.errors
        assert "can see the id" not in provider.errors


def test_the_visible_id_is_warned_of_once_with_v(tmp_path: Path) -> None:
    with Started(tmp_path, "tcp", "--port", "22", "--id", "heron", "-v") as provider:
        provider.until(READY)
        assert provider.errors.count("can see the id") == 1


def test_quiet_leaves_only_the_link(tmp_path: Path) -> None:
    with Started(tmp_path, "share", "8000", "-q") as provider:
        link = provider.until(r"^pk://\S+\n")[0]
        assert provider.end(15) == 130
        assert (provider.output, provider.errors) == (link, "Interrupted.\n")


def test_the_secret_of_a_link_is_not_written_to_a_log(tmp_path: Path) -> None:
    with Started(tmp_path, "share", "8000", "-vvv") as provider:
        secret = provider.until(r"^pk://\S+#(\S+)$")[1]
        provider.until(READY)
        assert secret not in provider.errors
        assert "On the other machine: pt connect LINK\n" in provider.errors


@pytest.mark.parametrize("options", [(), ("--qr",)], ids=" ".join)
def test_json_leaves_stderr_empty(options: tuple[str, ...], tmp_path: Path) -> None:
    with Started(tmp_path, "share", "8000", "--json", *options) as provider:
        provider.until('"kind":"ready"')
        assert re.match(r'{"kind":"shared","link":"pk://[^"]+"}\n{"kind":"ready"', provider.output)
        assert provider.errors == ""


def test_the_qr_code_is_drawn_beside_the_link(tmp_path: Path) -> None:
    with Started(tmp_path, "share", "8000", "--qr") as provider:
        provider.until("Ready")
        assert provider.errors.count("▀") + provider.errors.count("▄") > 100
        assert "▄" not in provider.output


@pytest.mark.parametrize("alias", ["info", "i"])
def test_info(alias: str, tmp_path: Path) -> None:
    told = run_pt(tmp_path, alias).stdout
    assert re.search(r"^peer id:   12D3KooW\w{44}$", told, re.MULTILINE)
    assert f"identity:  {tmp_path}/identity.key\n" in told
    assert f"config:    {tmp_path}/config.toml\n" in told
    assert re.search(r"^versions:  peertunnel \S+\n           Python 3\.", told, re.MULTILINE)
    assert "/ip4/127.0.0.1/tcp/0\n" in told


@pytest.mark.parametrize(
    ("options", "addresses"),
    [
        (("--transport", "tcp"), ["/ip4/127.0.0.1/tcp/1"]),
        (("--transport", "quic"), ["/ip4/127.0.0.1/udp/1/quic-v1", "/ip6/::1/udp/2/quic-v1"]),
        (("--direct-only",), ["/ip4/127.0.0.1/tcp/1", "/ip6/::1/udp/2/quic-v1"]),
        (("--relay-only",), []),
    ],
    ids=lambda given: " ".join(given) if isinstance(given, tuple) else None,
)
def test_info_names_only_addresses_that_a_node_would_have(
    options: tuple[str, ...], addresses: list[str], tmp_path: Path
) -> None:
    listen = ("--p2p-listen", "/ip4/127.0.0.1/tcp/1", "--p2p-listen", "/ip6/::1/udp/2/quic-v1")
    told = json.loads(run_pt(tmp_path, "info", "--json", *listen, *options).stdout)
    assert told["addresses"] == addresses
    assert f"addresses: {(addresses or ['none'])[0]}\n" in run_pt(tmp_path, "info", *listen, *options).stdout


def test_the_identity_is_made_once_and_private(tmp_path: Path) -> None:
    once, again = (run_pt(tmp_path / "home", "info").stdout for _ in range(2))
    assert once == again
    assert (tmp_path / "home/identity.key").stat().st_mode & 0o777 == 0o600
    assert run_pt(tmp_path / "other", "info").stdout[:70] != once[:70]


def test_no_variable_of_the_user_reaches_the_tests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PT_ID", "mine")
    assert "PT_ID" not in environment(tmp_path)
