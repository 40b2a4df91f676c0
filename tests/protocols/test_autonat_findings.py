"""What follows from servers' answers about one of our addresses, and whom to ask next."""

import pytest

from peertunnel.protocols.autonat.findings import MAX_AGE, RECHECK, RETRY, Findings, Reachability, overall

PUBLIC, PRIVATE, UNKNOWN = Reachability.PUBLIC, Reachability.PRIVATE, Reachability.UNKNOWN
SERVERS = ["a", "b", "c", "d", "e"]


def told(answers: str, *, is_own: bool = False) -> Findings:
    """Take an answer of a server each: "+" for reached, "-" for not."""
    findings = Findings(is_own=is_own)
    for server, answer in zip(SERVERS, answers, strict=False):
        findings.told(server, answer == "+", 0.0)
    return findings


SETTLED = {"++": PUBLIC, "--": PRIVATE, "+-++": PUBLIC, "-+--": PRIVATE}
OPEN = dict.fromkeys(["", "+", "-", "+-", "+-+"], UNKNOWN)


@pytest.mark.parametrize(("answers", "reachability"), [*SETTLED.items(), *OPEN.items()])
def test_two_more_that_agree_than_disagree_settle_it(answers: str, reachability: Reachability) -> None:
    assert told(answers).conclude(SERVERS, 0.0) is reachability


@pytest.mark.parametrize(
    ("answer", "is_own", "reachability"),
    [("+", True, PUBLIC), ("-", True, PRIVATE), ("-", False, PRIVATE), ("+", False, UNKNOWN)],
)
def test_the_only_server_is_believed_unless_the_nat_may_be_open_to_it_alone(
    answer: str, is_own: bool, reachability: Reachability
) -> None:
    assert told(answer, is_own=is_own).conclude(["a"], 0.0) is reachability


def test_a_server_has_one_vote() -> None:
    findings = told("-")
    findings.told("a", False, 1.0)
    assert findings.conclude(SERVERS, 1.0) is UNKNOWN
    findings.told("b", False, 1.0)
    findings.told("a", True, 2.0)
    assert findings.conclude(SERVERS, 2.0) is UNKNOWN


def test_old_answers_do_not_count() -> None:
    findings = told("++")
    assert findings.conclude(SERVERS, MAX_AGE - 1) is PUBLIC
    assert findings.conclude(SERVERS, MAX_AGE) is UNKNOWN


def test_three_servers_are_asked_and_then_nobody_for_a_while() -> None:
    findings = Findings(is_own=False)
    assert findings.ask(SERVERS, 0.0) == ["a", "b", "c"]
    for server in "abc":
        findings.told(server, True, 1.0)
    assert findings.ask(SERVERS, 2.0) == []
    assert findings.ask(SERVERS, RECHECK) == []
    assert findings.ask(SERVERS, RECHECK + 1) == ["d"]


def test_whoever_disagrees_brings_others_in() -> None:
    findings = told("++-")
    assert findings.ask(SERVERS, 1.0) == ["d", "e"]


def test_no_more_are_asked_while_some_have_yet_to_answer() -> None:
    findings = Findings(is_own=False)
    assert findings.ask(SERVERS, 0.0) == ["a", "b", "c"]
    findings.told("a", True, 1.0)
    assert findings.ask(SERVERS, 2.0) == []
    findings.told("b", None, 2.0)
    assert findings.ask(SERVERS, 2.0) == ["d"]


def test_a_server_without_an_answer_rests() -> None:
    findings = Findings(is_own=False)
    assert findings.ask(["a"], 0.0) == ["a"]
    findings.told("a", None, 0.0)
    assert findings.ask(["a", "b"], RETRY - 1) == ["b"]
    assert findings.ask(["a", "b"], RETRY) == ["a"]


def test_a_server_that_never_answers_holds_nothing_up() -> None:
    findings = told("-")
    assert findings.conclude(["a", "b"], 1.0) is UNKNOWN
    findings.told("b", None, 1.0)
    assert findings.conclude(["a", "b"], 1.0) is PRIVATE
    findings.told("b", True, 2.0)
    assert findings.conclude(["a", "b"], 2.0) is UNKNOWN


def test_the_only_server_is_asked_again_in_time() -> None:
    findings = told("-")
    assert findings.ask(["a"], RECHECK - 1) == []
    assert findings.ask(["a"], RECHECK) == ["a"]


def test_one_public_address_is_enough_and_one_unknown_is_too_many() -> None:
    assert overall([PRIVATE, PUBLIC, UNKNOWN]) is PUBLIC
    assert overall([PRIVATE, PRIVATE]) is PRIVATE
    assert overall([PRIVATE, UNKNOWN]) is UNKNOWN
    assert overall([]) is UNKNOWN
