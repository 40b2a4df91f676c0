"""What people read: sentences, sizes, and which of them at which verbosity."""

import pytest

from peertunnel.cli.output import Words
from peertunnel.cli.results import Described
from peertunnel.cli.words import sentence, size
from peertunnel.events import (
    AddressesChanged,
    ErrorOccurred,
    Event,
    LeftOut,
    Listening,
    PathChanged,
    Pong,
    ProofsFailed,
    PunchFailed,
    Ready,
    Shared,
    TrafficMeasured,
    TunnelClosed,
    TunnelOpened,
    Warned,
)

PEER = "12D3KooWBpLN2GcxWhMRYURWfc3qkBqh7o5YGDb1hNFXMDLoeFuu"
LINK = f"pk://{PEER}/8000?a=/ip4/192.0.2.1/tcp/1&a=/ip4/192.0.2.2/tcp/1#u8Jg0hMgwAWyaJSrTvD6xg"


@pytest.mark.parametrize(
    ("event", "words"),
    [
        (Ready(PEER, ("/ip4/192.0.2.1/tcp/1",)), f"Ready as {PEER}"),
        (AddressesChanged(("/a", "/b")), "Reachable at\n  /a\n  /b"),
        (AddressesChanged(()), "Not reachable"),
        (PunchFailed("12D3", "fog"), "No direct way to 12D3: fog"),
        (Warned("bye\x1b]0;root\x07\r\nerror: \u202eno"), "warning: bye?]0;root???error: ?no"),
        (ErrorOccurred(3, "gone: \x9b2J.", "a\nb"), "error: gone: ?2J.\n hint: a?b"),
        (Listening("127.0.0.1:2022"), "Listening on 127.0.0.1:2022"),
        (PathChanged(PEER, "direct", 0.44), f"Connected to {PEER}: direct, 0.4 ms"),
        (PathChanged(PEER, "relayed", None), f"Connected to {PEER}: relayed"),
        (PathChanged(PEER, "relayed", 41.8, 131_072, 118.2), f"Connected to {PEER}: relayed (128 KiB, 2 min left), 41.8 ms"),
        (PathChanged(PEER, "relayed", None, None, 59.0), f"Connected to {PEER}: relayed (59 s left)"),
        (PathChanged(PEER, "none", None), f"Lost the connection to {PEER}"),
        (TunnelOpened(3, PEER, "[::1]:5"), "Tunnel 3 opened: [::1]:5"),
        (TunnelClosed(3, 999, 64_000_000, "finished"), "Tunnel 3 closed: finished; sent 999 B, received 64.0 MB"),
        (Pong(PEER, "direct", "/ip4/192.0.2.1/tcp/1", 3.06), f"pong from {PEER} direct via /ip4/192.0.2.1/tcp/1 in 3.1 ms"),
        (Warned("Mind the gap."), "warning: Mind the gap."),
        (LeftOut(1), "warning: 1 line was left out here, since nobody had read for long."),
        (LeftOut(2), "warning: 2 lines were left out here, since nobody had read for long."),
        (
            ProofsFailed(1, "Qm", "192.0.2.9"),
            "warning: somebody did not prove the id or the link, or was not let in, once: last peer Qm from 192.0.2.9.",
        ),
        (
            ProofsFailed(7, "Qm", "192.0.2.9"),
            "warning: somebody did not prove the id or the link, or was not let in, 7 times so far: last peer Qm from 192.0.2.9.",
        ),
        (ErrorOccurred(5, "Taken.", "Choose."), "error: Taken.\n hint: Choose."),
        (ErrorOccurred(5, "Taken.", ""), "error: Taken."),
        (ErrorOccurred(130, "Interrupted.", ""), "Interrupted."),
    ],
)  # fmt: skip
def test_sentence(event: Event, words: str) -> None:
    assert sentence(event) == words


def test_verbose_readiness_has_the_addresses() -> None:
    assert sentence(Ready(PEER, ("/a", "/b")), verbosity=1) == f"Ready as {PEER}\n  /a\n  /b"


def test_info_is_a_table() -> None:
    described = Described(PEER, ("/a", "/b"), "key", "toml", ("pt 1",), "on")
    assert sentence(described).splitlines()[:4] == [
        f"peer id:   {PEER}",
        "addresses: /a",
        "           /b",
        "identity:  key",
    ]


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 KB"), (999_949, "999.9 KB"), (999_950, "1.0 MB"), (10**19, "10000.0 PB")],
)  # fmt: skip
def test_size(count: int, text: str) -> None:
    assert size(count) == text


class Reader:
    """What Words said, and what it gave as a result."""

    def __init__(self, verbosity: int, advice: str = "", is_private: bool = False) -> None:
        self.said: list[str] = []
        self.results: list[str] = []
        self.read = Words(verbosity, self.said.append, self.results.append, advice, is_private)


EVENTS = {
    "error": ErrorOccurred(6, "x", ""),
    "ready": Ready(PEER, ()),
    "cut": TunnelClosed(1, 0, 0, "connection lost"),
    "opened": TunnelOpened(1, PEER, "22"),
    "finished": TunnelClosed(1, 0, 0, "finished"),
    "traffic": TrafficMeasured(1, 1),
    "left out": LeftOut(1),
}


@pytest.mark.parametrize(
    ("verbosity", "heard"),
    [
        (-1, ["error", "left out"]),
        (0, ["error", "ready", "cut", "left out"]),
        (1, ["error", "ready", "cut", "opened", "finished", "left out"]),
        (3, ["error", "ready", "cut", "opened", "finished", "left out"]),
    ],
)
def test_verbosity(verbosity: int, heard: list[str]) -> None:
    reader = Reader(verbosity)
    for event in EVENTS.values():
        reader.read(event)
    assert reader.said == [sentence(EVENTS[name]) for name in heard]


def test_results_are_given_even_when_quiet() -> None:
    reader = Reader(-1)
    reader.read(Shared(LINK))
    reader.read(Pong(PEER, "direct", "/a", 1.0))
    assert reader.results == [LINK, sentence(Pong(PEER, "direct", "/a", 1.0))]
    assert reader.said == []


def test_advice_follows_readiness() -> None:
    reader = Reader(0, advice="pt bind --port 2022 --id x")
    reader.read(Ready(PEER, ()))
    assert reader.said[1:] == ["On the other machine: pt bind --port 2022 --id x"]


def test_a_link_is_said_only_in_private_and_quoted() -> None:
    in_a_log, on_a_screen = Reader(0), Reader(0, is_private=True)
    in_a_log.read(Shared(LINK))
    on_a_screen.read(Shared(LINK))
    assert in_a_log.said == ["On the other machine: pt connect LINK"]
    assert on_a_screen.said == [f"On the other machine: pt connect '{LINK}'"]
