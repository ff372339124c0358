"""Uploads of an OPA as records: bounded, whole or not at all, and without content."""

from __future__ import annotations

import gzip
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.api.opa_events import (
    DEPTH_MAX,
    EVENTS_MAX,
    UNPACKED_MAX_BYTES,
    decision_drafts,
    parse,
    status_draft,
    unpacked,
)
from gateway.errors import Refusal
from gateway.ledger.record import freeze
from tests.gateway.api.test_authzen_mapping import CALLER

KEY = b"k" * 32
EVENT: dict[str, Any] = {
    "labels": {"id": "opa-1", "version": "1.20.2", "région": "eu"},
    "decision_id": "4ca636c1",
    "bundles": {"main": {"revision": "r1"}, "späte": {"revision": "r2"}},
    "path": "http/authz/allow",
    "input": {"password": "hunter2", "big": 12345678901234567890, "ratio": 0.1},
    "result": True,
    "requested_by": "127.0.0.1:59943",
    "timestamp": "2026-01-14T10:30:00.250Z",
    "metrics": {"timer_rego_query_eval_ns": 43786},
    "erased": ["/input/token"],
    "masked": ["/input/name"],
}


def refused(code: str, make: Any) -> None:
    """Assert that it is refused with this code."""
    with pytest.raises(Refusal) as caught:
        make()
    assert caught.value.code == code


def test_body_is_unpacked_up_to_its_limit_and_not_past_it() -> None:
    at, past = b"x" * UNPACKED_MAX_BYTES, b"x" * (UNPACKED_MAX_BYTES + 1)
    assert unpacked(gzip.compress(at, 1), "gzip") == at
    refused("body_too_large", lambda: unpacked(gzip.compress(past, 1), "gzip"))


def test_body_is_taken_as_it_is_without_a_coding() -> None:
    assert unpacked(b"[]", "") == unpacked(b"[]", "identity") == b"[]"


WHOLE = gzip.compress(b"[]")
PACKED = {
    "another coding": (b"[]", "br"),
    "two codings": (WHOLE, "gzip,gzip"),
    "a body that is no gzip": (b"[]", "gzip"),
    "a body cut short": (WHOLE[:-4], "gzip"),
    "a body with something behind": (WHOLE + b"x", "gzip"),
    "two members": (WHOLE + WHOLE, "gzip"),
    "a broken check sum": (WHOLE[:-8] + b"\0" * 8, "gzip"),
    "nothing": (b"", "gzip"),
}


@pytest.mark.parametrize(("raw", "coding"), PACKED.values(), ids=PACKED.keys())
def test_body_is_refused_when_it_is_packed_as(raw: bytes, coding: str) -> None:
    refused("malformed_request", lambda: unpacked(raw, coding))


TEXTS = {
    "no JSON": b"[",
    "a key twice": b'{"a": 1, "a": 2}',
    "NaN": b"[NaN]",
    "infinity": b"[-Infinity]",
    "no UTF-8": b'["\xff"]',
    "too many levels": b"[" * (DEPTH_MAX + 1) + b"]" * (DEPTH_MAX + 1),
    "levels beyond every parser": b"[" * 100_000,
}


@pytest.mark.parametrize("raw", TEXTS.values(), ids=TEXTS.keys())
def test_text_is_refused_when_it_has(raw: bytes) -> None:
    refused("malformed_request", lambda: parse(raw))


def test_text_is_taken_at_the_deepest_level() -> None:
    assert parse(b"[" * DEPTH_MAX + b"]" * DEPTH_MAX)


def test_event_becomes_a_record_that_holds_no_content() -> None:
    (draft,) = decision_drafts(parse(json.dumps([EVENT]).encode()), CALLER, "v1", KEY)
    record = freeze(draft, node="gate-1")
    text = (record.head + record.middle + record.tail).decode()
    assert "hunter2" not in text
    assert draft.log == ("acme", "ops")
    assert (draft.kind, draft.actor, draft.ids) == ("opa_decision", "pep", {"delivery": "v1"})
    assert draft.decision == {"id": "4ca636c1", "engine": "opa", "allowed": True}
    assert draft.policy["bundles"] == [{"name": "main", "revision": "r1"}, {"name": "späte", "revision": "r2"}]
    assert draft.action["path"] == "http/authz/allow"
    assert draft.action["at"] == EVENT["timestamp"]
    assert (draft.action["erased"], draft.action["masked"]) == (["/input/token"], ["/input/name"])
    assert draft.digests.keys() == {"event", "input", "result"}


def test_event_has_another_digest_when_its_input_is_another_one() -> None:
    other = {**EVENT, "input": {**EVENT["input"], "big": 12345678901234567891}}
    drafts = decision_drafts(parse(json.dumps([EVENT, EVENT, other]).encode()), CALLER, "v1", KEY)
    found = [draft.digests["input"] for draft in drafts]
    assert found[0] == found[1] != found[2]


def test_event_of_an_error_or_of_another_result_keeps_only_what_is_sure() -> None:
    failed = {"decision_id": "d", "error": {"code": "internal_error"}, "revision": "old"}
    other = {"decision_id": "d", "result": {"allow": True}}
    drafts = decision_drafts([failed, other], CALLER, "v1", KEY)
    assert [draft.action["failed"] for draft in drafts] == [True, False]
    assert drafts[0].policy["bundles"] == [{"name": "", "revision": "old"}]
    assert all("allowed" not in (draft.decision or {}) for draft in drafts)


UPLOADS: dict[str, Any] = {
    "an object": {},
    "text": "x",
    "an event that is text": ["x"],
    "an event without decision_id": [EVENT, {}],
    "an event with an empty decision_id": [{"decision_id": ""}],
    "an event with a number as decision_id": [{"decision_id": 7}],
    "one event more than the limit": [EVENT] * (EVENTS_MAX + 1),
}


@pytest.mark.parametrize("upload", UPLOADS.values(), ids=UPLOADS.keys())
def test_upload_is_refused_when_it_is(upload: Any) -> None:
    refused("malformed_request", lambda: decision_drafts(upload, CALLER, "v1", KEY))


def test_upload_is_taken_when_it_is_empty() -> None:
    assert decision_drafts([], CALLER, "v1", KEY) == []


STATUS: dict[str, Any] = {
    "labels": {"id": "opa-1"},
    "bundles": {"main": {"name": "main", "active_revision": "r1", "code": "bundle_error", "message": "secret path"}},
    "plugins": {"bundle": {"state": "OK"}},
    "decision_logs": {"code": "decision_log_error"},
    "metrics": {"prometheus": {"go_goroutines": {"value": 7}}},
}


def test_status_becomes_one_record() -> None:
    draft = status_draft(parse(json.dumps(STATUS).encode()), CALLER, "v1", KEY)
    freeze(draft, node="gate-1")
    assert draft.kind == "opa_status"
    assert draft.policy["bundles"] == [{"name": "main", "revision": "r1", "code": "bundle_error"}]
    assert draft.action["plugins"] == [{"name": "bundle", "state": "OK"}]
    assert draft.action["decision_logs"] == "decision_log_error"


@pytest.mark.parametrize("report", [[], "x", {}, {"labels": []}, None])
def test_status_is_refused_when_it_is_no_report(report: Any) -> None:
    refused("malformed_request", lambda: status_draft(report, CALLER, "v1", KEY))


ANY_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=400),
    lambda inner: st.lists(inner, max_size=40) | st.dictionaries(st.text(max_size=300), inner, max_size=40),
    max_leaves=60,
)
NAMES = ["labels", "bundles", "path", "input", "result", "erased", "masked", "requested_by", "revision", "plugins"]


@given(st.dictionaries(st.sampled_from(NAMES), ANY_JSON), ANY_JSON)
def test_record_fits_the_ledger_whatever_the_event_holds(members: dict[str, Any], labels: Any) -> None:
    event = parse(json.dumps({**members, "decision_id": "d"}).encode())
    for draft in decision_drafts([event], CALLER, "v1", KEY):
        freeze(draft, node="gate-1")
    report = parse(json.dumps({**members, "labels": {"x": labels}}).encode())
    freeze(status_draft(report, CALLER, "v1", KEY), node="gate-1")


@pytest.mark.parametrize("text", ["x" * 999, "\x01" * 999, '"' * 999, "\\" * 999, "\U0001f512" * 999, "\ud800" * 999])
def test_record_fits_the_ledger_when_everything_is_as_long_as_can_be(text: str) -> None:
    many = {f"{text}{number}": {"revision": text, "active_revision": text, "code": text} for number in range(99)}
    labels = {f"{number}{text}": text for number in range(99)}
    event = {
        "decision_id": text,
        "labels": labels,
        "bundles": many,
        "plugins": many,
        "erased": [text] * 99,
        "masked": [text] * 99,
        **dict.fromkeys(("path", "timestamp", "requested_by", "revision"), text),
    }
    freeze(decision_drafts([event], CALLER, "v1", KEY)[0], node="gate-1")
    freeze(status_draft(event, CALLER, "v1", KEY), node="gate-1")
