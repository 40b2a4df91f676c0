"""A bounded run of every fuzz target, the same inputs every time; `python -m tests.fuzz` goes on from there."""

from itertools import islice

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from .inputs import SCRIPT, inputs
from .targets import TARGETS

INPUTS = 1500  # per target; a second or two


@pytest.mark.parametrize("name", TARGETS)
def test_conversations_gone_wrong(name: str) -> None:
    for data in islice(inputs(name, seed=0), INPUTS):
        TARGETS[name](data)


@pytest.mark.parametrize("name", TARGETS)
@settings(deadline=None)
@given(script=st.binary(min_size=SCRIPT, max_size=SCRIPT), wire=st.binary())
def test_any_bytes(name: str, script: bytes, wire: bytes) -> None:
    TARGETS[name](script + wire)
