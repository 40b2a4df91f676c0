"""Where a tunnel begins and ends on a machine: a TCP port or a unix socket, as the user writes it."""

import ipaddress
import os
import re
from dataclasses import dataclass
from typing import TypeAlias

from peertunnel.errors import UsageError

MAX_UNIX_PATH = 107  # bytes; Linux's sun_path is 108 with its final zero
MAX_HOST_NAME = 253  # characters; RFC 1035 section 2.3.4, written without the final dot
_LABEL = re.compile(r"[^\W_]([\w-]{0,61}[^\W_])?|_[\w-]{0,62}")  # RFC 1123 section 2.1, and _service names
_PORT = re.compile(r"0|[1-9][0-9]{0,4}")
_FORMS = "Write PORT, HOST:PORT, [IPV6]:PORT or unix:/path."


@dataclass(frozen=True, slots=True)
class TcpEndpoint:
    """A TCP port; host None means loopback: 127.0.0.1, then ::1."""

    host: str | None
    port: int

    def __str__(self) -> str:
        if self.host is None:
            return str(self.port)
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class UnixEndpoint:
    """A unix stream socket at a path."""

    path: str

    def __str__(self) -> str:
        return f"unix:{self.path}"


Endpoint: TypeAlias = TcpEndpoint | UnixEndpoint


def parse_target(text: str) -> Endpoint:
    """Read what a provider dials: PORT, HOST:PORT, [IPV6]:PORT or unix:PATH.

    Raises UsageError, which names the text and the rule that it breaks.
    """
    endpoint = _parse(text, "target")
    if isinstance(endpoint, TcpEndpoint) and endpoint.port == 0:
        raise _broken(text, "target", "a port to connect to lies between 1 and 65535")
    return endpoint


def parse_local(text: str) -> Endpoint:
    """Read where a consumer listens: [HOST:]PORT or unix:PATH; port 0 picks a free one.

    Raises UsageError, which names the text and the rule that it breaks.
    """
    return _parse(text, "local endpoint")


def _parse(text: str, what: str) -> Endpoint:
    if text.startswith("unix:"):
        return UnixEndpoint(_unix_path(text, what))
    if "://" in text:
        raise _broken(text, what, "it stands alone, with no http:// or the like before it")
    host, colon, port = text.rpartition(":")
    if not _PORT.fullmatch(port) or int(port) > 65535:
        raise _broken(text, what, "a port is a number from 0 to 65535")
    return TcpEndpoint(_host(text, host, what) if colon else None, int(port))


def _host(text: str, host: str, what: str) -> str:
    if host.startswith("[") and host.endswith("]"):
        try:
            ipaddress.IPv6Address(host[1:-1])
        except ValueError:
            raise _broken(text, what, "between [ and ] stands an IPv6 address") from None
        return host[1:-1]
    if ":" in host:
        raise _broken(text, what, "an IPv6 address stands between [ and ]")
    name = host.removesuffix(".")
    if len(name) > MAX_HOST_NAME or not all(_LABEL.fullmatch(label) for label in name.split(".")):
        raise _broken(text, what, "that is no name or address of a host")
    return host


def _unix_path(text: str, what: str) -> str:
    path = text.removeprefix("unix:")
    try:
        size = len(os.fsencode(path))
    except UnicodeEncodeError:
        raise _broken(text, what, "the path can't be a file name") from None
    if not path or "\0" in path or size > MAX_UNIX_PATH:
        raise _broken(text, what, f"after unix: stands a path of 1 to {MAX_UNIX_PATH} bytes")
    return path


def _broken(text: str, what: str, rule: str) -> UsageError:
    return UsageError(f"{text!r} is no {what}: {rule}.", hint=_FORMS)
