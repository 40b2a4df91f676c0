"""The owner is asked at the terminal, beside what is shown there."""

import io
import os
import pty
import re
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from peertunnel.cli.prompt import Prompt
from tests.cli.commands import Started
from tests.cli.servers import ask, connect, echo_server
from tests.cli.test_access import ID, consume, is_refused, peer_id_of
from tests.cli.test_terminal import Terminal

PROVE = re.escape("somebody did not prove the id or the link, or was not let in,")


@pytest.fixture
def target() -> Iterator[int]:
    with echo_server() as port:
        yield port


def ask_at(home: Path, target: int, *options: str) -> Terminal:
    """Offer a service at a terminal that all three streams lead to."""
    command = ("tcp", "--port", str(target), *ID, "-v", "--ask", *options)
    return Terminal(home, *command, with_stdin=True, with_stdout=True)


def address_of(provider: Terminal) -> str:
    return provider.until(r"/ip4/127\.0\.0\.1/tcp/\d+/p2p/\w+")[0]


@pytest.mark.parametrize(
    ("option", "said"),
    [("-v", f"warning: {PROVE}.*?"), ("--json", '{"kind":"proofs-failed",.*?}')],
    ids=["-v", "--json"],
)
def test_the_question_keeps_the_last_line(option: str, said: str, target: int, tmp_path: Path) -> None:
    friend = peer_id_of(tmp_path / "friend")
    with ask_at(tmp_path / "a", target, option) as provider:
        address = address_of(provider)
        with consume(tmp_path / "friend", address, *ID) as consumer, connect(consumer.port()) as client:
            question = provider.until(rf"(?<=\n|K)Peer {friend} knows the id of .* Let it in\? \[y/N\] ")[0]
            assert is_refused(tmp_path / "b", address, "--id", "egret")  # it takes longer than a redrawing
            question = re.escape(question)
            provider.until(rf"{question}\r\n{said}\r\n{question}\Z")
            provider.type("y")
            assert ask(client, b"hello") == b"hello"
            if option != "--json":
                provider.until(r"\[y/N\] y\r\n(.*\r\n)*.*1 open of 1")
        assert provider.end(signal.SIGINT) == 130


def test_a_quiet_owner_is_asked(target: int, tmp_path: Path) -> None:
    with Started(tmp_path / "a", "tcp", "--port", "1", *ID, "-v") as before:
        address = before.address()
    place = re.sub("/p2p/.*", "", address)
    command = ("tcp", "--port", str(target), *ID, "-q", "--ask", "--p2p-listen", place)
    with (
        Terminal(tmp_path / "a", *command, with_stdin=True) as provider,
        consume(tmp_path / "friend", address, *ID) as consumer,
        connect(consumer.port()) as client,
    ):
        question = provider.until(r"Peer .* Let it in\? \[y/N\] ")[0]
        assert provider.screen == question
        provider.type("y")
        assert ask(client, b"hello") == b"hello"


def test_what_was_typed_before_the_question_is_no_answer(target: int, tmp_path: Path) -> None:
    with ask_at(tmp_path / "a", target) as provider:
        address = address_of(provider)
        provider.type("y")
        provider.until("y\r\n")
        with (
            consume(tmp_path / "stranger", address, *ID, "--wait", "5") as consumer,
            connect(consumer.port()) as client,
        ):
            provider.until(r"Let it in\? \[y/N\] ")
            provider.type("")
            with pytest.raises(ConnectionResetError):
                client.recv(1)
        assert provider.end(signal.SIGINT) == 130
    assert not (tmp_path / "a" / "accepted_peers").exists()


async def test_a_question_that_nobody_answers(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    controller, terminal = pty.openpty()
    with os.fdopen(controller, "wb"), os.fdopen(terminal) as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        assert await Prompt().ask("Why? ", 0.01) is None
    assert capsys.readouterr().err == "Why? \n"


async def test_an_answer_may_be_any_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    near, far = os.pipe()
    with os.fdopen(near, encoding="utf-8") as stdin, io.FileIO(far, "w") as typed:
        typed.write(b"\xe9\n")
        monkeypatch.setattr(sys, "stdin", stdin)
        assert await Prompt().ask("Why? ", 60) == "\N{REPLACEMENT CHARACTER}\n"
