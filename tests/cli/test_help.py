"""Help is quick, and docs/commands.md has every command and option."""

import os
import re
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from peertunnel import __version__
from peertunnel.cli.main import ALIASES, COMMANDS, cli
from tests.cli.commands import environment, run_pt
from tests.tools import PT

DOCUMENT = (Path(__file__).parents[2] / "docs/commands.md").read_text()
HELP_SECONDS = 0.15
TRIES = 50  # the best of them counts: the rest is other programs' work
SLOW = ("cryptography", "libp2p", "rich", "trio")


def test_help_is_quick(tmp_path: Path) -> None:
    """Processor time, since that is ours; on an idle machine it is the time that passes."""
    times = [HELP_SECONDS]
    while min(times) >= HELP_SECONDS and len(times) <= TRIES:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([*PT, "--help"], env=environment(tmp_path), stdout=subprocess.DEVNULL, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        times.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(times) < HELP_SECONDS


@pytest.mark.parametrize("arguments", [["--help"], ["bind", "--help"], ["tcp", "--port", "0"]], ids=" ".join)
def test_nothing_slow_is_loaded_before_it_is_needed(arguments: list[str], tmp_path: Path) -> None:
    code = f"""
import atexit, sys
sys.argv = ["pt", *{arguments}]
atexit.register(lambda: print("loaded:", *({set(SLOW)} & set(sys.modules))))
from peertunnel.cli.main import main
main()
"""
    ran = subprocess.run(
        [sys.executable, "-c", code], env=environment(tmp_path), capture_output=True, text=True, check=False
    )
    assert ran.stdout.splitlines()[-1].strip() == "loaded:", ran.stderr


def test_no_arguments_ask_for_help(tmp_path: Path) -> None:
    nothing, asked = run_pt(tmp_path), run_pt(tmp_path, "--help")
    assert (nothing.returncode, nothing.stdout) == (0, asked.stdout)


def test_version(tmp_path: Path) -> None:
    assert run_pt(tmp_path, "--version").stdout == f"pt {__version__}\n"


def commands() -> Iterator[tuple[str, click.Command]]:
    for name in COMMANDS:
        command = cli.get_command(click.Context(cli), name)
        assert command is not None
        yield name, command
        if isinstance(command, click.Group):
            yield from ((f"{name} {part}", command.commands[part]) for part in command.commands)


@pytest.mark.parametrize(("group", "names"), [((), list(COMMANDS)), (("id",), ["check", "new"])])
def test_help_lists_every_command_with_a_whole_sentence(
    group: tuple[str, ...], names: list[str], tmp_path: Path
) -> None:
    listing = run_pt(tmp_path, *group, "--help").stdout.partition("Commands:\n")[2].partition("\n\n")[0]
    listed = re.findall(r"^  (\w+) +(\S.*)$", listing, re.MULTILINE)
    assert [name for name, _ in listed] == names
    assert all(text.endswith(".") and not text.endswith("...") for _, text in listed), listed


def test_the_list_begins_the_help_of_each_command() -> None:
    for name, command in commands():
        if name in COMMANDS:
            assert (command.help or "").partition("\n")[0] == COMMANDS[name]


def test_aliases_lead_to_commands() -> None:
    context = click.Context(cli)
    for alias, name in ALIASES.items():
        assert cli.get_command(context, alias) is cli.get_command(context, name)
        assert f"`pt {alias}`" in DOCUMENT or f"pt {alias})" in DOCUMENT


def test_the_document_has_every_command_and_option() -> None:
    for name, command in commands():
        assert f"pt {name}" in DOCUMENT
        for option in command.params:
            for spelling in [*option.opts, *option.secondary_opts]:
                if spelling.startswith("-"):
                    assert f"`{spelling}" in DOCUMENT, (name, spelling)
    for option in cli.params:
        for spelling in [*option.opts, *option.secondary_opts]:
            assert f"`{spelling}" in DOCUMENT, spelling


def test_the_document_has_no_option_that_does_not_exist() -> None:
    known = {"-h", "--help"}
    for option in [*cli.params, *(option for _, command in commands() for option in command.params)]:
        known |= {*option.opts, *option.secondary_opts}
    assert set(re.findall(r"(?<![\w-])--?[a-z][\w-]*", DOCUMENT)) - {"-o", "-vv", "-vvv"} <= known


def test_every_shared_option_has_its_line_and_its_variable_in_the_document() -> None:
    for option in cli.params:
        variable = getattr(option, "envvar", None)
        if variable is not None:
            assert re.search(rf"^\| .*`{option.opts[-1]}\b.* \| `{variable}` \| ", DOCUMENT, re.MULTILINE)


def test_the_example_of_the_document_is_a_configuration(tmp_path: Path) -> None:
    (example,) = re.findall(r"```toml\n(.*?)```", DOCUMENT, re.DOTALL)
    (tmp_path / "config.toml").write_text(example)
    assert run_pt(tmp_path, "info").returncode == 0
    assert (tmp_path / "laptop.key").exists()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(shell: str, tmp_path: Path) -> None:
    ended = run_pt(tmp_path, "completion", shell)
    assert ended.returncode == 0
    assert f"_PT_COMPLETE={shell}_complete" in ended.stdout


@pytest.mark.parametrize(
    ("line", "completed"),
    [
        ("pt s", "plain,share"),
        ("pt bind --std", "plain,--stdio"),
        ("pt tcp --no-m", "plain,--no-mdns"),
        ("pt tcp --vi", "plain,--via"),
        ("pt tcp --id-file my", "file,my"),
        ("pt tcp --allowed-peers my", "file,my"),
        ("pt info --config my", "file,my"),
        ("pt info --identity my", "file,my"),
        ("pt completion z", "plain,zsh"),
    ],
)
def test_completion(line: str, completed: str, tmp_path: Path) -> None:
    ended = run_pt(tmp_path, _PT_COMPLETE="bash_complete", COMP_WORDS=line, COMP_CWORD=str(line.count(" ")))
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, f"{completed}\n", "")


def test_the_help_of_a_command_leaves_shared_options_out(tmp_path: Path) -> None:
    told = run_pt(tmp_path, "tcp", "--help").stdout
    assert "--id-file FILE" in told and "--via" not in told and "--mdns" not in told


@pytest.mark.parametrize("option", ["--help", "--version"])
def test_nobody_reads_on(option: str, tmp_path: Path) -> None:
    """Who reads a pipe, head(1) say, may go when it has read enough."""
    reading, writing = os.pipe()
    os.close(reading)
    ended = subprocess.run(
        [*PT, option], env=environment(tmp_path), stdout=writing, stderr=subprocess.PIPE, check=False
    )
    os.close(writing)
    assert ended.stderr == b""
