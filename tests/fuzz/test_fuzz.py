"""A bounded run of every fuzz target, the same inputs every time; `python -m tests.fuzz` goes on from there."""

import os
from itertools import islice

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from peertunnel.transport.quic import why_not
from tests.tools import lack

from .__main__ import main
from .inputs import SCRIPT, inputs
from .targets import TARGETS

INPUTS = {name: 1500 for name in TARGETS} | {
    "auth": 150,
    "handshake": 500,
    "quic": 60,
}  # a second or two; curves and networks are slow
SECONDS = (
    60.0 if os.environ.get("CI") == "true" else 3.0
)  # of new inputs, for the engine, and for all others together


@pytest.fixture(autouse=True)
def engine(name: str) -> None:
    """Without the engine there is nothing to fuzz."""
    if name == "quic" and (reason := why_not()) is not None:
        lack(f"no QUIC: {reason}")


@pytest.mark.parametrize("name", TARGETS)
def test_conversations_gone_wrong(name: str) -> None:
    for data in islice(inputs(name, seed=0), INPUTS[name]):
        TARGETS[name](data)


@pytest.mark.parametrize("name", TARGETS)
def test_new_inputs_in_each_run(name: str) -> None:
    """What fails is printed with its seed, and is a bug whenever it happens."""
    assert main(name, SECONDS if name == "quic" else SECONDS / len(TARGETS)) == 0


@pytest.mark.parametrize("name", TARGETS)
@settings(deadline=None)
@given(script=st.binary(min_size=SCRIPT, max_size=SCRIPT), wire=st.binary())
def test_any_bytes(name: str, script: bytes, wire: bytes) -> None:
    TARGETS[name](script + wire)
