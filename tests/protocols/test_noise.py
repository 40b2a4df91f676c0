"""Noise records against a cipher written down here, the RFC's numbers and the library's handshake; and hostile ones."""

from collections.abc import Iterator

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from hypothesis import given
from hypothesis import strategies as st
from noise.connection import NoiseConnection

from peertunnel.protocols.errors import LocalProtocolError, RemoteProtocolError
from peertunnel.protocols.noise import (
    MAX_PLAINTEXT,
    MAX_RECORD,
    OVERHEAD,
    TAG,
    Cipher,
    Opener,
    Sealer,
    sealed_size,
)

from .wire import cut

KEY = bytes(range(32))
MAX_NONCE = 2**64 - 2

# RFC 8439, appendix A.5: its nonce is four zeros and a counter, as Noise has it.
RFC_KEY = bytes.fromhex("1c9240a5eb55d38af333888604f6b5f0473917c1402b80099dca5cbc207075c0")
RFC_COUNTER = 0x0807060504030201
RFC_PLAINTEXT = (
    b"Internet-Drafts are draft documents valid for a maximum of six months and may be updated, replaced, or "
    b"obsoleted by other documents at any time. It is inappropriate to use Internet-Drafts as reference material "
    b"or to cite them other than as /\xe2\x80\x9cwork in progress./\xe2\x80\x9d"
)
RFC_CIPHERTEXT = bytes.fromhex(
    "64a0861575861af460f062c79be643bd5e805cfd345cf389f108670ac76c8cb24c6cfc18755d43eea09ee94e382d26b0bdb7b73c321b0100"
    "d4f03b7f355894cf332f830e710b97ce98c8a84abd0b948114ad176e008d33bd60f982b1ff37c8559797a06ef4f0ef61c186324e2b350638"
    "3606907b6a7c02b0f9f6157b53c867e4b9166c767b804d46a59b5216cde7a4e99040c5a40433225ee282a1b0a06c523eaf4534d7f83fa115"
    "5b0047718cbc546a0d072b04b3564eea1b422273f548271a0bb2316053fa76991955ebd63159434ecebb4e466dae5a1073a6727627097a10"
    "49e617d91d361094fa68f0ff77987130305beaba2eda04df997b714d6c6f2c29a6ad5cb4022b02709b"
)


def rotated(value: int, by: int) -> int:
    return (value << by & 0xFFFFFFFF) | value >> 32 - by


def quarter_round(s: list[int], a: int, b: int, c: int, d: int) -> None:
    for x, y, z, by in ((a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)):
        s[x] = s[x] + s[y] & 0xFFFFFFFF
        s[z] = rotated(s[z] ^ s[x], by)


def keystream(key: bytes, nonce: bytes) -> Iterator[bytes]:
    """Yield the blocks of RFC 8439, section 2.3, from counter 0 on."""
    words = [int.from_bytes(part, "little") for part in (key[i : i + 4] for i in range(0, 32, 4))]
    tail = [int.from_bytes(nonce[i : i + 4], "little") for i in range(0, 12, 4)]
    counter = 0
    while True:
        start = [0x61707865, 0x3320646E, 0x79622D32, 0x6B206574, *words, counter, *tail]
        s = list(start)
        for _ in range(10):
            for column in range(4):
                quarter_round(s, column, 4 + column, 8 + column, 12 + column)
            for i in range(4):
                quarter_round(s, i, 4 + (i + 1) % 4, 8 + (i + 2) % 4, 12 + (i + 3) % 4)
        words_out = (a + b & 0xFFFFFFFF for a, b in zip(s, start, strict=True))
        yield b"".join(word.to_bytes(4, "little") for word in words_out)
        counter += 1


def poly1305(key: bytes, text: bytes) -> bytes:
    """Return the tag of RFC 8439, section 2.5."""
    r = int.from_bytes(key[:16], "little") & 0x0FFFFFFC0FFFFFFC0FFFFFFC0FFFFFFF
    accumulator = 0
    for start in range(0, len(text), 16):
        accumulator = (
            (accumulator + int.from_bytes(text[start : start + 16] + b"\1", "little")) * r % (2**130 - 5)
        )
    return (accumulator + int.from_bytes(key[16:], "little") & 2**128 - 1).to_bytes(16, "little")


def reference_record(key: bytes, counter: int, plaintext: bytes) -> bytes:
    """Return a record as RFC 8439 and the Noise specification (section 12, ChaChaPoly) describe it, without a library."""
    blocks = keystream(key, bytes(4) + counter.to_bytes(8, "little"))
    tag_key = next(blocks)[:32]
    stream = b"".join(block for block, _ in zip(blocks, range(0, len(plaintext), 64), strict=False))
    sealed = bytes(a ^ b for a, b in zip(plaintext, stream, strict=False))
    padded = sealed + bytes(-len(sealed) % 16)
    sealed += poly1305(tag_key, padded + bytes(8) + len(sealed).to_bytes(8, "little"))
    return len(sealed).to_bytes(2, "big") + sealed


def record(plaintext: bytes, counter: int = 0, key: bytes = KEY) -> bytes:
    """Return a record that the one-shot interface has sealed."""
    sealed = ChaCha20Poly1305(key).encrypt(bytes(4) + counter.to_bytes(8, "little"), plaintext, None)
    return len(sealed).to_bytes(2, "big") + sealed


def seal(sealer: Sealer, plaintext: bytes) -> bytes:
    out = bytearray(sealed_size(len(plaintext)))
    assert sealer.seal(memoryview(plaintext), memoryview(out), 0) == len(out)
    return bytes(out)


def open_all(opener: Opener, wire: bytes, room: int = 2**20) -> tuple[int, bytes]:
    """Return how many bytes were consumed, and the plaintext of the records in them."""
    plaintext = bytearray(room)
    consumed, filled = opener.open(memoryview(wire), memoryview(plaintext))
    assert not any(plaintext[filled:]), "it wrote behind what it said"
    return consumed, bytes(plaintext[:filled])


def test_the_numbers_of_the_rfc() -> None:
    sealed = seal(Sealer(RFC_KEY, RFC_COUNTER), RFC_PLAINTEXT)
    assert sealed[2:-TAG] == RFC_CIPHERTEXT  # its tag covers associated data too, of which a record has none
    assert sealed == reference_record(RFC_KEY, RFC_COUNTER, RFC_PLAINTEXT)
    assert open_all(Opener(RFC_KEY, RFC_COUNTER), sealed)[1] == RFC_PLAINTEXT


@pytest.mark.parametrize("size", [1, 15, 16, 17, 63, 64, 65, 1000])
@pytest.mark.parametrize("counter", [0, 1, 255, 256, 2**32 - 1, 2**32, MAX_NONCE])
def test_a_record_is_what_the_specifications_describe(size: int, counter: int) -> None:
    plaintext = bytes(7 * i & 0xFF for i in range(size))
    expected = reference_record(KEY, counter, plaintext)
    assert seal(Sealer(KEY, counter), plaintext) == expected == record(plaintext, counter)
    assert open_all(Opener(KEY, counter), expected) == (len(expected), plaintext)


@pytest.mark.parametrize("counter", [0, 1, 2**32, MAX_NONCE])
def test_the_nonce_of_aes_gcm_is_written_the_other_way_round(counter: int) -> None:
    sealed = AESGCM(KEY).encrypt(bytes(4) + counter.to_bytes(8, "big"), b"tunnel", None)
    expected = len(sealed).to_bytes(2, "big") + sealed
    assert seal(Sealer(KEY, counter, Cipher.AES_GCM), b"tunnel") == expected
    assert open_all(Opener(KEY, counter, Cipher.AES_GCM), expected) == (len(expected), b"tunnel")


@pytest.mark.parametrize("cipher", Cipher)
def test_the_librarys_session_goes_on_where_its_handshake_ended(cipher: Cipher) -> None:
    name = f"Noise_NN_25519_{cipher.value}_SHA256".encode()
    ends = [NoiseConnection.from_name(name) for _ in range(2)]
    ends[0].set_as_initiator()
    ends[1].set_as_responder()
    for end in ends:
        end.start_handshake()
    ends[1].read_message(ends[0].write_message())
    ends[0].read_message(ends[1].write_message())
    theirs = b"".join(len(m).to_bytes(2, "big") + m for m in map(ends[0].encrypt, (b"one", b"two", b"three")))
    opener = Opener(ends[1].noise_protocol.cipher_state_decrypt.k, cipher=cipher)
    assert open_all(opener, theirs) == (len(theirs), b"onetwothree")
    ends[1].encrypt(b"sent before we took over")
    sealer = Sealer(ends[1].noise_protocol.cipher_state_encrypt.k, nonce=1, cipher=cipher)
    ends[0].noise_protocol.cipher_state_decrypt.n = 1
    assert [ends[0].decrypt(seal(sealer, text)[2:]) for text in (b"four", b"five")] == [b"four", b"five"]


@pytest.mark.parametrize(
    "size",
    [0, 1, MAX_PLAINTEXT - 1, MAX_PLAINTEXT, MAX_PLAINTEXT + 1, 2 * MAX_PLAINTEXT, 3 * MAX_PLAINTEXT + 5],
)
def test_plaintext_is_cut_into_full_records_with_one_nonce_each(size: int) -> None:
    plaintext = (b"tunnel" * (size // 6 + 1))[:size]
    starts = range(0, size, MAX_PLAINTEXT)
    expected = b"".join(record(plaintext[at : at + MAX_PLAINTEXT], 9 + n) for n, at in enumerate(starts))
    sealer = Sealer(KEY, 9)
    assert seal(sealer, plaintext) == expected
    assert len(expected) == sealed_size(size) == size + OVERHEAD * len(starts)
    assert seal(sealer, b"next") == record(b"next", 9 + len(starts))
    assert open_all(Opener(KEY, 9), expected) == (len(expected), plaintext)


def test_a_record_is_at_most_65535_bytes_long() -> None:
    assert (MAX_RECORD, MAX_PLAINTEXT, OVERHEAD) == (65535, 65519, 18)
    assert seal(Sealer(KEY), bytes(MAX_PLAINTEXT))[:2] == b"\xff\xff"


def test_batches_are_sealed_one_behind_the_other_and_touch_nothing_else() -> None:
    out = bytearray(b"\xee" * 200)
    sealer = Sealer(KEY)
    at = sealer.seal(memoryview(b"control"), memoryview(out), 3)
    end = sealer.seal(memoryview(b"payload"), memoryview(out), at)
    assert out[:3] == b"\xee" * 3
    assert out[3:end] == record(b"control", 0) + record(b"payload", 1)
    assert out[end:] == b"\xee" * (200 - end)


@given(
    texts=st.lists(st.binary(max_size=300), max_size=8),
    counter=st.integers(0, 2**40),
    cuts=st.lists(st.integers(0, 2500), max_size=8),
)
def test_records_may_be_cut_anywhere(texts: list[bytes], counter: int, cuts: list[int]) -> None:
    wire = b"".join(record(text, counter + n) for n, text in enumerate(texts))
    opener, opened, partial = Opener(KEY, counter), b"", b""
    for part in cut(wire, cuts):
        partial += part
        consumed, plaintext = open_all(opener, partial, room=3000)
        opened, partial = opened + plaintext, partial[consumed:]
    assert opened == b"".join(texts)
    assert partial == b""


def test_only_whole_records_are_consumed() -> None:
    first, second = record(b"first", 0), record(b"second", 1)
    opener = Opener(KEY)
    for size in range(len(first)):
        assert open_all(opener, first[:size]) == (0, b"")
    for size in range(1, len(second)):
        assert open_all(Opener(KEY), first + second[:size]) == (len(first), b"first")
    assert open_all(opener, first + second) == (len(first + second), b"firstsecond")


def test_records_that_find_no_room_wait() -> None:
    wire = record(b"four", 0) + record(b"seven..", 1) + record(b"", 2) + record(b"!", 3)
    opener = Opener(KEY)
    assert open_all(opener, wire, room=3) == (0, b"")
    assert open_all(opener, wire, room=10) == (22, b"four")
    assert open_all(opener, wire[22:], room=7) == (25 + 18, b"seven..")
    assert open_all(opener, wire[22 + 25 + 18 :], room=0) == (0, b"")
    assert open_all(opener, wire[22 + 25 + 18 :], room=1) == (19, b"!")


def test_an_empty_record_is_one() -> None:
    wire = record(b"", 0) + record(b"behind it", 1)
    assert open_all(Opener(KEY), wire) == (len(wire), b"behind it")


@pytest.mark.parametrize("at", range(2, 2 + 11 + TAG))
def test_a_record_with_a_flipped_bit_is_refused(at: int) -> None:
    wire = bytearray(record(b"hello world"))
    wire[at] ^= 1 << at % 8
    with pytest.raises(RemoteProtocolError, match="authenticate"):
        open_all(Opener(KEY), bytes(wire))


@pytest.mark.parametrize("length", range(TAG))
def test_a_record_shorter_than_its_tag_is_refused_before_it_has_come(length: int) -> None:
    with pytest.raises(RemoteProtocolError, match="shorter"):
        open_all(Opener(KEY), length.to_bytes(2, "big"))
    with pytest.raises(RemoteProtocolError, match="shorter"):
        open_all(Opener(KEY), record(b"good") + length.to_bytes(2, "big") + bytes(length))


@pytest.mark.parametrize(
    "wire",
    [
        pytest.param(record(b"two", 1) + record(b"one", 0), id="swapped"),
        pytest.param(record(b"one", 0) + record(b"one", 0), id="repeated"),
        pytest.param(record(b"one", 0) + record(b"three", 2), id="one left out"),
        pytest.param(record(b"one", 0, key=KEY[::-1]), id="another key"),
        pytest.param(record(b"one", 0)[2:], id="no length"),
        pytest.param(b"\x00\x15" + record(b"one!", 0)[2:-1], id="cut short"),
    ],
)
def test_records_out_of_order_are_refused(wire: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        open_all(Opener(KEY), wire + bytes(MAX_RECORD))


def test_the_reserved_nonce_is_never_used() -> None:
    sealer, opener = Sealer(KEY, MAX_NONCE), Opener(KEY, MAX_NONCE)
    last = seal(sealer, b"last")
    assert open_all(opener, last) == (len(last), b"last")
    with pytest.raises(LocalProtocolError):
        sealer.seal(memoryview(b"x"), memoryview(bytearray(100)), 0)
    with pytest.raises(RemoteProtocolError, match="nonces"):
        open_all(opener, record(b"x", MAX_NONCE + 1))


@given(st.lists(st.binary(max_size=60), max_size=6).map(b"".join), st.integers(0, 64))
def test_any_bytes_give_nothing_or_a_protocol_error(wire: bytes, room: int) -> None:
    try:
        consumed, plaintext = open_all(Opener(KEY), wire, room)
    except RemoteProtocolError:
        return
    assert (consumed, plaintext) == (0, b"")
