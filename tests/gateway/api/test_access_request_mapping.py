"""The words of access requests alone: what binds a request, what people are shown, what an approval is worth."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.api.access_request_mapping import (
    APPROVAL_ID_MAX_CHARACTERS,
    REASON_MAX_CHARACTERS,
    TOKEN_MAX_CHARACTERS,
    Denial,
    Standing,
    UnboundRequest,
    bound_members,
    chain_of,
    never_voting,
    offers_request,
    open_denial,
    parse_submission,
    question_fields,
    referred,
    seal_denial,
    standing,
    task_document,
    task_status,
    with_approval,
    with_offer,
)
from gateway.api.access_request_mapping import _encoded as encoded
from gateway.api.access_request_mapping import _mac as mac
from gateway.api.authzen_mapping import MalformedQuestion, Question, parse_evaluation
from gateway.approvals.model import Approval, ApprovalState, Ballot, CallFields
from gateway.approvals.reduce import as_of, cast_vote, open_approval, withdraw
from gateway.approvals.render import rfc3339
from pdp.documents import ApprovalObligation
from tests.gateway.api.test_authzen_mapping import CALLER, KNOWN
from tests.gateway.store.build import HELD, ONE_STEP, START, Voter

KEY = b"k" * 32
CHAINS: dict[str, Any] = {"one-approver": json.loads(ONE_STEP), "two": {"steps": []}}
ASKED: dict[str, Any] = {
    "subject": {"type": "user", "id": "ann", "properties": {"on_behalf_of": "maria"}},
    "action": {"name": "mail.send", "properties": {"arguments": {"to": "bob"}}},
    "resource": {"type": "message", "id": "m1"},
    "context": {"channel": "chat", "ticket": "T-1", "time": "now", "approval": {"id": "a"}},
}
EXPIRES = START + 600_000
DENIAL = Denial("e1", "sha256:00", ("channel", "ticket"), EXPIRES)


def question(changes: dict[str, Any] | None = None) -> Question:
    """The question, parsed as it would come."""
    (parsed,) = parse_evaluation({**ASKED, **(changes or {})}).questions
    assert isinstance(parsed, Question)
    return parsed


QUESTION = question()


def body(**changes: Any) -> dict[str, Any]:
    """A submission as a caller sends it; `denial` is merged."""
    denied = {"binding_token": seal_denial(DENIAL, CALLER, QUESTION, KEY), "expires_at": rfc3339(EXPIRES)}
    denied |= changes.pop("denial", {})
    return {**ASKED, "denial": {"evaluation_id": "e1", **denied}, **changes}


def test_denial_opens_for_its_caller_and_question() -> None:
    submission = parse_submission(body(context={**ASKED["context"], "business_justification": "please"}), "")
    assert submission.reason == "please"
    assert open_denial(submission, CALLER, KEY) == DENIAL
    assert submission.denied(DENIAL.members).context == {"channel": "chat", "ticket": "T-1"}
    assert open_denial(parse_submission(body(denial={"evaluation_id": None}), ""), CALLER, KEY) == DENIAL


STRANGERS = {
    "another tenant": {"tenant": "rival"},
    "another workspace": {"workspace": "else"},
    "another environment": {"environment": "prod"},
    "another issuer": {"issuer": "urn:else"},
    "another subject": {"id": "pep-2"},
    "somebody it acts for": {"on_behalf_of": "maria"},
}


@pytest.mark.parametrize("changes", STRANGERS.values(), ids=STRANGERS.keys())
def test_denial_does_not_open_for(changes: dict[str, Any]) -> None:
    with pytest.raises(UnboundRequest) as refused:
        open_denial(parse_submission(body(), ""), replace(CALLER, **changes), KEY)
    assert refused.value.detail == "this is not the question that was denied"


def test_denial_does_not_open_under_another_tenants_key() -> None:
    with pytest.raises(UnboundRequest):
        open_denial(parse_submission(body(), ""), CALLER, b"x" * 32)


OTHERS: dict[str, dict[str, Any]] = {
    "another subject": {"subject": {"type": "user", "id": "bob"}},
    "fewer properties of the subject": {"subject": {"type": "user", "id": "ann"}},
    "another action": {"action": {"name": "mail.read"}},
    "other arguments": {"action": {"name": "mail.send", "properties": {"arguments": {"to": "eve"}}}},
    "another resource": {"resource": {"type": "message", "id": "m2"}},
    "another context": {"context": {"channel": "mail", "ticket": "T-1"}},
    "a context that lacks a member": {"context": {"channel": "chat"}},
    "another evaluation": {"denial": {"evaluation_id": "e2"}},
    "another expiry": {"denial": {"expires_at": rfc3339(EXPIRES + 1)}},
}


@pytest.mark.parametrize("changes", OTHERS.values(), ids=OTHERS.keys())
def test_denial_does_not_open_when_the_submission_has(changes: dict[str, Any]) -> None:
    with pytest.raises(UnboundRequest):
        open_denial(parse_submission(body(**changes), ""), CALLER, KEY)


def _genuine(claims: Any) -> str:
    payload = json.dumps(claims).encode()
    return f"{encoded(payload)}.{encoded(mac(payload, CALLER, QUESTION, KEY))}"


CLAIMS = [1, "e1", "sha256:00", [], EXPIRES]
FORGED = {
    "nothing but a dot": ".",
    "no dot": "AAAA",
    "no base64": "A.A",
    "signs that are no base64": "ä.ä".encode("ascii", "replace").decode(),
    "no JSON": f"{encoded(b'{')}.AAAA",
    "claims of no list": _genuine({"a": 1}),
    "a claim too few": _genuine(CLAIMS[:4]),
    "another version": _genuine([2, *CLAIMS[1:]]),
    "an evaluation that is no text": _genuine([1, 2, *CLAIMS[2:]]),
    "a bundle that is no text": _genuine([1, "e1", 3, *CLAIMS[3:]]),
    "members that are no list": _genuine([*CLAIMS[:3], "x", EXPIRES]),
    "an expiry that is no number": _genuine([*CLAIMS[:4], "x"]),
    "a mac of other claims": f"{encoded(json.dumps(CLAIMS).encode())}.{encoded(b'x' * 32)}",
}


@pytest.mark.parametrize("token", FORGED.values(), ids=FORGED.keys())
def test_denial_does_not_open_when_its_token_is(token: str) -> None:
    with pytest.raises(UnboundRequest):
        open_denial(parse_submission(body(denial={"binding_token": token}), ""), CALLER, KEY)


@given(st.text(max_size=80))
def test_denial_does_not_open_when_its_token_is_anything_else(text: str) -> None:
    with pytest.raises(UnboundRequest):
        open_denial(parse_submission(body(denial={"binding_token": text}), ""), CALLER, KEY)


def test_token_is_not_made_when_it_would_be_too_long() -> None:
    assert len(seal_denial(DENIAL, CALLER, QUESTION, KEY) or "") < 300
    members = tuple(f"{number:04d}" for number in range(TOKEN_MAX_CHARACTERS // 6))
    assert seal_denial(replace(DENIAL, members=members), CALLER, QUESTION, KEY) is None


UNBOUND: dict[str, Any] = {
    "no denial": {"denial": None},
    "a denial that is no object": {"denial": []},
    "no token": {"denial": {"expires_at": "x"}},
    "an empty token": {"denial": {"binding_token": "", "expires_at": "x"}},
    "a token that is no text": {"denial": {"binding_token": 1, "expires_at": "x"}},
    "a token too long": {"denial": {"binding_token": "A" * (TOKEN_MAX_CHARACTERS + 1), "expires_at": "x"}},
    "a token of other letters": {"denial": {"binding_token": "ä", "expires_at": "x"}},
    "no expiry": {"denial": {"binding_token": "A"}},
    "an evaluation that is no text": {"denial": {"binding_token": "A", "expires_at": "x", "evaluation_id": 1}},
}


@pytest.mark.parametrize("changes", UNBOUND.values(), ids=UNBOUND.keys())
def test_submission_is_unbound_with(changes: dict[str, Any]) -> None:
    with pytest.raises(UnboundRequest):
        parse_submission({**ASKED, **changes}, "")


MALFORMED: dict[str, Any] = {
    "a body that is no object": [],
    "several questions": {**ASKED, "items": [{}]},
    "a callback": {**ASKED, "callback": {"endpoint": "https://pep.example"}},
    "other access": {**ASKED, "requested_access": {"emergency": True}},
    "no subject": {**ASKED, "subject": {}},
    "a reason that is no text": body(context={"business_justification": 1}),
    "a reason too long": body(context={"business_justification": "x" * (REASON_MAX_CHARACTERS + 1)}),
}


@pytest.mark.parametrize("document", MALFORMED.values(), ids=MALFORMED.keys())
def test_submission_is_malformed_with(document: Any) -> None:
    with pytest.raises(MalformedQuestion):
        parse_submission(document, "")


def test_reason_is_the_headers_when_the_context_has_none() -> None:
    assert parse_submission(body(items=[], requested_access={}), "said before").reason == "said before"


def test_own_members_of_the_context_are_not_bound() -> None:
    assert bound_members(QUESTION) == ("channel", "ticket")


CHAINLESS: dict[str, ApprovalObligation | None] = {
    "no obligation": None,
    "several chains": ApprovalObligation(("one-approver", "two")),
    "a call to be sent": ApprovalObligation(("one-approver",), on_approval="dispatch"),
    "a chain of no step": ApprovalObligation(("two",)),
    "a chain that is not there": ApprovalObligation(("absent",)),
}


@pytest.mark.parametrize("obligation", CHAINLESS.values(), ids=CHAINLESS.keys())
def test_nobody_can_be_asked_for(obligation: ApprovalObligation | None) -> None:
    assert chain_of(obligation, CHAINS) is None


def test_people_of_the_one_chain_can_be_asked() -> None:
    assert chain_of(ApprovalObligation(("one-approver",)), CHAINS) == CHAINS["one-approver"]


def test_people_see_the_whole_question_and_no_call_is_bound() -> None:
    fields = question_fields(QUESTION, CALLER, KNOWN)
    assert (fields.instance, fields.action, fields.subject) == ("mail-eu", "mail.send", "pep")
    shown = json.loads(fields.args_json)
    assert shown["context"] == {"channel": "chat", "ticket": "T-1"}
    assert shown["subject"] == ASKED["subject"]
    assert shown["action"] == ASKED["action"]
    assert shown["resource"] == {**ASKED["resource"], "properties": {}}
    assert (fields.method, fields.path) == ("", "")
    assert question_fields(QUESTION, CALLER, None).instance == "authzen"
    assert question_fields(QUESTION, replace(CALLER, issuer="urn:else"), KNOWN) != fields


def test_whoever_it_is_for_does_not_vote() -> None:
    assert never_voting(QUESTION, replace(CALLER, actors=("runtime",))) == ("runtime", "ann", "maria")
    assert never_voting(question({"subject": {"type": "user", "id": "ann"}}), CALLER) == ("ann",)


REFERENCES: dict[str, tuple[Any, str | None]] = {
    "an object with its id": ({"id": "a", "approved_until": "x"}, "a"),
    "its id": ("a", "a"),
    "no id": ({"state": "approved"}, None),
    "an empty id": ("", None),
    "an id too long": ("x" * (APPROVAL_ID_MAX_CHARACTERS + 1), None),
    "a number": (7, None),
}


@pytest.mark.parametrize(("stated", "expected"), REFERENCES.values(), ids=REFERENCES.keys())
def test_question_refers_to_an_approval_by(stated: Any, expected: str | None) -> None:
    assert referred({"approval": stated}) == expected
    assert referred({}) is None


FIELDS = question_fields(QUESTION, CALLER, KNOWN)
REQUEST = open_approval(
    replace(HELD, fields=FIELDS, kind="access_request"),
    approval_id="a",
    salt="00" * 16,
    attach_key="k",
    now=START,
)
PERSON = Voter(workspace=CALLER.workspace)
APPROVED = cast_vote(REQUEST, Ballot("approve", "fine", REQUEST.action_digest), PERSON, START + 1000)
DENIED = cast_vote(REQUEST, Ballot("deny", "not today", REQUEST.action_digest), PERSON, START + 1000)
WITHDRAWN = withdraw(APPROVED, CALLER, START + 2000)
LATER = START + 3000


def worth(
    approval: Approval | None, *, fields: CallFields = FIELDS, chains: Any = CHAINS, now: int = LATER
) -> Standing:
    """What an approval is worth to the caller."""
    return standing(approval, fields, CALLER, chains, now)


def test_approval_applies_to_its_own_question() -> None:
    assert worth(APPROVED) is Standing.APPLIES


CHANGED_CHAIN = {"one-approver": {"steps": [{"id": "two", "role": "approver"}]}}
OTHER_FIELDS = question_fields(question({"resource": {"type": "message", "id": "m2"}}), CALLER, KNOWN)
WORTH: dict[str, tuple[Standing, Standing]] = {
    "it is not there": (worth(None), Standing.UNVERIFIABLE),
    "it is a held call's": (
        worth(replace(APPROVED, held=replace(APPROVED.held, kind="call"))),
        Standing.UNVERIFIABLE,
    ),
    "it is somebody else's": (
        worth(replace(APPROVED, held=replace(APPROVED.held, fields=replace(FIELDS, issuer="urn:else")))),
        Standing.UNVERIFIABLE,
    ),
    "the question is another": (worth(APPROVED, fields=OTHER_FIELDS), Standing.OUT_OF_SCOPE),
    "nobody has decided": (worth(REQUEST), Standing.PENDING),
    "a person said no": (worth(DENIED), Standing.DENIED),
    "nobody decided in time": (worth(REQUEST, now=REQUEST.decide_by), Standing.EXPIRED),
    "it was not used in time": (worth(APPROVED, now=APPROVED.deadline), Standing.EXPIRED),
    "it was withdrawn": (worth(WITHDRAWN), Standing.EXPIRED),
    "its chain has changed": (worth(APPROVED, chains=CHANGED_CHAIN), Standing.EXPIRED),
    "its chain is gone": (worth(APPROVED, chains={}), Standing.EXPIRED),
}


@pytest.mark.parametrize(("given_", "expected"), WORTH.values(), ids=WORTH.keys())
def test_approval_does_not_apply_when(given_: Standing, expected: Standing) -> None:
    assert given_ is expected


def answered(effect: str) -> dict[str, Any]:
    """An answer as the evaluation has it."""
    return {"decision": effect == "ALLOW", "context": {"effect": effect, "reason": "why"}}


HELD_ADVICE = {
    Standing.APPLIES: ("out_of_scope", "request"),
    Standing.PENDING: ("why", "retry"),
    Standing.DENIED: ("approval_denied", "none"),
    Standing.EXPIRED: ("approval_expired", "request"),
    Standing.OUT_OF_SCOPE: ("out_of_scope", "request"),
    Standing.UNVERIFIABLE: ("approval_unverifiable", "none"),
}


@pytest.mark.parametrize("found", list(Standing))
def test_asker_is_advised_when_policy_still_holds_the_question(found: Standing) -> None:
    told: Any = with_approval(answered("REQUIRE_HITL"), found, APPROVED)
    assert (told["context"]["reason"], told["context"]["next_action"]) == HELD_ADVICE[found]
    assert offers_request(told) is (told["context"]["next_action"] == "request")
    assert ("retry_after" in told["context"]) is (found is Standing.PENDING)


@pytest.mark.parametrize("found", list(Standing))
def test_asker_is_told_of_the_denial_when_policy_denies(found: Standing) -> None:
    context: Any = with_approval(answered("DENY"), found, APPROVED)["context"]
    assert context["reason"] == ("policy_denied" if found is Standing.APPLIES else "why")
    assert context["next_action"] == "none"


@pytest.mark.parametrize("found", list(Standing))
def test_approval_is_named_when_it_was_what_allowed(found: Standing) -> None:
    context: Any = with_approval(answered("ALLOW"), found, APPROVED)["context"]
    named = {"id": "a", "approved_until": rfc3339(APPROVED.deadline)} if found is Standing.APPLIES else None
    assert context.get("approval") == named
    assert "approval" not in with_approval(answered("ALLOW"), found, None)["context"]  # type: ignore[operator]


def test_offer_stands_in_the_context_or_nobody_is_told_to_ask() -> None:
    offered: Any = with_offer(answered("REQUIRE_HITL"), ("t", DENIAL, "one-approver"), "https://pdp.example")
    assert offered["context"]["access_request"] == {
        "endpoint": "https://pdp.example/access/v1/requests",
        "template": "one-approver",
        "expires_at": rfc3339(EXPIRES),
        "binding_token": "t",
    }
    expired = with_approval(answered("REQUIRE_HITL"), Standing.EXPIRED, APPROVED)
    context: Any = with_offer(expired, None, "")["context"]
    assert (context["next_action"], "access_request" in context) == ("none", False)
    assert with_offer(answered("REQUIRE_HITL"), None, "")["context"] == answered("REQUIRE_HITL")["context"]
    assert offers_request(answered("REQUIRE_HITL"))


STATUSES: dict[str, tuple[Approval, int, str]] = {
    "nobody has decided": (REQUEST, LATER, "pending"),
    "nobody decided in time": (REQUEST, REQUEST.decide_by, "expired"),
    "people agreed": (APPROVED, LATER, "approved"),
    "what people agreed to has run out": (APPROVED, APPROVED.deadline, "approved"),
    "what people agreed to was withdrawn": (WITHDRAWN, LATER, "approved"),
    "a person said no": (DENIED, LATER, "denied"),
    "its requester took it back": (withdraw(REQUEST, CALLER, LATER), LATER, "cancelled"),
    "something took its place": (replace(REQUEST, state=ApprovalState.SUPERSEDED), LATER, "failed"),
}


@pytest.mark.parametrize(("approval", "now", "expected"), STATUSES.values(), ids=STATUSES.keys())
def test_task_has_one_status_when(approval: Approval, now: int, expected: str) -> None:
    assert task_status(approval, now) == expected
    document: Any = task_document(approval, "https://pdp.example", now)
    task = document["task"]
    assert task["status"] == expected
    assert task["status_endpoint"] == "https://pdp.example/access/v1/requests/a"
    assert ("links" in task, "expires_at" in task) == (expected == "pending", expected == "pending")
    assert ("result" in document) is (expected == "approved")
    assert task_status(as_of(approval, now + 10**9), now + 10**9) == ("expired" if expected == "pending" else expected)


def test_result_says_until_when_the_approval_holds() -> None:
    done: Any = task_document(APPROVED, "", LATER)["result"]
    until = rfc3339(START + 1000 + HELD.use_within_seconds * 1000)
    approval = {"id": "a", "approved_at": rfc3339(START + 1000), "approved_until": until}
    assert done == {"mode": "reevaluate", "approval": approval}
    withdrawn: Any = task_document(WITHDRAWN, "", LATER)["result"]
    assert withdrawn["approval"]["approved_until"] == rfc3339(START + 2000)


def test_requester_reads_why_a_person_said_no() -> None:
    denied: Any = task_document(DENIED, "", LATER)["task"]
    assert denied["display"]["description"] == "not today"
    silent = replace(DENIED, steps=tuple(replace(step, votes=()) for step in DENIED.steps))
    assert task_document(silent, "", LATER)["task"]["display"]["description"] == ""  # type: ignore[index,call-overload]
