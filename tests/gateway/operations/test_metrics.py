"""Metrics, log lines: bounded, and never in the way of a call."""

from __future__ import annotations

import io
import json
import threading

from gateway.operations.log import QUEUE_MAX_LINES, LineLog
from gateway.operations.metrics import TENANTS_MAX, Metrics


def test_metrics_label_is_other_when_the_bundle_does_not_know_it() -> None:
    metrics = Metrics()
    metrics.bound_labels(["desk", "desk.item.list"])
    metrics.count_call(("acme", "desk", "desk.item.list", "ALLOW", "ok"))
    metrics.count_call(("acme", "made-up", "anything", "", "unclassified"))
    text = metrics.exposition().decode()
    assert 'action="desk.item.list",code="ok",connector="desk"' in text
    assert "made-up" not in text
    assert 'connector="other"' in text


def test_metrics_tenant_is_other_when_there_are_too_many() -> None:
    metrics = Metrics()
    for number in range(TENANTS_MAX + 1):
        metrics.count_call((f"t{number}", "", "", "", "ok"))
    text = metrics.exposition().decode()
    assert f'tenant="t{TENANTS_MAX - 1}"' in text
    assert f'tenant="t{TENANTS_MAX}"' not in text


def test_metrics_observe_stages_and_decisions() -> None:
    metrics = Metrics()
    metrics.observe_stage("total", 0.2)
    metrics.observe_decision("wasm", 0.00002)
    text = metrics.exposition().decode()
    assert 'tidegate_call_seconds_count{stage="total"} 1.0' in text
    assert 'tidegate_pdp_decision_seconds_count{cache="off",engine="wasm"} 1.0' in text


class _Blocked(io.BytesIO):
    """A stream whose reader does not read until told."""

    def __init__(self) -> None:
        super().__init__()
        self.entered = threading.Event()
        self.go = threading.Event()

    def write(self, data: object, /) -> int:
        self.entered.set()
        self.go.wait(10)
        return super().write(data)  # type: ignore[arg-type]


def test_log_writes_one_json_object_a_line() -> None:
    stream = io.BytesIO()
    log = LineLog(stream)
    log.line("call", {"code": "ok", "text": "a\nb"})
    log.close()
    assert json.loads(stream.getvalue().splitlines()[0]) == {"event": "call", "code": "ok", "text": "a\nb"}


def test_log_drops_and_counts_lines_when_nobody_reads() -> None:
    stream = _Blocked()
    log = LineLog(stream)
    log.line("call", {"n": 0})
    stream.entered.wait(10)
    for number in range(QUEUE_MAX_LINES + 5):
        log.line("call", {"n": number})
    stream.go.set()
    log.close()
    log.line("call", {})
    assert stream.getvalue().count(b"\n") == QUEUE_MAX_LINES + 1
