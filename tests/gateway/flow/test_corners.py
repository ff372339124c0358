"""The rarer ways through the flow: spooled bodies under a key, keys that were won by somebody else, answers not kept."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from gateway.approvals.model import ApprovalState, Vote
from gateway.edge.problem import refusal
from gateway.errors import GateMisuse
from gateway.flow import commands as c
from gateway.flow import events as e
from gateway.flow.call import proxy_flow
from gateway.flow.switch_scopes import covering_scopes
from gateway.flow.values import Trace
from gateway.store.port import ClaimKey, SettleKey, StoreConflict, StoredAnswer
from tests.gateway.flow.playbook import (
    BEGAN,
    IDENTIFIED,
    MANIFEST,
    NO_SWITCH,
    RECORDED,
    REWRITTEN,
    SUBJECT,
    Answer,
    Played,
    context,
    plan,
    play,
    request,
)
from tests.gateway.flow.test_call import ALLOWED, BODY, HELD, KEYED, SENT, WRITE_HEAD, open_approval, write

FREE = e.ClaimRead(None)
UPDATE = 1


def _changed(action: int, **changes: Any) -> list[dict[str, Any]]:
    actions = [dict(entry) for entry in MANIFEST["actions"]]
    actions[action].update(changes)
    return actions


def _played(
    method: str, target: str, answers: list[Answer], changes: dict[str, Any] | None = None, **more: Any
) -> Played:
    trace = Trace("call-1", "desk", "desk")
    proxied = request(method, target, on=plan(changes), **more)
    return play(proxy_flow(proxied, trace, context()), trace, answers)


def test_streamed_body_is_spooled_when_a_key_needs_its_digest() -> None:
    answers: list[Answer] = [IDENTIFIED, NO_SWITCH, e.BodyRead(b"file"), FREE, ALLOWED, RECORDED, NO_SWITCH, *SENT]
    played = _played("POST", "/api/files", answers, headers=KEYED, has_body=True)
    assert played.names.index("ReadBody") < played.names.index("LookUpClaim")
    assert played.all_of(c.Dispatch)[0].outbound.body == b"file"


def test_first_answer_is_given_again_when_another_request_won_the_key_meanwhile() -> None:
    won = StoreConflict("replay", "the key was used", call="call-0")
    stored = e.AnswerLoaded(StoredAnswer(201, (), b"first"))
    played = write([*WRITE_HEAD, FREE, ALLOWED, won, ALLOWED, stored, RECORDED], headers=KEYED)
    assert played.finished is not None
    assert played.finished.body == b"first"
    assert "Dispatch" not in played.names


def test_repeat_is_stale_when_the_first_answer_is_not_kept() -> None:
    won = StoreConflict("replay", "the key was used", call="call-0")
    played = write([*WRITE_HEAD, FREE, ALLOWED, won, ALLOWED, e.AnswerLoaded(None), RECORDED], headers=KEYED)
    assert played.refused is not None
    assert (played.refused.code, played.refused.extra["earlier"]) == ("stale_state", "call-0")


def test_key_is_made_from_the_arguments_when_the_manifest_asks_for_it() -> None:
    changes = {"actions": _changed(UPDATE, dedupe_seconds=60)}
    answers: list[Answer] = [IDENTIFIED, e.BodyRead(BODY), NO_SWITCH, FREE, ALLOWED, RECORDED, NO_SWITCH, *SENT]
    played = _played("PATCH", "/api/items/7", answers, changes, has_body=True)
    claims = [effect for effect in played.all_of(c.AppendIntent)[0].effects if isinstance(effect, ClaimKey)]
    assert len(claims) == 1


def test_key_is_settled_when_its_answer_is_streamed() -> None:
    began = BEGAN._replace(media_type="text/event-stream", length=None)
    end: list[Answer] = [REWRITTEN, RECORDED, e.DONE, e.AnswerRelayed(5, "ab", None), RECORDED, e.DONE]
    played = write([*WRITE_HEAD, FREE, ALLOWED, RECORDED, NO_SWITCH, began, *end], headers=KEYED)
    settled = [x for x in played.all_of(c.AppendRecord)[-1].effects if isinstance(x, SettleKey)]
    assert [effect.result for effect in settled] == ["done"]


@pytest.mark.parametrize(("reason", "detail"), [("not today", "not today"), ("", "")], ids=["with", "without words"])
def test_denied_approval_tells_its_reason_if_it_has_one(reason: str, detail: str) -> None:
    read = open_approval(ApprovalState.DENIED)
    vote = Vote("anna", "urn:test", "deny", reason, 1)
    steps = (replace(read.approval.steps[0], votes=(vote,)),)
    denied = read._replace(approval=replace(read.approval, steps=steps))
    played = write([*WRITE_HEAD, HELD, denied, RECORDED])
    assert played.refused is not None
    assert (played.refused.code, played.refused.detail) == ("approval_denied", detail)


def test_body_is_refused_when_the_action_takes_none() -> None:
    played = _played("GET", "/api/items", [IDENTIFIED, RECORDED], has_body=True)
    assert played.refused is not None
    assert played.refused.code == "malformed_request"


def test_body_is_too_large_when_a_form_read_for_the_token_passes_the_actions_limit() -> None:
    arguments = {**MANIFEST["actions"][UPDATE]["arguments"], "body": "form", "body_max_bytes": 8}
    on = replace(plan({"actions": _changed(UPDATE, arguments=arguments)}), wants_form=True)
    head = (("content-type", "application/x-www-form-urlencoded"),)
    trace = Trace("call-1", "desk", "desk")
    proxied = request("PATCH", "/api/items/7", on=on, headers=head)._replace(has_body=True)
    answers: list[Answer] = [e.BodyRead(b"note=longer+than+eight"), IDENTIFIED, RECORDED]
    played = play(proxy_flow(proxied, trace, context()), trace, answers)
    assert played.refused is not None
    assert played.refused.code == "body_too_large"


@pytest.mark.parametrize("target", ["/api/items", "/api/nowhere"], ids=["no token of its own", "no such action"])
def test_token_is_looked_for_at_the_manifests_place_when_no_action_says_otherwise(target: str) -> None:
    trace = Trace("call-1", "desk", "desk")
    proxied = request("GET", target, on=replace(plan(), has_token_overrides=True))
    played = play(proxy_flow(proxied, trace, context()), trace, [refusal("identity_invalid")])
    assert played.names == ["VerifyToken"]


@pytest.mark.parametrize("name", ["idempotency-key", "tidegate-run", "tidegate-ticket", "tidegate-reason"])
@pytest.mark.parametrize("value", ["", "x" * 513], ids=["empty", "too long"])
def test_header_of_ours_is_malformed_when_it_has_no_usable_length(name: str, value: str) -> None:
    played = _played("GET", "/api/items", [IDENTIFIED, RECORDED], headers=((name, value),))
    assert played.refused is not None
    assert played.refused.code == "malformed_request"


def test_switch_covers_whom_a_workload_acts_for() -> None:
    scopes = covering_scopes(replace(SUBJECT, on_behalf_of="anna"), "desk", "desk.item.list")
    assert "tenant/acme/subject/anna" in scopes
    assert "tenant/acme/subject/anna" not in covering_scopes(SUBJECT, "desk", "desk.item.list")


def test_driver_is_misused_when_it_answers_with_another_event() -> None:
    with pytest.raises(GateMisuse, match="RecordAppended where Identified"):
        e.expect(RECORDED, e.Identified)


def test_streamed_body_is_not_read_before_dispatch_when_allowed() -> None:
    trace = Trace("call-1", "desk", "desk")
    proxied = request("POST", "/api/files", has_body=True)
    answers: list[Answer] = [IDENTIFIED, NO_SWITCH, ALLOWED, RECORDED, NO_SWITCH, *SENT]
    played = play(proxy_flow(proxied, trace, context()), trace, answers)
    assert played.all_of(c.Dispatch)[0].outbound.streamed
    assert not played.all_of(c.ReadBody)


def test_streamed_body_is_spooled_before_it_is_held() -> None:
    trace = Trace("call-1", "desk", "desk")
    proxied = request("POST", "/api/files", has_body=True, headers=(("prefer", "wait=0"),))
    answers: list[Answer] = [IDENTIFIED, NO_SWITCH, HELD, e.BodyRead(b"file"), open_approval(ApprovalState.PENDING)]
    played = play(proxy_flow(proxied, trace, context()), trace, [*answers, RECORDED])
    held = played.all_of(c.OpenOrAttach)[0].held
    assert held.fields.action == "desk.file.send"
    assert played.names.index("ReadBody") < played.names.index("OpenOrAttach")
