"""How hard ids are to guess."""

import subprocess
import sys

import pytest

from peertunnel.strength import WEAK, WORDS, bits_of_words, estimate, new_id, weakness


@pytest.mark.parametrize(
    "tunnel_id", ["", "heron", "ssh.tao.gossip", "Tr0ub4dor&3", "office-db-2022", "a" * 500]
)
def test_what_people_think_of_is_weak(tunnel_id: str) -> None:
    reason = weakness(tunnel_id)
    assert reason is not None and (not tunnel_id or tunnel_id not in reason)


@pytest.mark.parametrize(
    "tunnel_id",
    [new_id(), new_id(5), "9f8c3f3a1d5be07c42ad", "the moon ate 3 green bicycles!"],
    ids=["six words", "five words", "hexadecimal", "a sentence"],
)
def test_what_nobody_thinks_of_is_strong(tunnel_id: str) -> None:
    assert weakness(tunnel_id) is None


def test_words_are_worth_no_more_than_there_are() -> None:
    for _ in range(20):
        assert estimate(new_id(4)) <= bits_of_words(4) < WEAK
    assert bits_of_words(WORDS) == 66


def test_every_new_id_is_another_one() -> None:
    assert len({new_id() for _ in range(100)}) == 100
    assert new_id(7).count("-") == 6


def test_an_id_of_ours_is_judged_without_the_dictionaries() -> None:
    judge = "import sys; from peertunnel.strength import new_id, weakness; assert weakness(new_id()) is None"
    subprocess.run([sys.executable, "-c", f"{judge}; assert 'zxcvbn' not in sys.modules"], check=True)
    assert all(len(set(new_id(24).split("-"))) == 24 for _ in range(100)), (
        "six with one twice look like somebody's own"
    )
    repeated = "-".join([new_id(1)] * 6)
    assert weakness(repeated) is not None
