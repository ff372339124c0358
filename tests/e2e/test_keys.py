"""Idempotency keys against a gate: whose a key is, and when its first answer is given again."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.calling import LIST, call
from tests.e2e.harness import GateProcess, edit_config, init_directory
from tests.e2e.hostile import HostileUpstream
from tests.e2e.issuing import issued
from tests.e2e.rulebook import add_rules

RULE = """
require_hitl contains {
	"code": "reviewed",
	"message": "a person must see this from now on",
	"chain": "one-approver",
} if {
	input.args.short_description == "reviewed from now on"
}
"""


@pytest.fixture(scope="module")
def upstream() -> Iterator[HostileUpstream]:
    """A service that answers, and keeps the request lines."""
    with HostileUpstream.start() as running:
        yield running


@pytest.fixture(scope="module")
def keyed(tmp_path_factory: pytest.TempPathFactory, upstream: HostileUpstream) -> Iterator[GateProcess]:
    """A gate in front of it."""
    directory = init_directory(tmp_path_factory.mktemp("keyed") / "gate")
    edit_config(directory, {"instances": {"servicenow": {"base_url": f"http://127.0.0.1:{upstream.port}"}}})
    with GateProcess.start(directory) as running:
        yield running


def test_first_answer_is_kept_back_when_policy_asks_for_a_person_since(
    keyed: GateProcess, upstream: HostileUpstream
) -> None:
    target, body = f"{LIST}/reviewed", {"short_description": "reviewed from now on"}
    headers = {"Idempotency-Key": "since", "Prefer": "wait=0"}
    assert call(keyed, "PATCH", target, body, headers=headers).status == 200
    add_rules(keyed.directory, "servicenow", RULE)
    assert keyed.reload()
    answer = call(keyed, "PATCH", target, body, headers=headers)
    assert (answer.status, answer.code) == (403, "denied")
    assert [reason["code"] for reason in answer.json()["reasons"]] == ["reviewed"]
    assert upstream.times_asked("/reviewed") == 1


def test_first_answer_is_given_again_when_a_person_approved_the_first_call(
    keyed: GateProcess, upstream: HostileUpstream
) -> None:
    bot = keyed.token("triage-bot", "triage", environment="prod")
    maria = keyed.token("maria", "approver", environment="prod")
    target, body, headers = f"{LIST}/seen", {"state": "2"}, {"Idempotency-Key": "seen", "Prefer": "wait=0"}
    held = call(keyed, "PATCH", target, body, token=bot, headers=headers).json()["approval"]
    vote = {"decision": "approve", "reason": "seen", "action_digest": held["action_digest"]}
    assert call(keyed, "POST", f"/v1/approvals/{held['id']}/votes", vote, token=maria).status == 200
    answers = [call(keyed, "PATCH", target, body, token=bot, headers=headers) for _ in range(2)]
    assert [answer.status for answer in answers] == [200, 200]
    assert answers[0].body == answers[1].body
    assert {answer.headers["tidegate-approval"] for answer in answers} == {held["id"]}
    assert upstream.times_asked("/seen") == 1


def _agent(gate: GateProcess, person: str, environment: str = "test") -> str:
    return issued(gate, sub=person, act={"sub": "agent-7"}, roles=["triage", "operator"], environment=environment)


STRANGERS = {
    "another person": {"person": "mallory"},
    "the same person elsewhere": {"person": "alice", "environment": "staging"},
}


@pytest.mark.parametrize("stranger", STRANGERS.values(), ids=STRANGERS.keys())
def test_key_of_an_agent_is_another_when_it_acts_for(
    keyed: GateProcess, upstream: HostileUpstream, stranger: dict[str, str]
) -> None:
    word = "-".join(stranger.values())
    target, body, headers = f"{LIST}/for-{word}", {"state": "3"}, {"Idempotency-Key": word}
    first, again = (call(keyed, "PATCH", target, body, token=_agent(keyed, "alice"), headers=headers) for _ in range(2))
    assert (first.status, again.status, upstream.times_asked(f"/for-{word}")) == (200, 200, 1)
    other = call(keyed, "PATCH", target, body, token=_agent(keyed, **stranger), headers=headers)
    assert (other.status, upstream.times_asked(f"/for-{word}")) == (200, 2)


@pytest.mark.parametrize("stranger", STRANGERS.values(), ids=STRANGERS.keys())
def test_answer_of_an_agents_call_is_not_shown_when_it_acts_for(keyed: GateProcess, stranger: dict[str, str]) -> None:
    alice, other = _agent(keyed, "alice"), _agent(keyed, **stranger)
    question = {"instance": "servicenow", "action": "incident.list", "arguments": {}}
    made = call(keyed, "POST", "/v1/calls", question, token=alice)
    assert made.status == 200
    where = f"/v1/calls/{made.json()['id']}"
    assert call(keyed, "GET", where, token=alice).json()["response"] == {"result": []}
    assert call(keyed, "GET", f"{where}/response", token=alice).status == 200
    seen, answer = (call(keyed, "GET", place, token=other) for place in (where, f"{where}/response"))
    assert (seen.status, seen.json()["response"]) == (200, None)
    assert (answer.status, answer.code) == (404, "not_found")
