"""Ways to give the tunnel id, and how the command for the other side tells it again."""

from pathlib import Path
from typing import Any

import click
import pytest

from peertunnel.cli import tunnelid
from peertunnel.cli.options import Flags
from peertunnel.cli.tunnelid import TunnelId
from peertunnel.errors import UsageError


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PT_ID", raising=False)
    monkeypatch.delenv("PT_ID_FILE", raising=False)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "my id").write_text("from a file\n")
    return tmp_path / "my id"


def given(*arguments: str) -> Any:
    return click.command()(tunnelid.option(lambda tunnel_id: tunnel_id)).main(
        list(arguments), standalone_mode=False
    )


def test_nothing_is_given() -> None:
    assert given() is None
    with pytest.raises(UsageError):
        tunnelid.required(None)


def test_by_option() -> None:
    assert given("--id", "my name") == TunnelId("my name", "--id 'my name'", is_in_argv=True)


def test_by_file(file: Path) -> None:
    assert given("--id-file", str(file)) == TunnelId("from a file", f"--id-file '{file}'")


def test_by_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PT_ID", "x")
    assert given() == TunnelId("x", "(with the same PT_ID)")


def test_by_variable_with_a_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PT_ID_FILE", str(file))
    assert given() == TunnelId("from a file", f"--id-file '{file}'")


def test_options_go_before_variables(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PT_ID", "x")
    monkeypatch.setenv("PT_ID_FILE", "missing")
    assert given("--id", "y").text == "y"
    assert given("--id-file", str(file)).text == "from a file"


@pytest.mark.parametrize(
    ("content", "text"),
    [("a", "a"), ("a\n", "a"), ("a\r\n", "a"), (" a \n\n", " a \n"), ("ä\n", "ä"), ("\ufeffa\r\n", "a")],
)
def test_only_the_last_newline_is_cut(content: str, text: str, tmp_path: Path) -> None:
    (tmp_path / "id").write_bytes(content.encode())
    assert given("--id-file", str(tmp_path / "id")).text == text


def test_the_id_is_not_in_the_repr() -> None:
    assert "heron" not in repr(given("--id", "heron"))


@pytest.mark.parametrize(
    ("tunnel_id", "flags", "warned"),
    [
        (TunnelId("x", "", is_in_argv=True), Flags(verbose=1), True),
        (TunnelId("x", "", is_in_argv=True), Flags(), False),
        (TunnelId("x", "", is_in_argv=True), Flags(verbose=1, quiet=True), False),
        (TunnelId("x", "", is_in_argv=True), Flags(verbose=1, json=True), False),
        (TunnelId("x", ""), Flags(verbose=1), False),
        (None, Flags(verbose=1), False),
    ],
)
def test_warning(
    tunnel_id: TunnelId | None, flags: Flags, warned: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    tunnelid.warn(tunnel_id, flags)
    assert ("can see the id" in capsys.readouterr().err) is warned
