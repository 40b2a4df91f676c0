"""`pt id`, and what is said about ids that are easy to guess."""

import json
import os
import re
import signal
from contextlib import suppress
from pathlib import Path

import pytest

from tests.cli.commands import LOCALLY, SECONDS, Started, run_pt
from tests.cli.servers import connect
from tests.cli.test_terminal import Terminal

STRONG = "9f8c3f3a1d5be07c42ad"
NOT_UTF8 = b"abc\xff"


def test_a_new_id_is_strong(tmp_path: Path) -> None:
    made = run_pt(tmp_path, "id", "new")
    assert made.returncode == 0 and "66 bits" in made.stderr
    judged = run_pt(tmp_path, "id", "check", PT_ID=made.stdout.strip())
    assert "about 66 bits" in judged.stdout


def test_a_new_id_as_json(tmp_path: Path) -> None:
    made = run_pt(tmp_path, "id", "new", "--words", "8", "--json")
    told = json.loads(made.stdout)
    assert told["kind"] == "id" and told["bits"] == 88 and told["id"].count("-") == 7
    assert not made.stderr


def test_too_few_words_are_refused(tmp_path: Path) -> None:
    assert run_pt(tmp_path, "id", "new", "--words", "3").returncode == 2


@pytest.mark.parametrize("command", [("tcp", "--port", "1"), ("bind", "--port", "0")])
def test_a_weak_id_is_told_once(command: tuple[str, ...], tmp_path: Path) -> None:
    with Started(tmp_path, *command, PT_ID="heron") as started:
        started.until("easy to guess.*pt id new")
        started.until("Ready|Listening")
        assert started.end(signal.SIGTERM) == 130
        assert started.errors.count("easy to guess") == 1


def test_a_strong_id_and_a_public_one_are_not(tmp_path: Path) -> None:
    for options, variables in (((), {"PT_ID": STRONG}), (("--public",), {"PT_ID": "heron"})):
        with Started(tmp_path, "tcp", "--port", "1", *options, **variables) as started:
            started.until("Ready")
            assert "easy to guess" not in started.errors


def test_a_weak_id_is_judged_and_refused_if_that_is_wanted(tmp_path: Path) -> None:
    judged, refused = (
        run_pt(tmp_path, "id", "check", *strict, PT_ID="heron") for strict in ((), ("--strict",))
    )
    assert (judged.returncode, refused.returncode) == (0, 2)
    assert judged.stdout == refused.stdout == "about 12 bits: too few, 50 are wanted\n"
    assert not judged.stderr and "easy to guess (about 12 bits" in refused.stderr
    assert run_pt(tmp_path, "id", "check", "--strict", PT_ID=STRONG).returncode == 0


def test_a_weak_id_is_refused_if_that_is_wanted(tmp_path: Path) -> None:
    ended = run_pt(tmp_path, "tcp", "--port", "1", "--strict", *LOCALLY, PT_ID="heron")
    assert ended.returncode == 2 and "easy to guess" in ended.stderr


def test_an_id_is_asked_for_at_a_terminal_and_not_shown(tmp_path: Path) -> None:
    with Terminal(tmp_path, "tcp", "--port", "1", with_stdin=True) as terminal:
        terminal.until("Tunnel id:")
        terminal.type(STRONG)
        terminal.until("Ready")
        assert terminal.end(signal.SIGINT) == 130
        assert STRONG not in terminal.screen


def test_a_weak_id_that_is_typed_is_refused_if_that_is_wanted(tmp_path: Path) -> None:
    with Terminal(tmp_path, "bind", "--port", "0", "--strict", with_stdin=True) as terminal:
        terminal.until("Tunnel id:")
        terminal.type("heron")
        terminal.until("easy to guess")
        assert terminal.process.wait(30) == 2


def test_bytes_that_are_typed_have_to_be_text(tmp_path: Path) -> None:
    with Terminal(tmp_path, "id", "check", with_stdin=True) as terminal:
        terminal.until("Tunnel id:")
        terminal.type(NOT_UTF8)
        terminal.until(re.escape("error: A tunnel id is text in UTF-8.\r\n hint: "))
        assert terminal.process.wait(SECONDS) == 2


@pytest.mark.parametrize(
    "command", [("id", "check", "--id"), ("tcp", "--port", "8000", "--id"), ("ping",)], ids=" ".join
)
def test_bytes_that_are_given_have_to_be_text(command: tuple[str, ...], tmp_path: Path) -> None:
    ended = run_pt(tmp_path, *command, os.fsdecode(NOT_UTF8))
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.splitlines()[0] == "error: A tunnel id is text in UTF-8."


def test_no_id_is_asked_for_without_a_terminal(tmp_path: Path) -> None:
    ended = run_pt(tmp_path, "tcp", "--port", "1", *LOCALLY)
    assert ended.returncode == 2 and "no tunnel id" in ended.stderr


@pytest.mark.parametrize("option", ["-vvv", "--json"])
@pytest.mark.parametrize("given", [(), ("--id", STRONG)], ids=["by PT_ID", "by --id"])
def test_an_id_is_in_no_log(given: tuple[str, ...], option: str, tmp_path: Path) -> None:
    """Everything that can be said, by both ends, about a tunnel that is used."""
    shared, variables = (option, "--wait", "20", *given), {} if given else {"PT_ID": STRONG}
    with Started(tmp_path / "a", "tcp", "--port", "1", *shared, **variables) as provider:
        address = provider.address()
        with Started(
            tmp_path / "b", "bind", "--port", "0", "--peer", address, *shared, **variables
        ) as consumer:
            consumer.until('Connected to|"kind":"path"')
            with suppress(ConnectionError), connect(consumer.port()) as client:
                client.recv(1)  # the target refuses: that is told at both ends
            provider.until("Can't reach|refused")
            assert [process.end(signal.SIGTERM) for process in (consumer, provider)] == [130, 130]
            for process in (provider, consumer):
                assert STRONG not in process.output + process.errors
