"""The door's flow as playbooks: the flow of a proxied call up to where it would be sent, and nothing beyond."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from gateway.approvals.model import ApprovalState, HeldCall
from gateway.edge.headers import Prefer
from gateway.edge.problem import refusal
from gateway.envoy.door_flow import HANDED_OVER, door_flow
from gateway.errors import Refusal
from gateway.flow import commands as c
from gateway.flow import events as e
from gateway.flow.values import Trace
from gateway.ledger.record import RecordDraft, freeze
from gateway.store.port import SaveCall
from pdp.documents import Effect
from tests.gateway.flow.playbook import (
    IDENTIFIED,
    MANIFEST,
    NO_SWITCH,
    NOW,
    RECORDED,
    Answer,
    Played,
    approval,
    context,
    decided,
    plan,
    play,
    request,
)

BODY = b'{"note":"x"}'
WRITE = ("PATCH", "/api/items/i1")
READ = ("GET", "/api/items")
ALLOWED = e.PolicyAnswered(decided())


class _Wish:
    """Holds until it was asked so many times."""

    def __init__(self, times: int) -> None:
        self._left = times

    def __call__(self) -> bool:
        self._left -= 1
        return self._left >= 0


def always() -> bool:
    return True


def run(
    line: tuple[str, str],
    answers: list[Answer],
    *,
    body: bytes = b"",
    changes: Mapping[str, Any] | None = None,
    headers: tuple[tuple[str, str], ...] = (),
    still_wanted: Callable[[], bool] = always,
) -> Played:
    trace = Trace("call-1", "desk", "desk")
    asked = request(*line, headers=headers, has_body=bool(body), on=plan(changes))
    asked = asked._replace(prefer=Prefer(wait_seconds=300))
    return play(door_flow(asked, body, trace, context(), still_wanted), trace, answers)


def code_of(played: Played) -> str:
    assert played.refused is not None
    return played.refused.code


def reason_of(played: Played) -> str:
    assert played.refused is not None
    reasons = played.refused.extra["reasons"]
    assert isinstance(reasons, list)
    return str(reasons[0]["code"])


def ended(draft: RecordDraft) -> tuple[Any, Any]:
    """Code and status of a record."""
    action = json.loads(freeze(draft, node="n").head + b"}")["action"]
    return action.get("code"), action.get("status")


def test_door_flow_hands_a_read_over_when_policy_allows_it() -> None:
    played = run(READ, [IDENTIFIED, NO_SWITCH, ALLOWED, RECORDED])
    assert played.names == ["VerifyToken", "ReadSwitches", "AskPolicy", "AppendRecord:call"]
    assert played.finished is not None and played.finished.code == HANDED_OVER
    assert played.finished.headers == (("accept-encoding", "identity"),)
    record = played.all_of(c.AppendRecord)[0].draft
    assert ended(record) == (HANDED_OVER, None)
    assert played.trace.settled and not played.trace.sent


def test_door_flow_records_intent_and_outcome_when_a_write_is_handed_over() -> None:
    played = run(WRITE, [IDENTIFIED, NO_SWITCH, ALLOWED, RECORDED, NO_SWITCH, RECORDED], body=BODY)
    assert played.names[3:] == ["AppendIntent:intent", "ReadSwitches", "AppendRecord:outcome"]
    assert ("content-type", "application/json") in (played.finished.headers if played.finished else ())
    assert played.all_of(c.ReadBody) == []


def test_door_flow_is_refused_when_the_record_cannot_be_written() -> None:
    unwritten = refusal("ledger_unavailable")
    assert code_of(run(READ, [IDENTIFIED, NO_SWITCH, ALLOWED, unwritten])) == "ledger_unavailable"


def test_door_flow_is_refused_when_the_intent_cannot_be_written() -> None:
    played = run(WRITE, [IDENTIFIED, NO_SWITCH, ALLOWED, refusal("ledger_unavailable"), RECORDED], body=BODY)
    assert code_of(played) == "ledger_unavailable"


def test_door_flow_refuses_and_records_when_policy_denies() -> None:
    played = run(READ, [IDENTIFIED, NO_SWITCH, e.PolicyAnswered(decided(Effect.DENY)), RECORDED])
    assert code_of(played) == "denied"
    assert played.names[-1] == "AppendRecord:refusal"


def test_door_flow_never_waits_when_the_call_is_held() -> None:
    held: list[HeldCall] = []

    def opened(command: c.OpenOrAttach) -> e.ApprovalRead:
        held.append(command.held)
        return e.ApprovalRead(approval(command.held), NOW)

    played = _play_held(opened, [RECORDED])
    assert code_of(played) == "approval_required"
    assert played.all_of(c.AwaitApproval) == []
    assert played.refused is not None and played.refused.extra["approval"]["id"] == "app-1"  # type: ignore[index]
    assert len(held) == 1


def test_door_flow_uses_the_approval_when_people_gave_it() -> None:
    def approved(command: c.OpenOrAttach) -> e.ApprovalRead:
        return e.ApprovalRead(approval(command.held, ApprovalState.APPROVED), NOW)

    played = _play_held(approved, [e.PolicyAnswered(decided()), RECORDED, NO_SWITCH, RECORDED])
    intent = played.all_of(c.AppendIntent)[0]
    assert intent.approval is not None and intent.action_digest == intent.approval.action_digest
    saved = [effect for effect in played.all_of(c.AppendRecord)[0].effects if isinstance(effect, SaveCall)]
    assert [(effect.row.state, effect.row.code) for effect in saved] == [("done", HANDED_OVER)]


def _play_held(opened: Callable[[c.OpenOrAttach], e.ApprovalRead], rest: list[Answer]) -> Played:
    """A write that policy holds; `opened` answers for the approvals."""
    trace = Trace("call-1", "desk", "desk")
    asked = request(*WRITE, has_body=True)._replace(prefer=Prefer(wait_seconds=300))
    flow = door_flow(asked, BODY, trace, context(), always)
    answers: list[Any] = [IDENTIFIED, NO_SWITCH, e.PolicyAnswered(decided(Effect.REQUIRE_HITL)), opened, *rest]
    played = Played(trace)
    event: Any = None
    while True:
        try:
            command = flow.send(event)
        except StopIteration as stop:
            played.finished = stop.value
            break
        except Refusal as refused:
            played.refused = refused
            break
        played.commands.append(command)
        answer = answers.pop(0)
        event = answer(command) if callable(answer) else answer
    assert answers == []
    return played


UNSUPPORTED: dict[str, tuple[tuple[str, str], Mapping[str, Any] | None]] = {
    "the gate would inject a credential": (READ, {"auth": {"kind": "bearer"}}),
    "the gate would inject another credential": (READ, {"auth": {"kind": "header", "header": "x-api-key"}}),
    "addresses in answers would be rewritten": (READ, {"rewrite": {"hosts": ["files.example"]}}),
    "answers would be rewritten": (READ, {"rewrite": {"json": ["$.next"]}}),
    "upload tickets would be made": (READ, {"rewrite": {"tickets": ["$.upload"]}}),
    "headers of answers would be dropped": (READ, {"response_headers_drop": ["x-internal"]}),
    "a token may stand in a form": (
        READ,
        {"actions": MANIFEST["actions"][:4], "caller_token": ["bearer", "form:token"]},
    ),
    "the answer is a stream": (("GET", "/api/watch"), None),
    "the body is a stream": (("POST", "/api/files"), None),
    "answers have a limit": (
        READ,
        {"actions": [{**MANIFEST["actions"][0], "response_max_bytes": 10}]},
    ),
}


@pytest.mark.parametrize(("line", "changes"), UNSUPPORTED.values(), ids=UNSUPPORTED.keys())
def test_door_flow_refuses_before_asking_policy_when(line: tuple[str, str], changes: Mapping[str, Any] | None) -> None:
    played = run(line, [IDENTIFIED, NO_SWITCH, RECORDED], changes=changes)
    assert (code_of(played), reason_of(played)) == ("denied", "not_supported")
    assert played.names == ["VerifyToken", "ReadSwitches", "AppendRecord:refusal"]


def test_door_flow_refuses_when_the_answer_would_have_to_be_kept() -> None:
    played = run(WRITE, [IDENTIFIED, NO_SWITCH, RECORDED], body=BODY, headers=(("idempotency-key", "k1"),))
    assert (code_of(played), reason_of(played)) == ("denied", "not_supported")
    assert played.all_of(c.LookUpClaim) == []


def test_door_flow_refuses_when_repeats_are_told_by_their_effect() -> None:
    changes = {"actions": [{**MANIFEST["actions"][0], "dedupe_seconds": 60}]}
    assert reason_of(run(READ, [IDENTIFIED, NO_SWITCH, RECORDED], changes=changes)) == "not_supported"


def test_door_flow_refuses_when_the_token_stands_in_the_query() -> None:
    changes = {"caller_token": ["query:token"], "credential_places": ["query:token"]}
    trace = Trace("call-1", "desk", "desk")
    asked = request("GET", "/api/items?token=t", on=plan(changes))
    asked = asked._replace(head=asked.head._replace(headers=()))
    played = play(door_flow(asked, b"", trace, context(), always), trace, [IDENTIFIED, NO_SWITCH, RECORDED])
    assert (code_of(played), reason_of(played)) == ("denied", "not_supported")


def test_door_flow_refuses_when_the_body_is_larger_than_the_action_takes() -> None:
    played = run(WRITE, [IDENTIFIED, RECORDED], body=b'{"note":"' + b"x" * (1 << 20) + b'"}')
    assert code_of(played) == "body_too_large"


def test_door_flow_records_no_intent_when_nobody_waits_any_more() -> None:
    played = run(WRITE, [IDENTIFIED, NO_SWITCH, ALLOWED, RECORDED], body=BODY, still_wanted=_Wish(0))
    assert code_of(played) == "too_slow"
    assert played.names[-1] == "AppendRecord:refusal"


def test_door_flow_records_that_nothing_went_when_the_deadline_passes_after_the_intent() -> None:
    script: list[Answer] = [IDENTIFIED, NO_SWITCH, ALLOWED, RECORDED, NO_SWITCH, RECORDED]
    played = run(WRITE, script, body=BODY, still_wanted=_Wish(1))
    assert code_of(played) == "too_slow"
    outcome = played.all_of(c.AppendRecord)[-1].draft
    assert (outcome.kind, ended(outcome)) == ("outcome", ("too_slow", None))


def test_door_flow_is_killed_when_a_switch_is_set_after_the_intent() -> None:
    script: list[Answer] = [IDENTIFIED, NO_SWITCH, ALLOWED, RECORDED, refusal("killed"), RECORDED]
    played = run(WRITE, script, body=BODY)
    assert code_of(played) == "killed"


def test_door_flow_is_stale_when_the_bundle_fell_after_the_intent() -> None:
    fallen = e.SwitchesRead((), stands=False)
    played = run(
        WRITE, [IDENTIFIED, NO_SWITCH, ALLOWED, RECORDED, fallen, refusal("policy_stale"), RECORDED], body=BODY
    )
    assert code_of(played) == "policy_stale"
    assert ended(played.all_of(c.AppendRecord)[-1].draft) == ("policy_stale", None)


def test_door_flow_records_nothing_when_the_caller_is_unknown() -> None:
    played = run(READ, [refusal("identity_invalid")])
    assert (code_of(played), played.names) == ("identity_invalid", ["VerifyToken"])
