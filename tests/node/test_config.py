"""The configuration file: its settings, their types, and errors that say where."""

import math
from pathlib import Path

import pytest

from peertunnel.config import PUBLIC_BOOTSTRAP, Config, load_config
from peertunnel.errors import ConfigError, UsageError
from peertunnel.identity import Identity


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PT_HOME", str(tmp_path))
    return tmp_path


def write(home: Path, text: str) -> None:
    (home / "config.toml").write_text(text, encoding="utf-8")


def test_the_defaults(home: Path) -> None:
    config = load_config()
    assert config == Config(
        identity=home / "identity.key",
        listen=("/ip4/0.0.0.0/tcp/0", "/ip6/::/tcp/0"),
        mdns=True,
        portmap=True,
        wait=10.0,
        grace=5.0,
    )
    write(home, "# nothing\n")
    assert load_config() == config


def test_every_setting(home: Path) -> None:
    write(
        home,
        'identity = "a/key"\nlisten = ["/ip4/127.0.0.1/tcp/4001"]\nmdns = false\nportmap = false\nwait = 1\ngrace = 0.5\n',
    )
    assert load_config() == Config(
        identity=home / "a" / "key",
        listen=("/ip4/127.0.0.1/tcp/4001",),
        mdns=False,
        portmap=False,
        wait=1.0,
        grace=0.5,
    )
    assert isinstance(load_config().wait, float)


def test_another_file(home: Path) -> None:
    write(home, "wait = 1")
    other = home / "other.toml"
    other.write_text("wait = 2")
    assert load_config(other).wait == 2.0


def test_the_identity_can_be_anywhere(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    for text, path in (
        ("/keys/pt", "/keys/pt"),
        ("~/key", "/home/me/key"),
        ("~nobody.here/k", f"{home}/~nobody.here/k"),
    ):
        write(home, f"identity = {text!r}")
        assert load_config().identity == Path(path)


def test_for_ever(home: Path) -> None:
    for text in ("inf", "1e300", "1" + "0" * 400):
        write(home, f"wait = {text}")
        assert load_config().wait == math.inf


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("\nwiat = 1", r"line 2: wiat is no setting; the settings are identity, listen, "),
        ("wait = 1\n[bind]\nport = 1", r"line 2: bind is no setting"),
        ("wait = '1'", r"line 1: wait must be a number of seconds"),
        ("wait = true", r"line 1: wait must be a number of seconds"),
        ("wait = -1", r"line 1: wait must be 0 seconds or more"),
        ("wait = nan", r"line 1: wait must be 0 seconds or more"),
        ("\n\n grace = []", r"line 3: grace must be a number of seconds"),
        ("mdns = 1", r"line 1: mdns must be true or false"),
        ("mdns = 'yes'", r"line 1: mdns must be true or false"),
        ("identity = 1", r"line 1: identity must be a path"),
        ("identity = ''", r"line 1: identity must be a path"),
        ('identity = "\\u0000"', r"line 1: identity must be a path"),
        ("listen = '/ip4/127.0.0.1/tcp/1'", r"line 1: listen must be a list of multiaddrs"),
        ("listen = []", r"line 1: listen must be a list of multiaddrs"),
        ("listen = [1]", r"line 1: listen must be a list of multiaddrs"),
        (
            "listen = ['/ip4/1.2.3.4']",
            r"line 1: listen must be addresses .* by TCP or QUIC, unlike /ip4/1\.2\.3\.4",
        ),
        (
            "listen = ['/ip4/1.2.3.4/tcp/1/ws']",
            r"line 1: listen must be addresses .*, unlike /ip4/1\.2\.3\.4/tcp/1/ws",
        ),
        ("listen = ['/quic-v1']", r"line 1: listen must be addresses"),
        ("listen = ['127.0.0.1:1']", r"line 1: listen is wrong: '127.0.0.1:1' is not a multiaddr"),
        ("wait = ]\n", r"is not TOML: .*line 1"),
        ("wait = 1\nwait = 2", r"is not TOML"),
    ],
)
def test_errors_say_where(home: Path, text: str, reason: str) -> None:
    write(home, text)
    with pytest.raises(ConfigError, match=reason) as caught:
        load_config()
    assert str(home / "config.toml") in caught.value.message
    assert caught.value.exit_code == 2 and caught.value.hint


def test_files_that_can_not_be_read(home: Path) -> None:
    (home / "config.toml").write_bytes(b"\xff")
    with pytest.raises(ConfigError, match="UTF-8"):
        load_config()
    with pytest.raises(ConfigError, match="no configuration file"):
        load_config(home / "missing.toml")
    with pytest.raises(ConfigError, match="is a directory"):
        load_config(home)


def test_flags_go_before_the_file(home: Path) -> None:
    write(home, "wait = 1\ngrace = 1")
    config = load_config().override(
        wait=2.0, grace=None, mdns=False, listen=("/ip4/127.0.0.1/tcp/1",), identity="key"
    )
    assert config == Config(
        identity=Path("key"), listen=("/ip4/127.0.0.1/tcp/1",), mdns=False, wait=2.0, grace=1.0
    )
    with pytest.raises(UsageError, match=r"^--wait must be 0 seconds or more\.$"):
        config.override(wait=-1.0)


def test_named_nodes_take_the_place_of_the_public_ones() -> None:
    one, other = (f"/ip4/192.0.2.{number}/tcp/4001/p2p/{Identity.ephemeral().peer_id}" for number in (1, 2))
    assert Config().entries == PUBLIC_BOOTSTRAP and Config().points == ()
    named = Config(bootstrap=(one,), rendezvous=(other,))
    assert named.entries == (one,) and named.points == (other,)
    team = Config(via=(one,), rendezvous=(other, one))
    assert team.entries == (one,) and team.points == (one, other)


@pytest.mark.parametrize(
    "setting", ['bootstrap = ["/ip4/192.0.2.1/tcp/4001"]', 'via = "x"', 'dht_prefix = "ipfs"']
)
def test_where_to_meet_has_to_make_sense(setting: str, tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text(f"{setting}\n")
    with pytest.raises(ConfigError, match=setting.split()[0]):
        load_config(path)


def test_a_home_that_is_none_is_told_of_as_that(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PT_HOME", "/dev/null/pt")
    with pytest.raises(ConfigError, match="not a directory") as caught:
        load_config()
    assert "PT_HOME" in caught.value.hint
