"""How many series there may be, and what is said of instances that no policy covers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from gateway.operations.enforcement import BundleState, InForce, enforcement
from gateway.operations.metrics import SERIES_MAX, Metrics
from tests.bundles.parts import good_bundle, verified
from tests.gateway.flow.playbook import SUBJECT, plan
from tests.gateway.operations.test_enforcement import document

PLANS = {"desk": plan()}


def test_metrics_count_every_call_when_more_labels_come_than_are_remembered() -> None:
    metrics = Metrics()
    for number in range(SERIES_MAX + 2):
        metrics.count_call(("acme", "desk", f"made-up-{number}", "", "unclassified"))
    metrics.count_call(("acme", "desk", f"made-up-{SERIES_MAX + 1}", "", "unclassified"))
    series = [line for line in metrics.exposition().decode().splitlines() if line.startswith("tidegate_calls_total{")]
    assert len(series) == 1 and 'action="other"' in series[0]
    assert float(series[0].rpartition(" ")[2]) == SERIES_MAX + 3


def _uncovered(in_force: InForce, **options: Any) -> object:
    return enforcement(in_force, PLANS, (), **options)["uncovered_instances"]


def test_enforcement_covers_no_instance_when_no_bundle_is_in_force() -> None:
    answer = enforcement(InForce((), None), PLANS, ())
    assert (answer["uncovered_instances"], answer["bundles"], answer["engines"]) == (["desk"], [], [])


def test_enforcement_covers_an_instance_only_when_the_bundle_has_a_package_of_its_connector() -> None:
    bundle, configured = verified(good_bundle()), document().bundles[0]
    for path, uncovered in (
        ("policies/desk/x.rego", []),
        ("policies/desktop/x.rego", ["desk"]),
        ("lib/tidegate/x.rego", ["desk"]),
    ):
        state = BundleState(replace(bundle, rego={path: b""}), configured)
        assert _uncovered(InForce((state,), "wasm")) == uncovered


def test_enforcement_shows_no_instance_when_the_caller_may_use_none() -> None:
    foreign = {"desk": plan(tenants=("other",))}
    answer = enforcement(InForce((), None), foreign, (), SUBJECT)
    assert (answer["instances"], answer["uncovered_instances"]) == ([], [])


def test_metrics_add_up_when_the_same_thing_is_counted_again() -> None:
    metrics = Metrics()
    metrics.bound_labels(["desk", "desk.item.list"])
    for seconds in (0.2, 0.3):
        metrics.count_call(("acme", "desk", "desk.item.list", "ALLOW", "ok"))
        metrics.observe_stage("total", seconds)
        metrics.observe_decision("wasm", seconds)
        metrics.observe_append(seconds)
    text = metrics.exposition().decode()
    assert (
        'tidegate_calls_total{action="desk.item.list",code="ok",connector="desk",effect="ALLOW",tenant="acme"} 2.0'
        in text
    )
    assert 'tidegate_call_seconds_count{stage="total"} 2.0' in text
    assert 'tidegate_call_seconds_sum{stage="total"} 0.5' in text
    assert 'tidegate_pdp_decision_seconds_count{cache="off",engine="wasm"} 2.0' in text


def test_metrics_tell_kept_decisions_from_asked_ones() -> None:
    metrics = Metrics()
    metrics.observe_decision("wasm", 0.1, cached=True)
    metrics.observe_decision("wasm", 0.1, cached=False)
    metrics.observe_decision("wasm", 0.1)
    text = metrics.exposition().decode()
    assert 'tidegate_pdp_decision_seconds_count{cache="hit",engine="wasm"} 1.0' in text
    assert 'tidegate_pdp_decision_seconds_count{cache="miss",engine="wasm"} 1.0' in text
    assert 'tidegate_pdp_decision_seconds_count{cache="off",engine="wasm"} 1.0' in text
