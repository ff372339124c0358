"""What a call looks like in the ledger: spliced bytes equal the encoding of the plain value."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bundles.canonical import canonical_json
from gateway.edge.identity import Subject
from gateway.errors import Refusal
from gateway.flow.describe import RECORDED_TEXT_MAX_CHARACTERS, Recorder, decision_record, policy_record
from gateway.flow.prepare import prepare_api
from gateway.flow.values import ApiRequest, GovernedCall, Trace
from gateway.ledger.record import Position, RecordKind, canonical, freeze, keyed_digest, seal
from pdp.decided import Decided
from pdp.documents import Decision, Effect, Reason
from tests.gateway.flow.playbook import KEY, NOW, SUBJECT, plan, prefer

POSITION = Position(3, "b" * 64, (9, 1), 9)
TEXT = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=40)
PLAN = plan()


def call_of(subject: Subject = SUBJECT, resource_id: str = "a1", body: bytes = b'{"note":"x"}') -> GovernedCall:
    asked = ApiRequest(
        "c" * 32, PLAN, subject, "desk.item.update", {"id": "a1", "note": "x"}, None, None, None, "", prefer(()), NOW
    )
    call = prepare_api(asked, Trace("c" * 32, "desk", "desk"))
    return call._replace(resource_id=resource_id, outbound=call.outbound._replace(body=body))


def decided_by(*reasons: Reason, effect: Effect = Effect.ALLOW, decision_id: str = "d" * 32) -> Decided:
    return Decided(Decision(effect, tuple(reasons)), "r1", "sha256:b", 4, "wasm", decision_id, "sha256:i", 0.001)


def written(recorder: Recorder, kind: RecordKind, **end: Any) -> dict[str, Any]:
    """The record's document, whose bytes are proved canonical on the way."""
    sealed = seal(freeze(recorder.draft(kind, **end), node="n1"), POSITION)
    document: dict[str, Any] = json.loads(sealed)
    assert canonical_json(document) == sealed
    return document


def test_record_holds_what_the_call_says_when_it_is_spliced() -> None:
    trace = Trace("c" * 32, "desk", "desk", decided=decided_by(Reason("ok", "policies.desk.allow", "fine")))
    document = written(Recorder(call_of(), trace, KEY), "outcome", status=200, response=b"answer")
    assert document["action"] == {
        "name": "desk.item.update",
        "mode": "write",
        "connector": "desk",
        "instance": "desk",
        "resource": {"type": "item", "id": "a1"},
        "status": 200,
        "code": None,
    }
    assert document["subject"] == {
        "type": "agent",
        "id": "bot",
        "issuer": "urn:test",
        "environment": "prod",
        "roles": ["triage"],
        "on_behalf_of": None,
    }
    assert document["decision"] == {
        "id": "d" * 32,
        "effect": "ALLOW",
        "engine": "wasm",
        "input": "sha256:i",
        "reasons": ["ok"],
    }
    assert document["policy"] == {
        "bundle": "sha256:b",
        "revision": "r1",
        "sequence": 4,
        "rules": ["policies.desk.allow"],
    }
    assert document["ids"] == {"attempt": 1, "call": "c" * 32}
    assert document["digests"] == {
        "args": keyed_digest(b'{"id":"a1","note":"x"}', KEY),
        "body": keyed_digest(b'{"note":"x"}', KEY),
        "response": keyed_digest(b"answer", KEY),
    }


@pytest.mark.parametrize(
    ("kind", "end", "digests"),
    [
        pytest.param("intent", {}, {"args"}, id="an intent says no end"),
        pytest.param("refusal", {"code": "denied"}, {"args"}, id="a refusal"),
        pytest.param("call", {"status": 200, "response": b"x"}, {"args", "response"}, id="a read that was answered"),
        pytest.param(
            "outcome",
            {"status": 200, "code": "upstream_failed", "extra": {"response": {"sha256": "0", "length": 1}, "cut": "x"}},
            {"args", "cut", "response"},
            id="a stream that was cut",
        ),
        pytest.param(
            "call",
            {"status": 200, "response": b"x", "extra": {"replay_of": "e" * 32}},
            {"args", "replay_of", "response"},
            id="an answer given again",
        ),
    ],
)
def test_record_is_canonical_when_the_call_ends(kind: RecordKind, end: dict[str, Any], digests: set[str]) -> None:
    trace = Trace("c" * 32, "desk", "desk", approval_id="ap_1", retries=2, issued_by="d" * 32)
    document = written(Recorder(call_of(body=b""), trace, KEY), kind, **end)
    assert document["ids"] == {"approval": "ap_1", "attempt": 3, "call": "c" * 32, "issued_by": "d" * 32}
    assert set(document["digests"]) == digests
    assert ("status" in document["action"]) is (kind != "intent")
    assert (document["decision"], document["policy"]) == (None, {})


def test_decision_says_that_it_was_given_again_when_it_was_kept() -> None:
    decided = decided_by(Reason("ok", "r", ""))
    kept = json.loads(decision_record(decided._replace(cached=True)))
    assert kept == {**json.loads(decision_record(decided)), "cached": True}
    assert decision_record(decided._replace(cached=True)) == canonical_json(kept)


@given(TEXT, TEXT, TEXT, TEXT, st.lists(TEXT, max_size=3))
def test_record_is_canonical_when_names_are_any_text(
    name: str, resource_id: str, decision_id: str, text: str, roles: list[str]
) -> None:
    subject = replace(SUBJECT, id=name, issuer=text, roles=tuple(roles), on_behalf_of=resource_id)
    reasons = (Reason(text, name, ""), Reason('"id":"","input":""', '"resource":{"id":""', ""))
    trace = Trace("c" * 32, "desk", "desk", decided=decided_by(*reasons, decision_id=decision_id))
    document = written(Recorder(call_of(subject, resource_id), trace, KEY), "outcome", status=200)
    assert document["subject"] == {
        "type": "agent",
        "id": name,
        "issuer": text,
        "environment": "prod",
        "roles": roles,
        "on_behalf_of": resource_id,
    }
    assert document["action"]["resource"] == {"type": "item", "id": resource_id}
    assert document["decision"]["id"] == decision_id
    assert document["decision"]["reasons"] == [text, '"id":"","input":""']
    assert document["policy"]["rules"] == [name, '"resource":{"id":""']


def test_texts_are_cut_when_they_are_longer_than_a_record_takes() -> None:
    long = "x" * (RECORDED_TEXT_MAX_CHARACTERS + 1)
    decided = decided_by(Reason(long, long, ""))._replace(bundle_revision=long)
    assert json.loads(decision_record(decided))["reasons"] == [long[:-1]]
    policy = json.loads(canonical(policy_record(decided)))
    assert (policy["revision"], policy["rules"]) == (long[:-1], [long[:-1]])
    trace = Trace("c" * 32, "desk", "desk")
    document = written(Recorder(call_of(resource_id=long), trace, KEY), "call", status=200)
    assert document["action"]["resource"]["id"] == long[:-1]


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda: call_of(replace(SUBJECT, id="\ud800")), id="in the subject"),
        pytest.param(lambda: call_of(resource_id="\udfff"), id="in the resource"),
    ],
)
def test_record_is_refused_when_a_text_has_no_form(spoil: Any) -> None:
    with pytest.raises(Refusal) as caught:
        Recorder(spoil(), Trace("c" * 32, "desk", "desk"), KEY).draft("call", status=200)
    assert caught.value.code == "ledger_unavailable"


def test_each_record_stands_on_the_decision_that_was_last_when_a_call_is_decided_again() -> None:
    trace = Trace("c" * 32, "desk", "desk")
    recorder = Recorder(call_of(), trace, KEY)
    assert written(recorder, "refusal", code="killed")["decision"] is None
    for number in ("1", "2"):
        trace.decided = decided_by(Reason(f"code{number}", f"rule{number}", ""), decision_id=number * 32)
        document = written(recorder, "outcome", status=200)
        assert (document["decision"]["id"], document["decision"]["reasons"]) == (number * 32, [f"code{number}"])
        assert document["policy"]["rules"] == [f"rule{number}"]
