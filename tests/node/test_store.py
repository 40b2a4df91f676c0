"""Our own files: where they are, their modes, and that they appear whole."""

import os
import resource
import stat
import threading
from pathlib import Path

import pytest

from peertunnel import store
from peertunnel.errors import StoreError


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_the_usual_places(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PT_HOME", "")
    monkeypatch.setenv("XDG_CONFIG_HOME", "/xdg")
    assert store.home().name == "peertunnel"
    assert store.identity_path() == store.home() / "identity.key"
    assert store.config_path() == store.home() / "config.toml"


def test_pt_home_overrides_all(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PT_HOME", str(tmp_path))
    assert store.identity_path() == tmp_path / "identity.key"
    assert store.config_path() == tmp_path / "config.toml"
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PT_HOME", "~/pt")
    assert store.home() == tmp_path / "pt"


def test_a_home_that_nobody_has_is_no_folder_called_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PT_HOME", "~nobody.here/pt")
    with pytest.raises(StoreError, match=r"no home directory for PT_HOME ~nobody\.here/pt\.") as caught:
        store.home()
    assert "PT_HOME" in caught.value.hint


def test_a_private_file_is_private(tmp_path: Path) -> None:
    path = tmp_path / "new" / "deep" / "file"
    store.write_private(path, b"one")
    assert mode(path) == 0o600 and mode(path.parent) == 0o700
    assert store.read_private(path) == b"one"


def test_writing_again_replaces_the_file_and_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    path.chmod(0o644)
    with path.open("rb") as reader:
        store.write_private(path, b"new")
        assert reader.read() == b"old"  # whoever reads meanwhile has the old one in full
    assert store.read_private(path) == b"new" and mode(path) == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_of_many_creators_one_wins(tmp_path: Path) -> None:
    path = tmp_path / "file"
    start = threading.Barrier(16)
    won: list[bytes] = []

    def create(data: bytes) -> None:
        start.wait()
        if store.create_private(path, data):
            won.append(data)

    threads = [threading.Thread(target=create, args=(bytes([n]) * 1000,)) for n in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [store.read_private(path)] == won
    assert mode(path) == 0o600 and list(tmp_path.iterdir()) == [path]


def test_no_file(tmp_path: Path) -> None:
    assert store.read_private(tmp_path / "nothing") is None
    assert store.read_private(tmp_path / "no" / "where") is None


@pytest.mark.parametrize("bits", [0o640, 0o604, 0o620, 0o602, 0o610, 0o666])
def test_a_file_that_others_can_use_is_refused(tmp_path: Path, bits: int) -> None:
    path = tmp_path / "a file"
    path.write_bytes(b"secret")
    path.chmod(bits)
    with pytest.raises(StoreError, match=f"mode {bits:04o}") as caught:
        store.read_private(path)
    assert f"chmod 600 '{path}'" in caught.value.hint


def test_a_pipe_in_its_place_does_not_hold_us_up(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path, 0o600)
    with pytest.raises(StoreError, match="is not a file"):
        store.read_private(path)


def test_a_directory_in_its_place(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"is not a file|is a directory"):
        store.read_private(tmp_path)
    with pytest.raises(StoreError, match="is a directory"):
        store.write_private(tmp_path, b"")
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_too_long(tmp_path: Path) -> None:
    path = tmp_path / "file"
    store.write_private(path, bytes(store.MAX_PRIVATE))
    assert store.read_private(path) == bytes(store.MAX_PRIVATE)
    store.write_private(path, bytes(store.MAX_PRIVATE + 1))
    with pytest.raises(StoreError, match="longer than"):
        store.read_private(path)


def test_no_room_to_write(tmp_path: Path) -> None:
    path = tmp_path / "file"
    store.write_private(path, b"before")
    limit, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (16, most))  # what is longer fails as on a full disk
    try:
        with pytest.raises(StoreError, match="file too large") as caught:
            store.write_private(path, bytes(17))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, most))
    assert f"Make room in {tmp_path}" in caught.value.hint
    assert list(tmp_path.iterdir()) == [path] and path.read_bytes() == b"before"


def test_no_place_to_write(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for write in (store.write_private, store.create_private):
        with pytest.raises(
            StoreError, match=r"Can't (write|create) .*(not a directory|file exists)"
        ) as caught:
            write(tmp_path / "file" / "below", b"")
        assert "PT_HOME" in caught.value.hint
