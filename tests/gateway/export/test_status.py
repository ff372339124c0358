"""Status reports and pauses after failures, value by value."""

from __future__ import annotations

import pytest

from gateway.export.status import FIRST_RETRY_SECONDS, ReportedBundle, retry_seconds, status_document

NEVER = "0001-01-01T00:00:00Z"
LONGEST = 300.0
GOOD = ReportedBundle("main", "r7", 1_800_000_000.0, 1_800_000_060.0, 1_800_000_061.0)


def test_report_says_when_each_bundle_came_and_was_asked_for() -> None:
    report = status_document({"id": "g1"}, [GOOD], healthy=True, fault="")
    assert report["labels"] == {"id": "g1"}
    assert report["bundles"]["main"] == {
        "name": "main",
        "active_revision": "r7",
        "last_successful_activation": "2027-01-15T08:00:00.000Z",
        "last_successful_download": "2027-01-15T08:01:00.000Z",
        "last_successful_request": "2027-01-15T08:01:00.000Z",
        "last_request": "2027-01-15T08:01:01.000Z",
    }
    assert report["decision_logs"] == {}
    assert {name: plugin["state"] for name, plugin in report["plugins"].items()} == {
        "bundle": "OK",
        "decision_logs": "OK",
        "ledger": "OK",
    }


@pytest.mark.parametrize("detail", [None, "no answer"], ids=["without words", "with words"])
def test_report_says_what_went_wrong_with_a_bundle(detail: str | None) -> None:
    failing = ReportedBundle("main", error_code="bundle_unavailable", error_detail=detail)
    shown = status_document({}, [GOOD._replace(name="data"), failing], healthy=True, fault="")["bundles"]
    assert (shown["main"]["code"], shown["main"]["message"]) == ("bundle_unavailable", detail or "")
    assert shown["main"]["last_request"] == NEVER
    assert "code" not in shown["data"]


def test_report_says_what_does_not_work_when_there_is_no_bundle_and_no_ledger() -> None:
    report = status_document({}, [], healthy=False, fault="collector_status_413")
    assert report["decision_logs"] == {"code": "decision_log_error", "message": "collector_status_413"}
    assert {name: plugin["state"] for name, plugin in report["plugins"].items()} == {
        "bundle": "NOT_READY",
        "decision_logs": "WARN",
        "ledger": "ERROR",
    }


@pytest.mark.parametrize(
    ("failures", "chance", "seconds"),
    [(0, 1.0, 1.0), (1, 0.0, 0.5), (1, 1.0, 1.0), (2, 1.0, 2.0), (5, 0.0, 8.0), (9, 1.0, 256.0), (10, 1.0, LONGEST)],
)
def test_pause_doubles_and_spreads(failures: int, chance: float, seconds: float) -> None:
    assert retry_seconds(failures, LONGEST, chance) == seconds


def test_pause_ends_at_the_longest_when_there_are_failures_without_end() -> None:
    assert retry_seconds(10**6, LONGEST, 1.0) == LONGEST


@pytest.mark.parametrize(
    ("asked_for", "seconds"),
    [(0.0, FIRST_RETRY_SECONDS), (-5.0, FIRST_RETRY_SECONDS), (7.0, 7.0), (LONGEST, LONGEST), (1e9, LONGEST)],
)
def test_pause_is_the_collectors_within_bounds_when_it_asks_for_one(asked_for: float, seconds: float) -> None:
    assert retry_seconds(3, LONGEST, 0.0, asked_for) == seconds
