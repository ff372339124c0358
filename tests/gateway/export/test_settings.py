"""The section `decision_logs`: what it refuses, and the waits and reports made from it."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from gateway.export.settings import DecisionLog, check_decision_logs
from gateway.export.status import ReportedBundle, retry_seconds, status_document

GOOD: dict[str, Any] = {"name": "siem", "tenants": ["acme"], "service": "https://collector.example/opa/"}

REFUSED: dict[str, dict[str, Any]] = {
    "a name with a slash": {"name": "../siem"},
    "no tenants": {"tenants": []},
    "an address without TLS": {"service": "http://collector.example"},
    "an address with a secret": {"service": "https://user:secret@collector.example"},
    "an address with a query": {"service": "https://collector.example/?a=b"},
    "an address with a fragment": {"service": "https://collector.example/#x"},
    "an address of another kind": {"service": "ftp://collector.example"},
    "port 0": {"service": "https://collector.example:0"},
    "a token inline": {"token": "secret"},
    "a partition with a slash": {"partition": "a/b"},
    "a partition that climbs": {"partition": ".."},
    "an upload below the least": {"upload_max_bytes": 4095},
    "no wait at all": {"delay_seconds": 0},
    "an unknown key": {"buffer_type": "event"},
    "a mask without a slash": {"mask": [{"path": "input"}]},
    "a mask of everything": {"mask": [{"path": "/"}]},
    "a mask with an empty step": {"mask": [{"path": "/input//x"}]},
    "a mask with a broken escape": {"mask": [{"path": "/input/a~2b"}]},
    "a mask of the decision's id": {"mask": [{"path": "/decision_id"}]},
    "a mask inside of labels": {"mask": [{"path": "/labels/tenant"}]},
    "a mask of the list of erasures": {"mask": [{"path": "/erased/0"}]},
    "a mask that removes and has a value": {"mask": [{"path": "/input", "value": 1}]},
    "a mask of another kind": {"mask": [{"path": "/input", "op": "hash"}]},
    "65 masks": {"mask": [{"path": "/input"}] * 65},
}


@pytest.mark.parametrize("changed", REFUSED.values(), ids=REFUSED.keys())
def test_section_is_refused_when_it_has(changed: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        DecisionLog.model_validate({**GOOD, **changed})


def test_section_is_taken_with_its_defaults() -> None:
    taken = DecisionLog.model_validate(GOOD)
    assert taken.service == "https://collector.example/opa"
    assert (taken.upload_max_bytes, taken.delay_seconds, taken.status_seconds) == (32_768, 5, 60)


@pytest.mark.parametrize("service", ["http://127.0.0.1:9000", "http://localhost:9000/x", "http://[::1]:9000"])
def test_section_is_taken_without_tls_on_this_machine(service: str) -> None:
    assert DecisionLog.model_validate({**GOOD, "service": service}).service == service


@pytest.mark.parametrize(
    ("failures", "asked_for", "expected"),
    [(1, None, 1.0), (2, None, 2.0), (5, None, 16.0), (12, None, 300.0), (9999, None, 300.0), (1, 30.0, 30.0)],
)
def test_wait_grows_with_failures_up_to_its_bound(failures: int, asked_for: float | None, expected: float) -> None:
    assert retry_seconds(failures, 300.0, 1.0, asked_for) == expected
    assert retry_seconds(failures, 300.0, 0.0, asked_for) in (expected / 2, expected)


@pytest.mark.parametrize(("asked_for", "expected"), [(0.0, 1.0), (999_999.0, 300.0)])
def test_wait_is_bounded_when_the_collector_asks_for(asked_for: float, expected: float) -> None:
    assert retry_seconds(1, 300.0, 0.5, asked_for) == expected


def test_status_names_bundle_and_faults() -> None:
    state = ReportedBundle("main", "r1", 1_768_386_600.0, None, None, "bundle_stale", "too old")
    report = status_document({"id": "gate-1"}, [state], healthy=False, fault="collector_unreachable")
    assert report["bundles"]["main"]["active_revision"] == "r1"
    assert report["bundles"]["main"]["last_successful_activation"] == "2026-01-14T10:30:00.000Z"
    assert report["bundles"]["main"]["last_successful_request"] == "0001-01-01T00:00:00Z"
    assert (report["bundles"]["main"]["code"], report["bundles"]["main"]["message"]) == ("bundle_stale", "too old")
    assert report["decision_logs"]["message"] == "collector_unreachable"
    assert {name: plugin["state"] for name, plugin in report["plugins"].items()} == {
        "bundle": "OK",
        "decision_logs": "WARN",
        "ledger": "ERROR",
    }


def test_status_is_not_ready_when_no_bundle_is_in_force() -> None:
    report = status_document({}, (), healthy=True, fault="")
    assert report["plugins"]["bundle"] == {"state": "NOT_READY"}
    assert report["decision_logs"] == {}


def test_sections_are_refused_when_two_have_one_name() -> None:
    twice = [DecisionLog.model_validate(GOOD), DecisionLog.model_validate(GOOD)]
    with pytest.raises(ValueError, match="named twice"):
        check_decision_logs(twice, development=True)


def test_section_of_every_tenant_is_refused_without_a_development_issuer() -> None:
    everybody = [DecisionLog.model_validate({**GOOD, "tenants": ["*"]})]
    check_decision_logs(everybody, development=True)
    with pytest.raises(ValueError, match="development issuer"):
        check_decision_logs(everybody, development=False)
