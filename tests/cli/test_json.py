"""docs/json.md tells the truth: its examples have the fields of the events, and the lines are written as it says."""

import dataclasses
import io
import json
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from peertunnel import events
from peertunnel.cli import results
from peertunnel.cli.output import JsonLines, OutputError
from peertunnel.events import ErrorOccurred, Event, Events, Listening
from tests.cli.commands import SECONDS, environment, run_pt
from tests.tools import PT

DOCUMENT = (Path(__file__).parents[2] / "docs/json.md").read_text()
(EXAMPLES,) = re.findall(r"```json\n(.*?)```", DOCUMENT, re.DOTALL)
KINDS: dict[str, Any] = {  # dataclasses all, which their base is not
    member.kind: member
    for module in (events, results)
    for member in vars(module).values()
    if isinstance(member, type) and issubclass(member, Event) and member is not Event
}


@pytest.mark.parametrize("line", EXAMPLES.splitlines())
def test_example(line: str) -> None:
    fields = json.loads(line)
    kind = KINDS[fields["kind"]]
    assert list(fields) == ["kind", *(field.name for field in dataclasses.fields(kind))]
    values = {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}
    values.pop("kind")
    stream = io.StringIO()
    JsonLines(stream, lambda failure: None)(kind(**values))
    assert stream.getvalue() == json.dumps(fields, separators=(",", ":")) + "\n"


def test_every_kind_has_an_example_and_a_line_in_the_table() -> None:
    assert {json.loads(line)["kind"] for line in EXAMPLES.splitlines()} == set(KINDS)
    assert set(re.findall(r"^\| `([\w-]+)` \| ", DOCUMENT, re.MULTILINE)) == set(KINDS)


def test_a_line_is_one_line_of_ascii() -> None:
    stream = io.StringIO()
    JsonLines(stream, lambda failure: None)(ErrorOccurred(1, "first\nsecond …", ""))
    assert stream.getvalue() == '{"kind":"error","code":1,"message":"first\\nsecond \\u2026","hint":""}\n'


def test_what_happens_at_once_is_written_at_once() -> None:
    """One call of the system for all of it, in order, once the events let it be done."""
    written: list[str] = []

    class Recorder(io.StringIO):
        def write(self, text: str) -> int:
            written.append(text)
            return len(text)

    due: list[Callable[[], None]] = []
    source = Events()
    source.subscribe(JsonLines(Recorder(), lambda failure: None, source))
    source.afterwards = due.append
    source(Listening("127.0.0.1:1"))
    source(Listening("[::1]:1"))
    assert not written and len(due) == 1
    due.pop()()
    assert written == ['{"kind":"listening","local":"127.0.0.1:1"}\n{"kind":"listening","local":"[::1]:1"}\n']


def test_a_reader_that_has_gone_is_noticed_once() -> None:
    read, write = os.pipe()
    os.close(read)
    gone: list[OutputError | None] = []
    with open(write, "w") as stream:
        lines = JsonLines(stream, gone.append)
        lines(Listening("127.0.0.1:1"))
        lines(Listening("[::1]:1"))
    assert gone == [None]


@pytest.mark.parametrize("command", ["info", "info --json", "id new --json", "demo --json"])
def test_output_that_nobody_takes_is_no_failure(command: str, tmp_path: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    with open(write, "wb") as nobody:
        ended = subprocess.run(
            [*PT, *command.split()],
            stdout=nobody,
            stderr=subprocess.PIPE,
            env=environment(tmp_path),
            timeout=SECONDS,
            check=False,
        )
    assert (ended.returncode, ended.stderr) == (0, b"")


@pytest.mark.parametrize("command", ["--help", "--version", "completion bash"])
def test_what_is_plain_text_with_json_too(command: str, tmp_path: Path) -> None:
    plain, with_json = (run_pt(tmp_path, *command.split(), *options) for options in ((), ("--json",)))
    assert (plain.returncode, with_json.returncode) == (0, 0)
    assert plain.stdout == with_json.stdout != ""
    assert "`pt completion`" in DOCUMENT.partition("```")[0]
