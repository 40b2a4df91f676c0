"""Endpoints: there and back, every form, and one error for everything else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peertunnel.endpoints import Endpoint, TcpEndpoint, UnixEndpoint, parse_local, parse_target
from peertunnel.errors import UsageError

labels = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?", fullmatch=True)
hosts = st.one_of(
    st.ip_addresses().map(str),
    st.lists(labels, min_size=1, max_size=4).map(".".join),
)
tcp = st.builds(TcpEndpoint, st.none() | hosts, st.integers(1, 65535))
unix = st.builds(
    UnixEndpoint, st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=26)
)


@given(tcp | unix)
def test_there_and_back(endpoint: Endpoint) -> None:
    assert parse_target(str(endpoint)) == endpoint
    assert parse_local(str(endpoint)) == endpoint


@given(
    st.one_of(
        st.text(),
        st.text("[]:.0123456789afunix/-"),
        st.text().map("unix:".__add__),
        st.text().map("{}:1".format),
    )
)
def test_any_text_gives_itself_or_the_error(text: str) -> None:
    for parse in (parse_target, parse_local):
        try:
            endpoint = parse(text)
        except UsageError as error:
            assert repr(text) in error.message and error.exit_code == 2 and error.hint
        else:
            assert str(endpoint) == text


@pytest.mark.parametrize(
    ("text", "endpoint"),
    [
        ("22", TcpEndpoint(None, 22)),
        ("localhost:22", TcpEndpoint("localhost", 22)),
        ("192.0.2.1:65535", TcpEndpoint("192.0.2.1", 65535)),
        ("[::1]:22", TcpEndpoint("::1", 22)),
        ("[fe80::1%eth0]:22", TcpEndpoint("fe80::1%eth0", 22)),
        ("my_host.example.:22", TcpEndpoint("my_host.example.", 22)),
        ("_ssh.müller.example:22", TcpEndpoint("_ssh.müller.example", 22)),
        ("unix:/run/x:22", UnixEndpoint("/run/x:22")),
        ("unix:x", UnixEndpoint("x")),
        ("unix:" + "x" * 107, UnixEndpoint("x" * 107)),
    ],
)
def test_forms(text: str, endpoint: Endpoint) -> None:
    assert parse_target(text) == parse_local(text) == endpoint


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("", "0 to 65535"),
        ("65536", "0 to 65535"),
        ("-1", "0 to 65535"),
        ("022", "0 to 65535"),
        (" 22", "0 to 65535"),
        ("22\n", "0 to 65535"),
        ("٢٢", "0 to 65535"),
        ("http", "0 to 65535"),
        ("localhost:", "0 to 65535"),
        (":22", "no name or address"),
        ("a b:22", "no name or address"),
        ("-a:22", "no name or address"),
        ("a..b:22", "no name or address"),
        ("*:22", "no name or address"),
        ("user@host:22", "no name or address"),
        ("x" * 64 + ":22", "no name or address"),
        (".".join(["x" * 60] * 5) + ":22", "no name or address"),
        ("::1:22", "between"),
        ("[::1:22", "between"),
        ("[localhost]:22", "between"),
        ("[127.0.0.1]:22", "between"),
        ("unix:", "1 to 107 bytes"),
        ("unix:a\0b", "1 to 107 bytes"),
        ("unix:" + "ü" * 54, "1 to 107 bytes"),
        ("unix:\ud800", "file name"),
    ],
)
def test_broken_rules(text: str, rule: str) -> None:
    for parse in (parse_target, parse_local):
        with pytest.raises(UsageError, match=rule):
            parse(text)


def test_port_0_is_for_listening() -> None:
    assert parse_local("0") == TcpEndpoint(None, 0)
    assert parse_local("[::]:0") == TcpEndpoint("::", 0)
    for text in ("0", "localhost:0"):
        with pytest.raises(UsageError, match="between 1 and 65535"):
            parse_target(text)
