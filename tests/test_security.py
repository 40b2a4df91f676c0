"""SECURITY.md names tests, and there are such tests."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NAMED = sorted(set(re.findall(r"`(test_\w+)`", (ROOT / "SECURITY.md").read_text())))
WRITTEN = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
FILES = {path.stem for path in (ROOT / "tests").rglob("test_*.py")}


@pytest.mark.parametrize("name", NAMED)
def test_what_is_named_is_there(name: str) -> None:
    assert re.search(rf"^(async )?def {name}\(", WRITTEN, re.MULTILINE) or name in FILES


def test_every_attack_has_a_test() -> None:
    table = (ROOT / "SECURITY.md").read_text().partition("## Attacks")[2].partition("## What is not")[0]
    rows = [line for line in table.splitlines() if line.startswith("| ")][2:]
    assert len(rows) > 10 and all("`test_" in row for row in rows)
