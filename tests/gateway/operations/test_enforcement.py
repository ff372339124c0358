"""What is enforced, as operators see it: the lease, the source, the last error; and the same as metrics."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry

from bundles.client_protocol import ClientStatus, Transfer
from cli.init import starter_config
from gateway.config import Document, load_config
from gateway.operations.bundle_metrics import BundleMetrics
from gateway.operations.enforcement import BundleState, InForce, enforcement
from tests.bundles.parts import good_bundle, verified

GOOD = ClientStatus(
    remaining_seconds=412.3456,
    issued_at=1_800_000_000,
    expires_at=1_800_000_600,
    asked_at=1_800_000_100.25,
    answered_at=1_800_000_100.5,
    failures=0,
    error_code=None,
    error_detail=None,
    error_at=None,
)
FAILING = ClientStatus(0.0, None, None, 1_800_000_100.0, None, 3, "freshness_missing", "304 came bare", 1_800_000_100.0)


def document(**changes: Any) -> Document:
    """The starter configuration with a changed bundle."""
    starter = starter_config()
    return load_config(
        yaml.safe_dump({**starter, "bundles": [{**starter["bundles"][0], **changes}]}), Path("/base"), {}
    ).document


def followed() -> Document:
    keys = [{"keyid": "freshness", "algorithm": "ES256", "key": "file:f.pem"}]
    return document(freshness="signed", source="https://b.example/bundles/main", freshness_keys=keys)


def shown(status: ClientStatus | None, configured: Document) -> dict[str, Any]:
    """The one bundle of the answer."""
    state = BundleState(verified(good_bundle()), configured.bundles[0], status)
    answer: dict[str, Any] = enforcement(InForce((state,), "wasm"), {}, ())
    (bundle,) = answer["bundles"]
    return dict(bundle)


def test_enforcement_shows_lease_and_source_when_a_service_is_followed() -> None:
    bundle = shown(GOOD, followed())
    assert (bundle["lease_remaining_seconds"], bundle["sequence"], bundle["epoch"]) == (412.346, 7, 0)
    assert bundle["source"] == {
        "url": "https://b.example/bundles/main",
        "stated_at": "2027-01-15T08:00:00.000+00:00",
        "asked_at": "2027-01-15T08:01:40.250+00:00",
        "answered_at": "2027-01-15T08:01:40.500+00:00",
        "failures": 0,
        "last_error": None,
        "last_transfer": None,
        "deltas_refused": 0,
        "last_delta_refusal": None,
    }
    assert bundle["note"] is None


def test_enforcement_shows_how_the_bundle_came_when_it_came_from_a_service() -> None:
    status = replace(GOOD, transfer=Transfer("delta", 2_345), deltas_refused=1, delta_refusal="delta_expired")
    source = shown(status, followed())["source"]
    assert source["last_transfer"] == {"kind": "delta", "bytes": 2_345}
    assert (source["deltas_refused"], source["last_delta_refusal"]) == (1, "delta_expired")


def test_enforcement_shows_the_last_error_when_the_service_fails() -> None:
    bundle = shown(FAILING, followed())
    assert bundle["lease_remaining_seconds"] == 0.0
    assert bundle["source"]["last_error"] == {
        "code": "freshness_missing",
        "detail": "304 came bare",
        "at": "2027-01-15T08:01:40.000+00:00",
    }
    assert bundle["source"]["failures"] == 3


def test_enforcement_shows_only_the_address_when_nobody_has_asked_yet() -> None:
    assert shown(None, followed())["source"] == {"url": "https://b.example/bundles/main"}


def test_enforcement_says_that_no_lease_is_asked_for_when_the_source_is_a_file() -> None:
    bundle = shown(None, document())
    assert (bundle["lease_remaining_seconds"], bundle["source"]) == (None, None)
    assert bundle["note"] == "development: no freshness lease is asked for"


def test_enforcement_lists_no_bundle_when_none_is_in_force() -> None:
    answer = enforcement(InForce((), None), {}, ())
    assert (answer["bundles"], answer["engines"]) == ([], [])


def test_enforcement_shows_the_roots_of_a_bundle_when_it_carries_data_only() -> None:
    configured = document().bundles[0].model_copy(update={"data_only": True, "roots": ["oncall"]})
    full = BundleState(verified(good_bundle()), document().bundles[0])
    answer: dict[str, Any] = enforcement(InForce((full, BundleState(full.bundle, configured)), "wasm"), {}, ())
    assert [bundle["roots"] for bundle in answer["bundles"]] == [None, ["oncall"]]


STATUSES = {
    "one holds": ((GOOD,), 412.3456, 0, 1_800_000_100.5),
    "one fails": ((FAILING,), 0, 3, 0),
    "one of two fails": ((GOOD, FAILING), 0, 3, 0),
    "there is none": ((), 0, 0, 0),
}


@pytest.mark.parametrize("case", STATUSES)
def test_bundle_metrics_show_the_worst_when(case: str) -> None:
    statuses, remaining, failures, answered = STATUSES[case]
    registry = CollectorRegistry()
    metrics = BundleMetrics(registry, lambda: statuses)
    metrics.count_refused("bundle_rollback")
    assert registry.get_sample_value("tidegate_bundle_lease_remaining_seconds") == remaining
    assert registry.get_sample_value("tidegate_bundle_failures") == failures
    assert registry.get_sample_value("tidegate_bundle_answered_timestamp_seconds") == answered
    assert registry.get_sample_value("tidegate_bundle_refused_total", {"code": "bundle_rollback"}) == 1


def test_bundle_metrics_show_the_bytes_of_the_last_transfers_by_kind() -> None:
    registry = CollectorRegistry()
    whole, delta = replace(GOOD, transfer=Transfer("whole", 90_000)), replace(GOOD, transfer=Transfer("delta", 700))
    BundleMetrics(registry, lambda: (GOOD, whole, delta, delta))
    name = "tidegate_bundle_last_transfer_bytes"
    assert registry.get_sample_value(name, {"kind": "whole"}) == 90_000
    assert registry.get_sample_value(name, {"kind": "delta"}) == 1_400
