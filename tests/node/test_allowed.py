"""The peers that a provider lets in."""

import os
from pathlib import Path

import pytest

from peertunnel.allowed import MAX_FILE, Allowed
from peertunnel.errors import StoreError
from peertunnel.identity import Identity

ALICE, BOB, CAROL = (Identity.ephemeral().peer_id for _ in range(3))


def test_peers_are_named_here_or_there(tmp_path: Path) -> None:
    path = tmp_path / "allowed"
    path.write_text(f"# friends\n\n{BOB} Bob's laptop # the old one\n")
    allowed = Allowed([ALICE], path)
    assert ALICE in allowed and BOB in allowed and CAROL not in allowed
    assert not allowed.reload_if_changed()


def test_a_change_counts_and_a_file_that_is_gone_names_nobody(tmp_path: Path) -> None:
    path = tmp_path / "allowed"
    path.write_text(BOB)
    allowed = Allowed([], path)
    new = tmp_path / "new"
    new.write_text(CAROL)
    os.replace(new, path)
    assert allowed.reload_if_changed() and CAROL in allowed and BOB not in allowed
    path.unlink()
    assert allowed.reload_if_changed() and CAROL not in allowed
    path.write_text(BOB)
    assert allowed.reload_if_changed() and BOB in allowed


def test_a_list_that_is_being_broken_leaves_what_was_read_before(tmp_path: Path) -> None:
    path = tmp_path / "allowed"
    path.write_text(BOB)
    allowed = Allowed([], path)
    path.write_text(f"{BOB}\nnobody")
    with pytest.raises(StoreError, match="line 2"):
        allowed.reload_if_changed()
    assert BOB in allowed
    with pytest.raises(StoreError, match="line 2"):
        allowed.reload_if_changed()
    path.write_text(CAROL)
    assert allowed.reload_if_changed() and BOB not in allowed


@pytest.mark.parametrize("content", ["nobody", "x" * (MAX_FILE + 1)])
def test_a_list_that_makes_no_sense_is_an_error(tmp_path: Path, content: str) -> None:
    path = tmp_path / "allowed"
    path.write_text(content)
    with pytest.raises(StoreError):
        Allowed([], path)


def test_a_list_that_is_not_there_is_an_error_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no such file"):
        Allowed([], tmp_path / "allowed")
