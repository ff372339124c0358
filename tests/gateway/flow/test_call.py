"""The flow of a call, branch by branch, without a socket."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gateway.approvals.model import ApprovalState
from gateway.edge.problem import refusal
from gateway.flow import commands as c
from gateway.flow import events as e
from gateway.flow.call import proxy_flow
from gateway.flow.describe import held_call
from gateway.flow.prepare import resource_of
from gateway.flow.values import GovernedCall, Outbound, Trace
from gateway.store.port import ClaimKey, KeyClaim, SettleKey, StoreConflict, StoredAnswer, SwitchRow
from pdp.documents import Effect
from tests.gateway.flow.playbook import (
    BEGAN,
    CHAINS,
    IDENTIFIED,
    MANIFEST,
    NO_SWITCH,
    NOW,
    READ,
    RECORDED,
    REWRITTEN,
    SUBJECT,
    Answer,
    Played,
    approval,
    context,
    decided,
    plan,
    play,
    request,
)

BODY = b'{"note":"hello"}'
WRITE_HEAD: list[Answer] = [IDENTIFIED, e.BodyRead(BODY), NO_SWITCH]
SENT: list[Answer] = [BEGAN, READ, REWRITTEN, RECORDED]
CUT = e.DispatchFailed("failed", "upstream_failed", "cut")
NOT_SENT = e.DispatchFailed("not_sent", "upstream_failed", "refused")
SLOW = e.DispatchFailed("timeout", "upstream_timeout", "slow")
ALLOWED = e.PolicyAnswered(decided())
HELD = e.PolicyAnswered(decided(Effect.REQUIRE_HITL))


def _trace() -> Trace:
    return Trace("call-1", "desk", "desk")


def read(answers: list[Answer], target: str = "/api/items") -> Played:
    trace = _trace()
    return play(proxy_flow(request("GET", target), trace, context()), trace, answers)


def write(answers: list[Answer], method: str = "PATCH", headers: tuple[tuple[str, str], ...] = ()) -> Played:
    trace = _trace()
    proxied = request(method, "/api/items/7", headers=headers, has_body=True)
    return play(proxy_flow(proxied, trace, context()), trace, answers)


def open_approval(state: ApprovalState, headers: tuple[tuple[str, str], ...] = ()) -> e.ApprovalRead:
    """The approval of the playbook's write, in a state."""
    on = plan()
    action = on.table.action("desk.item.update")
    args = {"note": "hello", "id": "7"}
    out_headers = (("content-type", "application/json"), ("accept-encoding", "identity"))
    outbound = Outbound("PATCH", "/api/items/7", "", out_headers, BODY)
    kind, name = resource_of(action, args)
    proxied = request("PATCH", "/api/items/7", headers=headers, has_body=True)
    call = GovernedCall(
        "call-1", on, SUBJECT, action, args, kind, name, outbound, "application/json", None, None, None, "",
        proxied.prefer, NOW, "proxy", (),
    )  # fmt: skip
    obligation = decided(Effect.REQUIRE_HITL).decision.approval
    if obligation is None:
        raise AssertionError("the playbook's decision holds")
    held = held_call(call, decided(Effect.REQUIRE_HITL), obligation, CHAINS["one"])
    return e.ApprovalRead(approval(held, state), NOW + 1)


def test_read_is_one_record_before_the_answer_when_allowed() -> None:
    played = read([IDENTIFIED, NO_SWITCH, ALLOWED, *SENT])
    assert played.names == [
        "VerifyToken", "ReadSwitches", "AskPolicy", "Dispatch", "ReadAnswer", "RewriteAnswer", "AppendRecord:call",
    ]  # fmt: skip
    assert played.finished is not None
    assert played.finished.status == 200


def test_write_has_a_durable_intent_before_dispatch_and_outcome_before_the_answer() -> None:
    played = write([*WRITE_HEAD, ALLOWED, RECORDED, NO_SWITCH, *SENT])
    names = played.names
    assert names.index("AppendIntent:intent") < names.index("Dispatch") < names.index("AppendRecord:outcome")
    assert names[-1] == "AppendRecord:outcome"


def test_write_is_not_dispatched_when_its_intent_cannot_be_recorded() -> None:
    played = write([*WRITE_HEAD, ALLOWED, refusal("ledger_unavailable"), refusal("ledger_unavailable")])
    assert played.refused is not None
    assert played.refused.code == "ledger_unavailable"
    assert "Dispatch" not in played.names


@pytest.mark.parametrize(
    ("effect", "reason"),
    [
        pytest.param(Effect.DENY, "because", id="policy denies"),
        pytest.param(Effect.REQUIRE_STEP_UP, "not_supported", id="step up is not enforced yet"),
        pytest.param(Effect.THROTTLE, "not_supported", id="throttle is not enforced yet"),
        pytest.param(Effect.ROUTE, "not_supported", id="route is not enforced yet"),
    ],
)
def test_call_is_denied_and_recorded_when_the_effect_is_not_allow(effect: Effect, reason: str) -> None:
    played = read([IDENTIFIED, NO_SWITCH, e.PolicyAnswered(decided(effect)), RECORDED])
    assert played.refused is not None
    assert played.refused.code == "denied"
    assert played.refused.extra["reasons"][0]["code"] == reason  # type: ignore[index]
    assert played.names[-1] == "AppendRecord:refusal"


@pytest.mark.parametrize("placement", [{}, {"site": "hq"}], ids=["anywhere", "by label"])
def test_call_is_denied_before_policy_is_asked_when_its_action_is_placed_at_an_agent(placement: dict[str, str]) -> None:
    placed = plan({"actions": [{**MANIFEST["actions"][0], "placement": placement}]})
    trace = _trace()
    flow = proxy_flow(request("GET", "/api/items", on=placed), trace, context())
    played = play(flow, trace, [IDENTIFIED, NO_SWITCH, RECORDED])
    assert played.refused is not None
    assert played.refused.code == "denied"
    assert played.refused.extra["reasons"][0]["code"] == "not_supported"  # type: ignore[index]
    assert played.names[-1] == "AppendRecord:refusal"


@pytest.mark.parametrize("code", ["engine_failed", "policy_stale", "policy_unavailable"])
def test_call_is_refused_when_policy_cannot_answer(code: str) -> None:
    played = read([IDENTIFIED, NO_SWITCH, refusal(code), RECORDED])
    assert played.refused is not None
    assert played.refused.code == code


def test_refusal_stands_when_it_cannot_be_recorded() -> None:
    answers: list[Answer] = [
        IDENTIFIED,
        NO_SWITCH,
        e.PolicyAnswered(decided(Effect.DENY)),
        refusal("ledger_unavailable"),
    ]
    played = read(answers)
    assert played.refused is not None
    assert played.refused.code == "denied"


def test_no_record_is_written_when_the_caller_is_unknown() -> None:
    played = read([refusal("identity_invalid")])
    assert played.names == ["VerifyToken"]
    assert played.trace.subject is None


@pytest.mark.parametrize(
    ("method", "target", "body", "code"),
    [
        pytest.param("GET", "/api/none", None, "unclassified", id="no action matches the path"),
        pytest.param("GET", "/other", None, "unclassified", id="outside the base path"),
        pytest.param("GET", "/api/items?x=1", None, "arguments_invalid", id="an undeclared query parameter"),
        pytest.param("PATCH", "/api/items/7", b"{", "malformed_request", id="body is no JSON"),
        pytest.param("PATCH", "/api/items/7", b'{"note":1}', "arguments_invalid", id="body does not fit the schema"),
        pytest.param("PATCH", "/api/items/7", b'{"note":"a","note":"b"}', "malformed_request", id="a key twice"),
        pytest.param("PATCH", "/api/items/7", b'{"note":"a","id":"8"}', "arguments_invalid", id="one name, two values"),
        pytest.param("PATCH", "/api/items/7", b'{"note":"a","x":1}', "arguments_invalid", id="an undeclared member"),
    ],
)
def test_request_is_refused_and_recorded_before_policy_is_asked(
    method: str, target: str, body: bytes | None, code: str
) -> None:
    trace = _trace()
    proxied = request(method, target, has_body=body is not None)
    answers: list[Answer] = [IDENTIFIED, *([e.BodyRead(body)] if body is not None else []), RECORDED]
    played = play(proxy_flow(proxied, trace, context()), trace, answers)
    assert played.refused is not None
    assert played.refused.code == code
    assert "AskPolicy" not in played.names
    assert played.names[-1] == "AppendRecord:refusal"
    action = {"unclassified": ""}.get(code, "desk.item.list" if method == "GET" else "desk.item.update")
    assert played.commands[-1].draft.action["name"] == played.trace.action == action  # type: ignore[union-attr]


def test_instance_is_unclassified_when_it_is_not_for_the_tenant() -> None:
    trace = _trace()
    proxied = request("GET", "/api/items", on=plan(tenants=("other",)))
    played = play(proxy_flow(proxied, trace, context()), trace, [IDENTIFIED, RECORDED])
    assert played.refused is not None
    assert played.refused.code == "unclassified"


SCOPES = ["tenant/acme", "tenant/acme/connector/desk", "tenant/acme/action/desk.item.list", "tenant/acme/subject/bot"]


@pytest.mark.parametrize("scope", SCOPES)
def test_call_is_killed_when_a_switch_covers_it(scope: str) -> None:
    switches = e.SwitchesRead((SwitchRow("acme", scope, "r", "op", 0),))
    played = read([IDENTIFIED, switches, RECORDED])
    assert played.refused is not None
    assert played.refused.code == "killed"


@pytest.mark.parametrize("scope", ["tenant/acme/connector/other", "tenant/acme/subject/somebody"])
def test_call_goes_on_when_no_switch_covers_it(scope: str) -> None:
    switches = e.SwitchesRead((SwitchRow("acme", scope, "r", "op", 0),))
    assert read([IDENTIFIED, switches, ALLOWED, *SENT]).finished is not None


def test_write_is_not_sent_when_a_switch_is_set_while_its_intent_is_written() -> None:
    killed = e.SwitchesRead((SwitchRow("acme", "tenant/acme", "r", "op", 0),))
    played = write([*WRITE_HEAD, ALLOWED, RECORDED, killed, RECORDED])
    assert played.refused is not None
    assert played.refused.code == "killed"
    assert "Dispatch" not in played.names
    assert played.names[-1] == "AppendRecord:outcome"


# -- held calls --------------------------------------------------------------------------------------------------------


def test_call_is_held_by_the_manifests_budget_and_then_refused_with_details() -> None:
    pending = open_approval(ApprovalState.PENDING)
    played = write([*WRITE_HEAD, HELD, pending, pending, RECORDED])
    assert played.all_of(c.AwaitApproval)[0].seconds == 7
    assert played.refused is not None
    assert played.refused.code == "approval_required"
    assert played.refused.extra["approval"]["id"] == "app-1"  # type: ignore[index]


@pytest.mark.parametrize(
    ("value", "seconds"), [("wait=3", [3]), ("wait=0", []), ("wait=99999", [600]), ("respond-async", [])]
)
def test_hold_lasts_as_the_caller_prefers(value: str, seconds: list[int]) -> None:
    pending = open_approval(ApprovalState.PENDING)
    answers: list[Answer] = [*WRITE_HEAD, HELD, pending, *([pending] if seconds else []), RECORDED]
    played = write(answers, headers=(("prefer", value),))
    assert [command.seconds for command in played.all_of(c.AwaitApproval)] == seconds


@pytest.mark.parametrize(
    ("state", "code"),
    [
        (ApprovalState.DENIED, "approval_denied"),
        (ApprovalState.EXPIRED, "approval_expired"),
        (ApprovalState.WITHDRAWN, "approval_denied"),
        (ApprovalState.CONSUMED, "approval_required"),
    ],
)
def test_held_call_is_refused_when_its_approval_ends_otherwise(state: ApprovalState, code: str) -> None:
    played = write([*WRITE_HEAD, HELD, open_approval(ApprovalState.PENDING), open_approval(state), RECORDED])
    assert played.refused is not None
    assert played.refused.code == code


def test_approved_call_is_decided_again_and_its_approval_used_with_the_intent() -> None:
    granted = open_approval(ApprovalState.APPROVED)
    played = write([*WRITE_HEAD, HELD, granted, HELD, RECORDED, NO_SWITCH, *SENT])
    questions = played.all_of(c.AskPolicy)
    assert questions[0].policy_input.approval is None
    assert questions[1].policy_input.approval["state"] == "approved"
    intent = played.all_of(c.AppendIntent)[0]
    assert intent.approval is granted.approval
    assert intent.action_digest == granted.approval.action_digest
    assert played.finished is not None


def test_approved_call_is_denied_when_policy_now_denies() -> None:
    answers: list[Answer] = [*WRITE_HEAD, HELD, open_approval(ApprovalState.APPROVED)]
    played = write([*answers, e.PolicyAnswered(decided(Effect.DENY)), RECORDED])
    assert played.refused is not None
    assert played.refused.code == "denied"


def test_approved_call_is_stale_when_policy_now_asks_another_chain() -> None:
    other = e.PolicyAnswered(decided(Effect.REQUIRE_HITL, chains=("other",)))
    played = write([*WRITE_HEAD, HELD, open_approval(ApprovalState.APPROVED), other, RECORDED])
    assert played.refused is not None
    assert played.refused.code == "stale_state"


@pytest.mark.parametrize(
    "again",
    [
        pytest.param(HELD, id="policy still holds it"),
        pytest.param(e.PolicyAnswered(decided()), id="policy takes the approval for enough"),
    ],
)
def test_approved_call_is_stale_when_the_chain_changed(again: e.PolicyAnswered) -> None:
    granted = open_approval(ApprovalState.APPROVED)
    changed = granted._replace(approval=replace(granted.approval, chain_digest="sha256:other"))
    played = write([*WRITE_HEAD, HELD, changed, again, RECORDED])
    assert played.refused is not None
    assert played.refused.code == "stale_state"
    assert "AppendIntent:intent" not in played.names


def test_approved_call_goes_out_when_policy_takes_the_approval_and_the_chain_is_the_same() -> None:
    allowed = e.PolicyAnswered(decided())
    played = write([*WRITE_HEAD, HELD, open_approval(ApprovalState.APPROVED), allowed, RECORDED, NO_SWITCH, *SENT])
    assert played.finished is not None


def test_approved_call_is_stale_when_what_would_be_sent_is_not_what_was_approved() -> None:
    granted = open_approval(ApprovalState.APPROVED)
    other = granted._replace(approval=replace(granted.approval, action_digest="sha256:other"))
    played = write([*WRITE_HEAD, HELD, other, HELD, RECORDED])
    assert played.refused is not None
    assert played.refused.code == "stale_state"
    assert "AppendIntent:intent" not in played.names


def test_approved_call_is_stale_when_somebody_used_the_approval_first() -> None:
    used = StoreConflict("stale_state", "used")
    played = write([*WRITE_HEAD, HELD, open_approval(ApprovalState.APPROVED), HELD, used, RECORDED])
    assert played.refused is not None
    assert played.refused.code == "stale_state"
    assert "Dispatch" not in played.names


def test_nothing_runs_for_nobody_when_the_caller_hung_up_before_the_vote() -> None:
    gone = open_approval(ApprovalState.APPROVED)._replace(caller_connected=False)
    played = write([*WRITE_HEAD, HELD, open_approval(ApprovalState.PENDING), gone, RECORDED])
    assert played.refused is not None
    assert played.refused.code == "approval_required"


def test_call_is_denied_when_policy_asks_for_several_chains() -> None:
    several = e.PolicyAnswered(decided(Effect.REQUIRE_HITL, chains=("one", "two")))
    played = write([*WRITE_HEAD, several, RECORDED])
    assert played.refused is not None
    assert played.refused.code == "denied"


# -- dispatching -------------------------------------------------------------------------------------------------------


def _sent_write(*events: Answer, method: str = "PATCH") -> Played:
    return write([*WRITE_HEAD, ALLOWED, RECORDED, NO_SWITCH, *events], method)


def test_write_is_sent_again_when_nothing_was_sent() -> None:
    again: list[Answer] = [NOT_SENT, e.DONE, NO_SWITCH, ALLOWED]
    played = _sent_write(*again, *SENT)
    assert len(played.all_of(c.Dispatch)) == 2
    assert played.trace.retries == 1


@pytest.mark.parametrize("failed", [CUT, SLOW], ids=["cut", "timeout"])
def test_write_outcome_is_unknown_and_never_retried_when_it_was_sent(failed: e.DispatchFailed) -> None:
    played = _sent_write(failed, RECORDED)
    assert played.refused is not None
    assert played.refused.code == "outcome_unknown"
    assert len(played.all_of(c.Dispatch)) == 1


def test_idempotent_write_is_retried_to_the_manifests_limit_then_fails() -> None:
    again: list[Answer] = [CUT, e.DONE, NO_SWITCH, ALLOWED]
    played = _sent_write(*again, *again, CUT, RECORDED, method="PUT")
    assert len(played.all_of(c.Dispatch)) == 3
    assert [pause.seconds for pause in played.all_of(c.Pause)] == [0.01, 0.02]
    assert played.refused is not None
    assert played.refused.code == "upstream_failed"


@pytest.mark.parametrize(
    ("status", "method", "dispatches"),
    [(429, "PATCH", 2), (503, "PUT", 2), (503, "PATCH", 1), (500, "PUT", 1)],
    ids=["429 for any", "503 for idempotent", "503 not otherwise", "500 never"],
)
def test_answer_is_retried_by_status_only_where_it_may(status: int, method: str, dispatches: int) -> None:
    busy = BEGAN._replace(status=status)
    again: list[Answer] = [busy, e.DONE, e.DONE, NO_SWITCH, ALLOWED] if dispatches == 2 else []
    rest: list[Answer] = [BEGAN if again else busy, READ, REWRITTEN, RECORDED]
    played = _sent_write(*again, *rest, method=method)
    assert len(played.all_of(c.Dispatch)) == dispatches


def test_retry_is_not_sent_when_policy_no_longer_allows() -> None:
    denied = e.PolicyAnswered(decided(Effect.DENY))
    played = _sent_write(NOT_SENT, e.DONE, NO_SWITCH, denied, RECORDED)
    assert played.refused is not None
    assert played.refused.code == "denied"
    assert len(played.all_of(c.Dispatch)) == 1


def test_forbidden_address_is_not_tried_again() -> None:
    forbidden = e.DispatchFailed("not_sent", "egress_forbidden", "metadata address")
    played = read([IDENTIFIED, NO_SWITCH, ALLOWED, forbidden, RECORDED])
    assert played.refused is not None
    assert played.refused.code == "egress_forbidden"


# -- answers -----------------------------------------------------------------------------------------------------------


def test_answer_does_not_leave_when_it_holds_a_secret() -> None:
    leaked = READ._replace(leaked=True)
    played = read([IDENTIFIED, NO_SWITCH, ALLOWED, BEGAN, leaked, e.DONE, RECORDED])
    assert played.refused is not None
    assert played.refused.code == "upstream_failed"
    assert played.names[-1] == "AppendRecord:call"


def test_answer_does_not_leave_when_its_outcome_cannot_be_recorded() -> None:
    played = _sent_write(BEGAN, READ, REWRITTEN, refusal("ledger_unavailable"))
    assert played.refused is not None
    assert played.refused.code == "ledger_unavailable"
    assert played.finished is None
    assert played.all_of(c.AppendRecord)[-1].after_side_effect
    assert played.trace.settled


def _stream(*end: Answer) -> Played:
    began = BEGAN._replace(media_type="text/event-stream", length=None)
    return read([IDENTIFIED, NO_SWITCH, ALLOWED, began, REWRITTEN, *end], "/api/watch")


def test_stream_begins_after_its_record_and_ends_after_its_outcome() -> None:
    played = _stream(RECORDED, e.DONE, e.AnswerRelayed(5, "ab", None), RECORDED, e.DONE)
    assert played.names[-5:] == [
        "AppendRecord:response_began", "BeginStream", "RelayAnswer", "AppendRecord:call", "EndStream",
    ]  # fmt: skip
    assert played.all_of(c.EndStream)[0].complete


@pytest.mark.parametrize(
    ("cut", "outcome"),
    [("the upstream cut", RECORDED), (None, refusal("ledger_unavailable"))],
    ids=["upstream cut", "last record failed"],
)
def test_stream_is_cut_without_its_terminator(cut: str | None, outcome: Answer) -> None:
    played = _stream(RECORDED, e.DONE, e.AnswerRelayed(5, "ab", cut), outcome, e.DONE)
    assert not played.all_of(c.EndStream)[0].complete


# -- once --------------------------------------------------------------------------------------------------------------

KEYED = (("idempotency-key", "k1"),)


def _claim(state: str, digest: str | None = None) -> e.ClaimRead:
    return e.ClaimRead(KeyClaim(digest or _digest(), "call-0", state, int(NOW * 1000) + 1000))  # type: ignore[arg-type]


def _digest() -> str:
    played = write([*WRITE_HEAD, e.ClaimRead(None), ALLOWED, RECORDED, NO_SWITCH, *SENT], headers=KEYED)
    claims = [effect for effect in played.all_of(c.AppendIntent)[0].effects if isinstance(effect, ClaimKey)]
    return claims[0].request_digest


def test_key_lasts_from_when_the_call_went_on_after_it_was_held() -> None:
    start: list[Answer] = [*WRITE_HEAD, e.ClaimRead(None)]
    rest: list[Answer] = [ALLOWED, RECORDED, NO_SWITCH, *SENT]
    pending = open_approval(ApprovalState.PENDING)
    held = write([*start, HELD, pending, pending, RECORDED], headers=KEYED).all_of(c.OpenOrAttach)[0].held
    released = e.ApprovalRead(approval(held, ApprovalState.APPROVED), NOW + 5000)
    ends = [
        effect.expires
        for answers in ([*start, *rest], [*start, HELD, released, *rest])
        for effect in write(answers, headers=KEYED).all_of(c.AppendIntent)[0].effects
        if isinstance(effect, ClaimKey)
    ]
    assert ends[1] - ends[0] == 5_000_000


def test_key_is_claimed_with_the_intent_and_settled_with_the_outcome() -> None:
    played = write([*WRITE_HEAD, e.ClaimRead(None), ALLOWED, RECORDED, NO_SWITCH, *SENT], headers=KEYED)
    settled = [x for x in played.all_of(c.AppendRecord)[-1].effects if isinstance(x, SettleKey)]
    assert [effect.result for effect in settled] == ["done"]


def test_first_answer_is_given_again_when_the_key_repeats_and_policy_still_allows() -> None:
    stored = e.AnswerLoaded(StoredAnswer(201, (), b"first"))
    played = write([*WRITE_HEAD, _claim("done"), ALLOWED, stored, RECORDED], headers=KEYED)
    assert played.finished is not None
    assert played.finished.body == b"first"
    assert "Dispatch" not in played.names


def test_first_answer_is_not_given_again_when_policy_now_denies() -> None:
    answers: list[Answer] = [*WRITE_HEAD, _claim("done"), e.PolicyAnswered(decided(Effect.DENY)), RECORDED]
    played = write(answers, headers=KEYED)
    assert played.refused is not None
    assert played.refused.code == "denied"


@pytest.mark.parametrize(
    ("state", "digest", "code"),
    [
        pytest.param("done", "other", "idempotency_mismatch", id="another request under the key"),
        pytest.param("claimed", None, "still_running", id="the first has not ended"),
        pytest.param("unknown", None, "outcome_unknown", id="nobody knows how the first ended"),
    ],
)
def test_repeat_is_refused(state: str, digest: str | None, code: str) -> None:
    played = write([*WRITE_HEAD, _claim(state, digest), RECORDED], headers=KEYED)
    assert played.refused is not None
    assert played.refused.code == code


@pytest.mark.parametrize(
    ("failed", "result"), [(NOT_SENT, "released"), (CUT, "unknown")], ids=["nothing sent", "maybe sent"]
)
def test_key_is_settled_by_what_can_have_happened(failed: e.DispatchFailed, result: str) -> None:
    again: list[Answer] = [failed, e.DONE, NO_SWITCH, ALLOWED] if failed is NOT_SENT else []
    answers: list[Answer] = [*WRITE_HEAD, e.ClaimRead(None), ALLOWED, RECORDED, NO_SWITCH, *again, *again]
    played = write([*answers, failed, RECORDED], headers=KEYED)
    settled = [x for x in played.all_of(c.AppendRecord)[-1].effects if isinstance(x, SettleKey)]
    assert [effect.result for effect in settled] == [result]
