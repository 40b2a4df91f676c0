"""Errors: the documented exit codes, a sentence and a hint for each."""

import pytest

from peertunnel import errors
from peertunnel.errors import PeerTunnelError

CODES = {
    "PeerTunnelError": 1,
    "StoreError": 1,
    "IdentityError": 1,
    "NoNetwork": 1,
    "TunnelAborted": 1,
    "UsageError": 2,
    "ConfigError": 2,
    "NotFound": 3,
    "Refused": 4,
    "AnotherKey": 4,
    "LocalPortError": 5,
    "TargetError": 6,
    "Interrupted": 130,
    "Dismissed": 130,
}
KINDS = [
    kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, PeerTunnelError)
]


def test_every_exit_code() -> None:
    assert {kind.__name__: kind.exit_code for kind in KINDS} == CODES


@pytest.mark.parametrize("kind", KINDS)
def test_the_docstring_is_the_sentence_of_last_resort(kind: type[PeerTunnelError]) -> None:
    error = kind()
    assert error.message == str(error) == kind.__doc__
    assert error.message.endswith(".") and "\n" not in error.message
    assert error.hint == kind.hint


def test_a_closer_sentence_and_hint() -> None:
    error = errors.NotFound("Nobody.", hint="Wait.")
    assert (str(error), error.message, error.hint) == ("Nobody.", "Nobody.", "Wait.")
    assert errors.NotFound("Nobody.").hint == errors.NotFound.hint != "Wait."
    assert errors.NotFound("Nobody.", hint="").hint == ""
