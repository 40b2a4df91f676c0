"""multistream-select: our two ends, the library's, and peers that speak something else."""

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from libp2p.custom_types import TProtocol
from libp2p.io.abc import ReadWriteCloser
from libp2p.protocol_muxer.multiselect import Multiselect
from libp2p.protocol_muxer.multiselect_client import MultiselectClient
from libp2p.protocol_muxer.multiselect_communicator import MultiselectCommunicator
from libp2p.utils import encode_delim, encode_varint_prefixed
from trio.testing import memory_stream_pair

from peertunnel.protocols.errors import LocalProtocolError, RemoteProtocolError
from peertunnel.protocols.multistream import MAX_LINE, MAX_PROPOSALS, Initiator, Responder, encode_line

from .wire import cut

HEADER = b"\x13/multistream/1.0.0\n"
NA = b"\x03na\n"
LS = b"\x03ls\n"
ECHO, TUNNEL = "/echo/1.0.0", "/portkey/tunnel/1.0.0"
ECHO_LINE, TUNNEL_LINE = b"\x0c/echo/1.0.0\n", b"\x16/portkey/tunnel/1.0.0\n"
OFFERED = [ECHO, TUNNEL]


def responder() -> Responder:
    return Responder(OFFERED.__contains__, lambda: OFFERED)


@pytest.mark.parametrize("size", [0, 1, 126, 127, 128, 129, 255, 256, MAX_LINE - 1])
def test_a_line_is_what_the_library_writes(size: int) -> None:
    assert encode_line("x" * size) == encode_delim(b"x" * size)


def test_a_line_that_no_peer_takes_is_not_written() -> None:
    for line in ("x" * MAX_LINE, "ü" * (MAX_LINE // 2)):
        with pytest.raises(LocalProtocolError, match="1024 bytes"):
            encode_line(line)


def test_everything_leaves_at_once_and_is_answered_at_once() -> None:
    initiator, peer = Initiator(TUNNEL), responder()
    hello = initiator.hello()
    assert hello == HEADER + TUNNEL_LINE
    answer, first_data = peer.receive(hello + b"SSH-2.0-")
    assert (answer, first_data, peer.protocol) == (hello, b"SSH-2.0-", TUNNEL)
    assert initiator.agreed is None
    assert initiator.receive(answer + b"welcome") == b"welcome"
    assert initiator.agreed is True


def test_what_comes_after_the_agreement_passes_through() -> None:
    initiator, peer = Initiator(ECHO), responder()
    answer, rest = peer.receive(initiator.hello())
    assert rest == initiator.receive(answer) == b""
    for payload in (initiator.hello(), b"\x13/multistream/1.0.0\n", b"\xff\xff\xff", NA):
        assert peer.receive(payload) == (b"", payload)
        assert initiator.receive(payload) == payload


def test_an_answer_in_parts_agrees_with_its_last_byte() -> None:
    initiator = Initiator(ECHO)
    answer = HEADER + ECHO_LINE
    for at in range(len(answer)):
        assert initiator.agreed is None
        assert initiator.receive(answer[at : at + 1]) == b""
    assert initiator.agreed is True


def test_a_refused_initiator_learns_of_it() -> None:
    initiator, peer = Initiator("/unknown/1.0.0"), responder()
    answer, rest = peer.receive(initiator.hello())
    assert (answer, rest, peer.protocol) == (HEADER + NA, b"", None)
    assert initiator.receive(answer + b"more") == b""
    assert initiator.agreed is False


def test_an_initiator_may_try_again() -> None:
    peer = responder()
    assert peer.receive(HEADER + encode_line("/unknown/1.0.0")) == (HEADER + NA, b"")
    assert peer.receive(ECHO_LINE + b"data") == (ECHO_LINE, b"data")
    assert peer.protocol == ECHO


def test_what_is_offered_is_asked_at_every_proposal() -> None:
    spoken: set[str] = set()
    peer = Responder(spoken.__contains__, lambda: sorted(spoken))
    assert peer.receive(HEADER + ECHO_LINE) == (HEADER + NA, b"")
    spoken.add(ECHO)
    assert peer.receive(ECHO_LINE) == (ECHO_LINE, b"")


def test_the_list_is_one_message_of_messages() -> None:
    peer = responder()
    body = ECHO_LINE + TUNNEL_LINE + b"\n"
    assert peer.receive(HEADER + LS) == (HEADER + bytes([len(body)]) + body, b"")
    assert peer.receive(ECHO_LINE) == (ECHO_LINE, b"")


@pytest.mark.parametrize(
    ("names", "size"),
    [
        ([], 1),
        (["x" * 124], 127),
        (["x" * 125], 128),
        ([ECHO] * 1260 + [""], 16383),
        ([ECHO] * 1260 + ["x"], 16384),
    ],
)
def test_a_list_may_be_long(names: list[str], size: int) -> None:
    body = b"".join(encode_delim(name.encode()) for name in names) + b"\n"
    assert len(body) == size
    peer = Responder(names.__contains__, lambda: names)
    assert peer.receive(HEADER + LS) == (HEADER + encode_varint_prefixed(body), b"")


def test_a_line_as_long_as_go_takes_is_taken() -> None:
    name = "/" + "x" * (MAX_LINE - 2)
    peer = Responder(lambda protocol: protocol == name, list)
    line = b"\x80\x08" + name.encode() + b"\n"
    assert peer.receive(HEADER + line) == (HEADER + line, b"")
    assert peer.protocol == name
    initiator = Initiator(name)
    assert initiator.receive(HEADER + line + b"!") == b"!"


BAD_LINES = {
    "nothing": b"\x00",
    "nothing in two bytes": b"\x80\x00",
    "too long": b"\x81\x08",
    "a length of three bytes": b"\x80\x80\x01",
    "a length without an end": b"\xff" * 10,
    "no newline": b"\x03abc",
    "no text": b"\x03\xff\xfe\n",
}


@pytest.mark.parametrize("line", BAD_LINES.values(), ids=BAD_LINES)
def test_a_bad_line_is_an_error_at_either_end(line: bytes) -> None:
    for greeting in (b"", HEADER):
        with pytest.raises(RemoteProtocolError):
            responder().receive(greeting + line)
        with pytest.raises(RemoteProtocolError):
            Initiator(ECHO).receive(greeting + line)


HTTP = b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"Accept: */*\r\n" * 10


@pytest.mark.parametrize("hello", [ECHO_LINE, NA, LS, b"\x13/multistream/2.0.0\n", b"\x01\n", HTTP])
def test_a_responder_wants_the_header_first(hello: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        responder().receive(hello)


@pytest.mark.parametrize(
    "answer",
    [ECHO_LINE, NA, HEADER + HEADER, HEADER + TUNNEL_LINE, HEADER + LS, HEADER + b"\x01\n", b"\x03no\n"],
)
def test_an_initiator_takes_only_what_it_proposed(answer: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        Initiator(ECHO).receive(answer)


@pytest.mark.parametrize("line", [LS, encode_line("/unknown/1.0.0")])
def test_a_peer_that_keeps_trying_is_given_up(line: bytes) -> None:
    peer = responder()
    peer.receive(HEADER + line * MAX_PROPOSALS)
    with pytest.raises(RemoteProtocolError, match="too many"):
        peer.receive(ECHO_LINE)


lines = st.sampled_from(
    [HEADER, ECHO_LINE, TUNNEL_LINE, NA, LS, encode_line("/" + "x" * 300), b"\x01\n", b"\x02\xc3\n"]
)
talks = st.lists(st.one_of(lines, lines, lines, st.binary(max_size=5)), max_size=6).map(b"".join)
greeted = st.builds(lambda *parts: b"".join(parts), st.just(HEADER), talks)


def responded(parts: list[bytes]) -> tuple[bytes, bytes, str | None] | None:
    """Return all that a responder answered, what came behind, and the protocol; None for a protocol error."""
    peer, answers, rest = responder(), b"", b""
    try:
        for part in parts:
            answer, behind = peer.receive(memoryview(part))
            answers, rest = answers + answer, rest + behind
    except RemoteProtocolError:
        return None
    return answers, rest, peer.protocol


def initiated(parts: list[bytes]) -> tuple[bytes, bool | None] | None:
    """Return what came behind the answer, and whether it agreed; None for a protocol error."""
    initiator, rest = Initiator(ECHO), b""
    try:
        for part in parts:
            rest += initiator.receive(memoryview(part))
    except RemoteProtocolError:
        return None
    return rest, initiator.agreed


@given(wire=st.one_of(greeted, talks, st.binary()), cuts=st.lists(st.integers(0, 400), max_size=8))
def test_any_bytes_cut_anywhere_mean_the_same_or_are_an_error(wire: bytes, cuts: list[int]) -> None:
    for parts in (cut(wire, cuts), cut(wire, range(len(wire)))):
        assert responded(parts) == responded([wire])
        assert initiated(parts) == initiated([wire])


class Pipe(ReadWriteCloser):
    """A stream in memory, as the library wants it."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream

    async def read(self, n: int | None = None) -> bytes:
        return bytes(await self._stream.receive_some(n))

    async def write(self, data: bytes) -> None:
        await self._stream.send_all(data)

    async def close(self) -> None:
        await self._stream.aclose()

    def get_remote_address(self) -> tuple[str, int] | None:
        return None


@pytest.mark.parametrize("wanted", [[ECHO], ["/unknown/1.0.0", TUNNEL]])
async def test_the_librarys_initiator_agrees_with_our_responder(wanted: list[str]) -> None:
    ours, theirs = memory_stream_pair()
    peer = responder()

    async def respond() -> None:
        while peer.protocol is None:
            answer, _ = peer.receive(await ours.receive_some())
            await ours.send_all(answer)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(respond)
        communicator = MultiselectCommunicator(Pipe(theirs))
        selected = await MultiselectClient().select_one_of([TProtocol(name) for name in wanted], communicator)
    assert selected == peer.protocol == wanted[-1]


async def test_our_initiator_agrees_with_the_librarys_responder() -> None:
    ours, theirs = memory_stream_pair()
    initiator = Initiator(TUNNEL)
    await ours.send_all(initiator.hello() + b"first data")
    library = Multiselect({TProtocol(TUNNEL): None})
    selected, _ = await library.negotiate(MultiselectCommunicator(Pipe(theirs)))
    assert selected == TUNNEL
    assert initiator.receive(await ours.receive_some()) == b""
    assert initiator.agreed is True
    assert await theirs.receive_some() == b"first data"


def test_a_proposal_counts_only_with_its_newline() -> None:
    peer = responder()
    answer, rest = peer.receive((HEADER + TUNNEL_LINE)[:-1])
    assert (answer, rest, peer.protocol) == (HEADER, b"", None)
    assert peer.receive(b"\nSSH-2.0-") == (TUNNEL_LINE, b"SSH-2.0-")
    with pytest.raises(RemoteProtocolError, match="no newline"):
        responder().receive(HEADER + TUNNEL_LINE[:-1] + b"0")


def test_a_long_protocol_has_a_length_of_two_bytes() -> None:
    name = "/" + "x" * 148
    speaking = [Responder([name].__contains__, list) for _ in range(2)]
    assert speaking[0].receive(HEADER + encode_line(name) + b"hi") == (HEADER + encode_line(name), b"hi")
    with pytest.raises(RemoteProtocolError, match="claims"):
        speaking[1].receive(HEADER + bytes([len(name) + 1]) + name.encode() + b"\n")
