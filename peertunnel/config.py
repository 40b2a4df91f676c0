"""Settings: what a flag or a PT_* variable says goes before the configuration file, and that before the default."""

import math
import os
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

from peertunnel.errors import ConfigError, UsageError
from peertunnel.protocols.address import is_for_listening, split_address
from peertunnel.protocols.errors import LocalProtocolError
from peertunnel.store import config_path, identity_path

PUBLIC_BOOTSTRAP = (
    "/dnsaddr/bootstrap.libp2p.io",
)  # the libp2p project's own peers, as in Go, Rust and JavaScript
PUBLIC_PREFIX = "/ipfs"  # the public network's protocol is /ipfs/kad/1.0.0
Ways: TypeAlias = Literal["any", "direct", "relayed"]
Transports: TypeAlias = Literal["auto", "tcp", "quic"]
FOREVER = 10**9  # seconds, thirty years


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """What can be set, under the names that the file uses.

    identity: the path of the key file; in the file it is relative to the file's directory. listen: multiaddrs
    that the node listens on. mdns: whether to announce and look on the local network. dht: the same for the DHT.
    portmap: whether to ask the router to let others in.
    bootstrap: multiaddrs of peers that lead into the DHT. dht_prefix: what its protocol's name begins with.
    rendezvous: multiaddrs of rendezvous points. relay: multiaddrs of circuit relays. via: multiaddrs of `pt relay`
    nodes, which are all three. ways: which ways tunnels may take. transport: what peers are reached over, both or one. wait: seconds that a new connection waits for the
    other side. grace: seconds that running tunnels get when the program has to stop.
    """

    identity: Path = field(default_factory=identity_path)
    listen: tuple[str, ...] = ("/ip4/0.0.0.0/tcp/0", "/ip6/::/tcp/0")
    mdns: bool = True
    dht: bool = True
    portmap: bool = True
    bootstrap: tuple[str, ...] = ()
    dht_prefix: str = PUBLIC_PREFIX
    rendezvous: tuple[str, ...] = ()
    relay: tuple[str, ...] = ()
    via: tuple[str, ...] = ()
    ways: Ways = "any"
    transport: Transports = "auto"
    wait: float = 10.0
    grace: float = 5.0

    @property
    def entries(self) -> tuple[str, ...]:
        """The peers that lead into the DHT: the named ones, or else the public network's."""
        return tuple(dict.fromkeys(self.via + self.bootstrap)) or PUBLIC_BOOTSTRAP

    @property
    def points(self) -> tuple[str, ...]:
        """The rendezvous points."""
        return tuple(dict.fromkeys(self.via + self.rendezvous))

    @property
    def relays(self) -> tuple[str, ...]:
        """The relays through which to be reached."""
        return tuple(dict.fromkeys(self.via + self.relay))

    def override(self, **flags: object) -> "Config":
        """Put what was given on the command line, all but None, over these settings; raises UsageError."""
        given = {name: value for name, value in flags.items() if value is not None}
        return _apply(self, given, lambda name, rule: UsageError(f"--{name.replace('_', '-')} {rule}."))


def load_config(path: Path | None = None) -> Config:
    """Read the configuration file at path, or at its usual place if there is one.

    Raises ConfigError, which names the file, and the line and the setting where it can.
    """
    wanted = path is not None
    path = path or config_path()
    try:
        text = path.read_text(encoding="utf-8")
        table = tomllib.loads(text)
    except FileNotFoundError:
        if wanted:
            raise ConfigError(f"There is no configuration file {path}.") from None
        return Config()
    except UnicodeDecodeError:
        raise ConfigError(f"{path} is not text in UTF-8.") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is not TOML: {error}.") from None
    except ValueError:  # int() takes 4300 digits
        raise ConfigError(f"{path} has a number with too many digits.") from None
    except RecursionError:
        raise ConfigError(f"{path} nests lists or tables too deep.") from None
    except OSError as error:
        hint = f"Check the permissions of {path.parent}, or set PT_HOME to another directory."
        raise ConfigError(
            f"Can't read {path}: {(error.strerror or str(error)).lower()}.", hint=None if wanted else hint
        ) from error
    config = _apply(
        Config(), table, lambda name, rule: ConfigError(f"{path}{_line(text, name)}: {name} {rule}.")
    )
    return replace(config, identity=path.parent / config.identity) if "identity" in table else config


def _line(text: str, name: str) -> str:
    """Say where a file sets a name, which its parser does not tell."""
    setting = re.compile(rf"""\s*\[*\s*["']?{re.escape(name)}["']?\s*[=.\]]""")
    found = (number for number, line in enumerate(text.splitlines(), 1) if setting.match(line))
    return next((f", line {number}" for number in found), "")


def _apply(config: Config, values: Mapping[str, object], error: Callable[[str, str], UsageError]) -> Config:
    read: dict[str, Any] = {}
    for name, value in values.items():
        if name not in _READERS:
            raise error(name, f"is no setting; the settings are {', '.join(_READERS)}")
        try:
            read[name] = _READERS[name](value)
        except (TypeError, ValueError) as rule:
            raise error(name, str(rule)) from None
        except LocalProtocolError as reason:
            raise error(name, f"is wrong: {reason}") from None
    return replace(config, **read)


def _path(value: object) -> Path:
    if not isinstance(value, str | Path) or not str(value) or "\0" in str(value):
        raise TypeError("must be a path")
    return Path(os.path.expanduser(value))


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise TypeError("must be true or false")
    return value


def _seconds(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError("must be a number of seconds")
    if not value >= 0:  # NaN is no time either
        raise ValueError("must be 0 seconds or more")
    return float(value) if value < FOREVER else math.inf  # TOML's integers may not fit


def _one_of(words: object) -> Callable[[object], object]:
    def read(value: object) -> object:
        if value not in get_args(words):
            raise ValueError(f"must be one of {', '.join(get_args(words))}")
        return value

    return read


def _prefix(value: object) -> str:
    if not isinstance(value, str) or not _PREFIX.fullmatch(value):
        raise ValueError("must be like /ipfs: a slash and then letters, digits, slashes or hyphens")
    return value


def _peers(value: object) -> tuple[str, ...]:
    places = _addresses(value)
    for address in places:
        if not address.startswith("/dnsaddr/") and split_address(address)[1] is None:
            raise ValueError(f"must be multiaddrs that end in /p2p/ and a peer id, unlike {address}")
    return places


def _places(value: object) -> tuple[str, ...]:
    places = tuple(split_address(address)[0] for address in _addresses(value))
    for place in places:
        if not is_for_listening(place):
            raise ValueError(f"must be addresses that peers are reached at, by TCP or QUIC, unlike {place}")
    return places


def _addresses(value: object) -> tuple[str, ...]:
    if not isinstance(value, list | tuple) or not value:
        raise TypeError("must be a list of multiaddrs")
    from peertunnel.multiaddrs import check_readable  # its library takes a while to load

    for address in value:
        if not isinstance(address, str):
            raise TypeError("must be a list of multiaddrs")
        split_address(address)
    check_readable(value)
    return tuple(value)


_PREFIX = re.compile(r"/[a-z0-9][a-z0-9/-]{0,62}")

_READERS: dict[str, Callable[[object], object]] = {
    "identity": _path,
    "listen": _places,
    "mdns": _flag,
    "dht": _flag,
    "portmap": _flag,
    "bootstrap": _peers,
    "dht_prefix": _prefix,
    "rendezvous": _peers,
    "relay": _peers,
    "via": _peers,
    "ways": _one_of(Ways),
    "transport": _one_of(Transports),
    "wait": _seconds,
    "grace": _seconds,
}
