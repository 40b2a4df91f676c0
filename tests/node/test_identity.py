"""The identity: the same bytes as every libp2p program's, one key for ever, and nobody else's business."""

import stat
import subprocess
import sys
from pathlib import Path

import pytest
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.peer.id import ID

from peertunnel.errors import IdentityError
from peertunnel.identity import Identity, load_identity

# libp2p specs, peer-ids, "Test vectors": an Ed25519 key in its protobuf
PRIVATE = bytes.fromhex(
    "080112407e0830617c4a7de83925dfb2694556b12936c477a0e1feb2e148ec9da60fee7d"
    "1ed1e8fae2c4a144b8be8fd4b47bf3d3b34b871c3cacf6010f0e42d474fce27e"
)
PUBLIC = bytes.fromhex("1ed1e8fae2c4a144b8be8fd4b47bf3d3b34b871c3cacf6010f0e42d474fce27e")
SEED = PRIVATE[4:36]


def store(path: Path, data: bytes, mode: int = 0o600) -> None:
    path.write_bytes(data)
    path.chmod(mode)


def test_the_specification_s_key() -> None:
    identity = Identity(SEED)
    assert identity.encode() == PRIVATE
    assert identity.public_key == PUBLIC


def test_py_libp2p_agrees() -> None:
    identity = Identity.ephemeral()
    key_pair = identity.key_pair
    assert key_pair.private_key.to_bytes() == identity.seed
    assert key_pair.public_key.to_bytes() == identity.public_key
    assert ID.from_pubkey(key_pair.public_key).to_base58() == identity.peer_id


def test_created_once_and_private(tmp_path: Path) -> None:
    path = tmp_path / "new" / "identity.key"
    identity = load_identity(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert path.read_bytes() == identity.encode()
    assert load_identity(path) == identity
    assert [entry.name for entry in path.parent.iterdir()] == ["identity.key"]


def test_programs_that_start_at_once_get_one_key(tmp_path: Path) -> None:
    path = tmp_path / "identity.key"
    script = "import sys; from pathlib import Path; from peertunnel.identity import load_identity\n"
    script += "print(flush=True); sys.stdin.read(1); print(load_identity(Path(sys.argv[1])).peer_id)"
    command = [sys.executable, "-c", script, str(path)]
    started = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(6)
    ]
    for process in started:
        assert process.stdout is not None and process.stdout.readline() == "\n"  # imported, and waiting
    for process in started:
        assert process.stdin is not None
        process.stdin.write("x")
        process.stdin.flush()
    answers = {process.communicate(timeout=60)[0].strip() for process in started}
    assert answers == {load_identity(path).peer_id}
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    "data",
    [PRIVATE, b"\x08\x01\x12\x20" + SEED, b"\x08\x01\x12\x60" + SEED + PUBLIC + PUBLIC],
    ids=["go and rust", "py-libp2p", "old go"],
)
def test_every_form_in_use_is_read(tmp_path: Path, data: bytes) -> None:
    store(tmp_path / "key", data)
    assert load_identity(tmp_path / "key") == Identity(SEED)


def test_py_libp2p_s_own_bytes_are_read(tmp_path: Path) -> None:
    store(tmp_path / "key", create_new_key_pair(SEED).private_key.serialize())
    assert load_identity(tmp_path / "key") == Identity(SEED)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"garbage",
        PRIVATE[:-1],
        PRIVATE + b"\0",
        PRIVATE[:-1] + b"\x7f",  # the public half of another key
        b"\x08\x02\x12\x20" + SEED,  # secp256k1
        b"-----BEGIN OPENSSH PRIVATE KEY-----",
    ],
)
def test_garbage_is_refused_and_kept(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "key"
    store(path, data)
    with pytest.raises(IdentityError, match="does not hold an Ed25519 key") as caught:
        load_identity(path)
    assert str(path) in caught.value.message and "--identity" in caught.value.hint
    assert caught.value.exit_code == 1
    assert path.read_bytes() == data


def test_a_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    store(tmp_path / "key", PRIVATE, 0o640)
    with pytest.raises(IdentityError, match="mode 0640") as caught:
        load_identity(tmp_path / "key")
    assert "chmod 600" in caught.value.hint


def test_no_place_for_a_key(tmp_path: Path) -> None:
    store(tmp_path / "file", b"")
    with pytest.raises(IdentityError, match="not a directory"):
        load_identity(tmp_path / "file" / "key")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    with pytest.raises(IdentityError):
        load_identity(tmp_path / "dangling")


def test_services_have_stable_identities_of_their_own() -> None:
    master = Identity(SEED)
    one, two = master.for_service(b"one"), master.for_service(b"two")
    assert len({master.peer_id, one.peer_id, two.peer_id}) == 3
    assert master.for_service(b"one") == one
    assert (
        one.peer_id == "12D3KooWAHVLntKntLC4SPGc32CiimNdUEgyvzBbiJTu4PieoEzY"
    )  # for ever, or services would lose their name


def test_the_repr_keeps_the_key() -> None:
    identity = Identity(SEED)
    assert repr(identity) == f"Identity(peer_id='{identity.peer_id}')"


def test_the_light_modules_stay_light() -> None:
    script = "import sys, peertunnel.config, peertunnel.identity, peertunnel.events, peertunnel.endpoints\n"
    script += "print([name for name in ('libp2p', 'trio', 'click', 'asyncio') if name in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", script], text=True).strip() == "[]"
