"""Whatever is raised becomes one sentence, and of several errors the one that says most."""

import json

import click
import pytest

from peertunnel.cli.failures import report
from peertunnel.cli.options import Flags
from peertunnel.errors import Interrupted, LocalPortError, NotFound, TargetError


def told(error: BaseException, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    code = report(error, Flags(json=True))
    line = json.loads(capsys.readouterr().out)
    assert line["code"] == code
    return code, line["message"]


def test_our_errors_keep_their_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert told(LocalPortError("Port 1 is taken."), capsys) == (5, "Port 1 is taken.")


def test_groups_are_opened(capsys: pytest.CaptureFixture[str]) -> None:
    error = ExceptionGroup("outer", [ExceptionGroup("inner", [TargetError("Nobody there.")])])
    assert told(error, capsys) == (6, "Nobody there.")


def test_an_interruption_explains_the_rest(capsys: pytest.CaptureFixture[str]) -> None:
    error = BaseExceptionGroup("", [ValueError("x"), TargetError("y"), KeyboardInterrupt()])
    assert told(error, capsys) == (130, "Interrupted.")
    assert told(ExceptionGroup("", [TargetError("y"), Interrupted()]), capsys) == (130, "Interrupted.")


def test_a_known_error_goes_before_a_bug(capsys: pytest.CaptureFixture[str]) -> None:
    assert told(ExceptionGroup("", [ValueError("x"), TargetError("y")]), capsys) == (6, "y")


def test_a_bug_is_called_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert told(ValueError("x"), capsys) == (1, "This is a bug in pt: ValueError: x.")
    assert told(AssertionError(), capsys) == (1, "This is a bug in pt: AssertionError.")


def test_click_errors_become_ours(capsys: pytest.CaptureFixture[str]) -> None:
    assert told(click.UsageError("No."), capsys) == (2, "No.")
    assert told(click.UsageError("Missing 'X'. Choose from:\n\ta,\n\tb"), capsys) == (
        2,
        "Missing 'X'. Choose from: a, b.",
    )
    assert told(click.Abort(), capsys) == (130, "Interrupted.")


def test_not_found_without_a_network_is_for_want_of_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert told(NotFound("Nobody."), capsys)[0] == 3
    monkeypatch.setattr("peertunnel.interfaces.interface_addresses", lambda: ())
    assert told(NotFound("Nobody."), capsys) == (1, "This machine has no usable network address.")
