"""The file of known peers."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from peertunnel.errors import StoreError
from peertunnel.identity import Identity
from peertunnel.known import KnownPeers, Verdict
from peertunnel.store import MAX_PRIVATE, write_private

LABEL, OTHER = "0" * 32, "f" * 32


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the file is to be."""
    return tmp_path / "home" / "known_peers"


def test_the_first_peer_is_new_and_then_known(path: Path) -> None:
    known, peer_id = KnownPeers(path), Identity.ephemeral().peer_id
    assert known.check(LABEL, peer_id) is Verdict.NEW
    known.remember(LABEL, peer_id, beside=False)
    assert KnownPeers(path).check(LABEL, peer_id) is Verdict.SAME
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_line_that_was_left_without_an_end_is_kept_apart_from_the_next(path: Path) -> None:
    known, one, two = KnownPeers(path), Identity.ephemeral().peer_id, Identity.ephemeral().peer_id
    known.remember(LABEL, one, beside=False)
    write_private(path, path.read_bytes().rstrip(b"\n"))  # as some editors do
    known.remember(OTHER, two, beside=False)
    assert known.check(LABEL, one) is known.check(OTHER, two) is Verdict.SAME
    assert known.check(OTHER, one) is Verdict.CHANGED


def test_another_peer_of_the_same_service_has_changed(path: Path) -> None:
    known, old, new = KnownPeers(path), Identity.ephemeral().peer_id, Identity.ephemeral().peer_id
    known.remember(LABEL, old, beside=False)
    assert known.check(LABEL, new) is Verdict.CHANGED
    assert known.check(OTHER, new) is Verdict.NEW
    assert known.remember(LABEL, new, beside=True)
    assert known.check(LABEL, new) is known.check(LABEL, old) is Verdict.SAME


def test_of_two_programs_that_meet_a_first_peer_at_once_one_is_right(path: Path) -> None:
    here, there = KnownPeers(path), KnownPeers(path)
    one, two = Identity.ephemeral().peer_id, Identity.ephemeral().peer_id
    assert here.check(LABEL, one) is there.check(LABEL, two) is Verdict.NEW
    assert here.remember(LABEL, one, beside=False)
    assert not there.remember(LABEL, two, beside=False) and there.remember(LABEL, one, beside=False)
    assert there.check(LABEL, two) is Verdict.CHANGED


def test_a_peer_is_written_once(path: Path) -> None:
    known, peer_id = KnownPeers(path), Identity.ephemeral().peer_id
    for _ in range(3):
        known.remember(LABEL, peer_id, beside=False)
    assert path.read_text().count(peer_id) == 1


def test_comments_and_empty_lines_stay(path: Path) -> None:
    path.parent.mkdir()
    path.write_text("# my servers\n\n")
    path.chmod(0o600)
    KnownPeers(path).remember(LABEL, Identity.ephemeral().peer_id, beside=False)
    assert path.read_text().startswith("# my servers\n\n0000")


@pytest.mark.parametrize(
    "line",
    ["nonsense", f"{LABEL} nobody", f"{'x' * 32} {Identity.ephemeral().peer_id}"],
    ids=["one word", "no peer", "no label"],
)
def test_a_line_that_makes_no_sense_is_named(path: Path, line: str) -> None:
    path.parent.mkdir()
    path.write_text(f"# one\n{line}\n")
    path.chmod(0o600)
    with pytest.raises(StoreError, match="line 2"):
        KnownPeers(path).check(LABEL, Identity.ephemeral().peer_id)


def test_what_can_not_be_the_file_is_to_be_moved_away(path: Path) -> None:
    path.parent.mkdir()
    os.mkfifo(path, 0o600)
    with pytest.raises(StoreError, match="is not a file") as caught:
        KnownPeers(path).check(LABEL, Identity.ephemeral().peer_id)
    assert "Move the file away" in caught.value.hint
    path.unlink()
    write_private(path, bytes(MAX_PRIVATE + 1))
    with pytest.raises(StoreError, match="longer than") as caught:
        KnownPeers(path).check(LABEL, Identity.ephemeral().peer_id)
    assert "Move the file away" in caught.value.hint


def test_the_oldest_make_room_in_a_file_that_is_full(path: Path) -> None:
    path.parent.mkdir()
    peers = [Identity.ephemeral().peer_id for _ in range(3)]
    old = f"{OTHER} {peers[0]} 2026-01-01\n"
    filling = f"{'1' * 32} {peers[1]} 2026-01-01\n"
    path.write_text(old + filling * ((MAX_PRIVATE - len(old)) // len(filling)))
    path.chmod(0o600)
    known = KnownPeers(path)
    assert known.check(OTHER, peers[0]) is Verdict.SAME
    known.remember(LABEL, peers[2], beside=True)
    assert known.check(LABEL, peers[2]) is Verdict.SAME
    assert known.check(OTHER, peers[0]) is Verdict.NEW


def test_programs_that_write_at_once_lose_nothing(path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from peertunnel.known import KnownPeers\n"
        "from peertunnel.identity import Identity\n"
        "for _ in range(20):\n"
        f"    KnownPeers(Path(sys.argv[1])).remember('{LABEL}', Identity.ephemeral().peer_id, beside=True)"
    )
    writers = [subprocess.Popen([sys.executable, "-c", program, str(path)]) for _ in range(4)]
    assert [writer.wait(60) for writer in writers] == [0] * 4
    assert len(path.read_text().splitlines()) == 80
