"""What a command finds in its environment: no home, streams of little use, and variables."""

import re
import subprocess
from pathlib import Path

import pytest

from tests.cli.commands import SECONDS, environment, run_pt
from tests.cli.test_incidents import told
from tests.tools import PT, need, need_namespaces

UNKNOWN_USER = "12345"  # as in `docker run -u 12345`


@pytest.mark.parametrize("home", [None, ""])
def test_a_user_without_a_home(home: str | None, tmp_path: Path) -> None:
    need_namespaces()
    unset = {"HOME", "PT_HOME", "XDG_CONFIG_HOME"}
    variables = {name: value for name, value in environment(tmp_path).items() if name not in unset}
    ended = subprocess.run(
        [need("unshare"), "--user", f"--map-user={UNKNOWN_USER}", *PT, "info"],
        env=variables if home is None else {**variables, "HOME": home},
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert re.fullmatch(told("`HOME`"), ended.stderr)
    assert (ended.returncode, ended.stdout) == (1, "")


@pytest.mark.parametrize(
    ("encoding", "folder", "shown"),
    [("latin-1", "h→", r"h\u2192"), ("ascii", "hä", r"h\xe4"), ("utf-8", "h\udcff", r"h\udcff")],
)
def test_what_an_output_has_no_characters_for(encoding: str, folder: str, shown: str, tmp_path: Path) -> None:
    ended = run_pt(tmp_path / folder, "info", PYTHONIOENCODING=encoding)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert f"{tmp_path}/{shown}/identity.key\n" in ended.stdout


@pytest.mark.parametrize(("value", "is_json"), [("1", True), ("yes", True), ("0", False), ("", False)])
@pytest.mark.parametrize("arguments", [("--publc",), ("tpc",), ("tcp", "--publc")], ids=" ".join)
def test_a_mistake_is_told_in_json_if_the_variable_says_so(
    arguments: tuple[str, ...], value: str, is_json: bool, tmp_path: Path
) -> None:
    ended = run_pt(tmp_path, *arguments, PT_JSON=value)
    words, lines = ended.stderr, ended.stdout
    assert (ended.returncode, bool(lines), bool(words)) == (2, is_json, not is_json)
    assert (lines if is_json else words).startswith('{"kind":"error"' if is_json else "error: ")


def test_a_variable_that_makes_no_sense_is_told_in_words(tmp_path: Path) -> None:
    ended = run_pt(tmp_path, "info", PT_JSON="perhaps")
    assert (ended.returncode, ended.stdout) == (2, "") and "'perhaps'" in ended.stderr
