"""What a command is given becomes a value or one sentence, whatever it is."""

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peertunnel.cli import values
from peertunnel.config import Config
from peertunnel.errors import UsageError
from peertunnel.protocols.service import Service

PEER = "12D3KooWBpLN2GcxWhMRYURWfc3qkBqh7o5YGDb1hNFXMDLoeFuu"
ADDRESS = f"/ip4/192.0.2.1/tcp/4001/p2p/{PEER}"
QUICK = (
    values.port,
    values.local_port,
    values.seconds,
    values.target,
    values.local,
    values.place,
    values.peer_place,
    values.link,
)


@given(st.text())
def test_any_text_is_a_value_or_one_sentence(text: str) -> None:
    for read in QUICK:
        try:
            read(text)
        except UsageError as error:
            assert error.message.endswith((".", "?"))
            assert not error.message[0].islower()
            assert error.hint.endswith(".")


@given(st.integers())
def test_ports(number: int) -> None:
    for read, lowest in ((values.port, 1), (values.local_port, 0)):
        if lowest <= number <= 65535:
            assert read(str(number)) == number
        else:
            with pytest.raises(UsageError):
                read(str(number))


@pytest.mark.parametrize("text", ["", "٣", "1_000", "+1", " 1", "9" * 5000])
def test_a_port_is_ascii_digits(text: str) -> None:
    with pytest.raises(UsageError):
        values.local_port(text)


@pytest.mark.parametrize("text", ["/quic-v1", "/ip4/1.2.3.4", "/dns/a/tcp/1", "/ip4/1.2.3.4/udp/1"])
def test_what_is_no_place_to_listen_at(text: str) -> None:
    with pytest.raises(UsageError):
        values.place(text)


def test_a_peer_is_an_address_a_link_or_a_peer_id() -> None:
    assert values.peer(ADDRESS) == Service.from_addresses([ADDRESS])
    for text in (f"pk://{PEER}/22", PEER):
        service = values.peer(text)
        assert service is not None and service.peer_id == PEER
    assert values.peer("heron") is None


def test_a_service_may_have_a_name_and_addresses() -> None:
    service = values.service("heron", [ADDRESS])
    assert (service.root, service.addresses) == (Service.from_id("heron").root, (ADDRESS,))


@pytest.mark.parametrize(
    "place", ["/ip4/192.0.2.1/tcp/1/tls/sni/_", "/ip4/192.0.2.1/udp/1/quic-v1/certhash/zz"]
)
def test_an_address_that_nobody_could_dial_is_told_at_once(place: str) -> None:
    with pytest.raises(UsageError, match="not a valid multiaddr"):
        values.service("heron", [f"{place}/p2p/{PEER}"])
    with pytest.raises(UsageError, match="not a valid multiaddr"):
        values.link(f"pk://{PEER}?a={place}")
    with pytest.raises(UsageError, match="not a valid multiaddr"):
        Config().override(relay=(f"{place}/p2p/{PEER}",))


def test_what_comes_soon_is_waited_for() -> None:
    assert values.soon(values.port, "22")() == 22


def test_what_fails_soon_fails_when_it_is_wanted() -> None:
    result = values.soon(values.port, "x")
    with pytest.raises(UsageError):
        result()


def test_what_comes_soon_does_not_hold_up_the_end() -> None:
    lines = (
        "import threading",
        "from peertunnel.cli.values import soon",
        "soon(threading.Event().wait)",
    )
    subprocess.run([sys.executable, "-c", "\n".join(lines)], check=True, timeout=60)
