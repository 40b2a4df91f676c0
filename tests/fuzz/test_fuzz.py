"""A bounded run of every fuzz target, the same inputs every time; `python -m tests.fuzz` goes on from there."""

import os
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from itertools import islice
from multiprocessing import get_context

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tools import need_quic

from .__main__ import main
from .inputs import SCRIPT, inputs
from .targets import TARGETS

INPUTS = {name: 1500 for name in TARGETS} | {
    "auth": 150,
    "handshake": 500,
    "addresses": 500,
    "quic": 60,
}  # a second or two; curves and networks are slow
ONCE_FAILED = [
    ("quic", "88b2fd532bd5e99472bb47580e9b8596")
]  # a client's handshake that is garbled into a Retry
SECONDS = (
    60.0 if os.environ.get("CI") == "true" else 3.0
)  # of new inputs, for the engine, and for all others together


@pytest.fixture(autouse=True)
def engine(name: str) -> None:
    """Without the engine there is nothing to fuzz."""
    if name == "quic":
        need_quic()


@pytest.mark.parametrize("name", TARGETS)
def test_conversations_gone_wrong(name: str) -> None:
    for data in islice(inputs(name, seed=0), INPUTS[name]):
        TARGETS[name](data)


@pytest.mark.parametrize(("name", "data"), ONCE_FAILED)
def test_what_once_failed(name: str, data: str) -> None:
    TARGETS[name](bytes.fromhex(data))


@pytest.fixture(scope="module")
def engine_run() -> Iterator[Future[None]]:
    """New inputs for the engine, in a process beside those for all others: there are two cores at least."""
    with ProcessPoolExecutor(1, get_context("fork")) as pool:
        yield pool.submit(main, "quic", SECONDS)


@pytest.mark.parametrize("name", TARGETS)
def test_new_inputs_in_each_run(name: str, engine_run: Future[None]) -> None:
    """What fails is shown with its seed, and is a bug whenever it happens."""
    if name == "quic":
        engine_run.result()
    else:
        main(name, SECONDS / len(TARGETS))


@pytest.mark.parametrize("name", TARGETS)
@settings(deadline=None)
@given(script=st.binary(min_size=SCRIPT, max_size=SCRIPT), wire=st.binary())
def test_any_bytes(name: str, script: bytes, wire: bytes) -> None:
    TARGETS[name](script + wire)
