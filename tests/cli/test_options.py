"""Where a setting comes from: a flag after the command, before it, PT_ variables, the file, the default."""

from pathlib import Path

import click
import pytest

from peertunnel.cli.main import cli
from peertunnel.cli.options import Flags
from peertunnel.config import Config
from peertunnel.errors import UsageError

PLACE = "/ip4/192.0.2.1/tcp/4001/p2p/12D3KooWBpLN2GcxWhMRYURWfc3qkBqh7o5YGDb1hNFXMDLoeFuu"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PT_HOME", str(tmp_path))
    return tmp_path


def read(*arguments: str) -> Flags:
    flags = Flags()
    cli.main([*arguments, "-q"], prog_name="pt", standalone_mode=False, obj=flags)
    return flags


def test_defaults() -> None:
    assert read("info").settings() == Config()


def test_the_file_goes_before_the_default(home: Path) -> None:
    (home / "config.toml").write_text("wait = 1\n")
    assert read("info").settings().wait == 1.0


def test_a_variable_goes_before_the_file(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / "config.toml").write_text("wait = 1\ngrace = 1\n")
    monkeypatch.setenv("PT_WAIT", "2")
    settings = read("info").settings()
    assert (settings.wait, settings.grace) == (2.0, 1.0)


@pytest.mark.parametrize("arguments", [("--wait", "3", "info"), ("info", "--wait", "3")])
def test_a_flag_goes_before_a_variable(arguments: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PT_WAIT", "2")
    assert read(*arguments).settings().wait == 3.0


def test_a_flag_after_the_command_goes_before_one_in_front_of_it() -> None:
    assert read("--wait", "3", "info", "--wait", "4").settings().wait == 4.0


def test_zero_is_a_value() -> None:
    assert read("--wait", "3", "info", "--wait", "0").settings().wait == 0.0


def test_every_shared_option_has_its_variable(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / "other.toml").write_text("")
    given = {
        "JSON": "1",
        "QUIET": "1",
        "VERBOSE": "2",
        "CONFIG": str(home / "other.toml"),
        "IDENTITY": str(home / "other.key"),
        "WAIT": "1",
        "GRACE": "2",
        "MDNS": "0",
        "PORTMAP": "0",
        "P2P_LISTEN": "/ip4/127.0.0.1/tcp/1 /ip6/::1/tcp/1",
    }
    for name, value in given.items():
        monkeypatch.setenv(f"PT_{name}", value)
    flags = read("info")
    assert flags == Flags(
        json=True,
        quiet=True,
        verbose=2,
        config=home / "other.toml",
        identity=str(home / "other.key"),
        wait=1.0,
        grace=2.0,
        mdns=False,
        portmap=False,
        p2p_listen=("/ip4/127.0.0.1/tcp/1", "/ip6/::1/tcp/1"),
    )
    assert flags.settings() == Config(
        identity=home / "other.key", listen=flags.p2p_listen, mdns=False, portmap=False, wait=1.0, grace=2.0
    )


def test_verbosity_adds_up() -> None:
    flags = Flags()
    cli.main(["-v", "info", "-vv"], prog_name="pt", standalone_mode=False, obj=flags)
    assert flags.verbosity == 3


def test_quiet_wins() -> None:
    assert read("-vv", "info").verbosity == -1


def test_listening_addresses_replace_those_before() -> None:
    before, after = "/ip4/127.0.0.1/tcp/1", ("/ip4/127.0.0.1/tcp/2", "/ip4/127.0.0.1/tcp/3")
    flags = read("--p2p-listen", before, "info", "--p2p-listen", after[0], "--p2p-listen", after[1])
    assert flags.settings().listen == after


@pytest.mark.parametrize("text", ["-1", "nan", "soon", ""])
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(UsageError):
        read("info", "--wait", text)


def test_time_may_be_endless() -> None:
    assert read("info", "--wait", "inf").settings().wait > 10**6


def test_the_other_side_is_told_where_to_meet_by_file_or_flag(home: Path) -> None:
    (home / "config.toml").write_text(f'via = ["{PLACE}"]\ndht_prefix = "/team"\n')
    assert read("info").meeting == f" --via {PLACE} --dht-prefix /team"
    assert read("info", "--relay", PLACE).meeting == f" --via {PLACE} --relay {PLACE} --dht-prefix /team"


def test_the_other_side_is_not_told_what_it_does_anyway() -> None:
    assert read("info").meeting == ""


def test_every_command_understands_every_shared_option() -> None:
    context = click.Context(cli)
    shared = {name for option in cli.params for name in option.opts} - {"--version"}
    for name in cli.list_commands(context):
        command = cli.get_command(context, name)
        assert command is not None
        assert shared <= {name for option in command.params for name in option.opts}, name
