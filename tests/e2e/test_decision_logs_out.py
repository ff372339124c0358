"""Decisions of a real gate at a real collector: all of them, once, whatever happens to either."""

from __future__ import annotations

import urllib.request
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.collectors import Collector, until
from tests.e2e.harness import (
    GateProcess,
    StandIns,
    StartFailed,
    edit_config,
    init_directory,
    point_at_stand_ins,
    read_config,
)
from tests.integration.test_v1 import INCIDENT, INCIDENTS, send


@pytest.fixture
def collector() -> Collector:
    """A collector that does not listen yet."""
    return Collector()


@pytest.fixture
def directory(tmp_path: Path, stand_ins: StandIns, collector: Collector) -> Path:
    """A starter directory whose gate exports to the collector."""
    made = init_directory(tmp_path / "gate")
    point_at_stand_ins(made, stand_ins)
    secret = made / "keys" / "collector.secret"
    secret.write_text(collector.token)
    secret.chmod(0o600)
    with collector.listening():
        edit_config(made, {"decision_logs": [section(collector)]})
    return made


def section(collector: Collector, **changed: Any) -> dict[str, Any]:
    """The configuration of an exporter to the collector."""
    return {
        "name": "siem",
        "tenants": ["acme"],
        "service": collector.url,
        "token": "file:keys/collector.secret",
        "allow_addresses": ["loopback"],
        "labels": {"region": "eu"},
        "delay_seconds": 1,
        "retry_max_seconds": 1,
        "status_seconds": 1,
        **changed,
    }


def scrape(directory: Path) -> str:
    """The gate's metrics."""
    address = read_config(directory)["listen"]["metrics"]
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as answer:
        return str(answer.read().decode())


def read(gate: GateProcess, count: int = 1) -> list[str]:
    """Make so many allowed reads; their decisions."""
    bot = gate.token("bot-77", "triage")
    return [send(gate, "GET", f"{INCIDENTS}/{INCIDENT}", bot).headers["tidegate-decision"] for _ in range(count)]


def test_decisions_and_status_reach_the_collector(directory: Path, collector: Collector) -> None:
    with collector.listening(), GateProcess.start(directory) as gate:
        decided = read(gate, 3)
        denied = send(gate, "DELETE", f"{INCIDENTS}/{INCIDENT}", gate.token("bot-77", "triage"))
        assert denied.code == "denied"
        held = send(
            gate,
            "PATCH",
            f"{INCIDENTS}/{INCIDENT}",
            gate.token("holder", "triage", environment="prod"),
            {"work_notes": "secret words"},
            {"Prefer": "wait=0"},
        )
        assert held.code == "approval_required"
        foreign = gate.token("stranger", "triage", tenant="globex")
        assert send(gate, "GET", f"{INCIDENTS}/{INCIDENT}", foreign).status == 200
        expected = [*decided, denied.body["decision"], held.body["decision"]]
        until(lambda: set(expected) <= set(collector.decisions), "every decision")
        until(lambda: collector.reports, "a status report")
        metrics = scrape(directory)
    assert sorted(collector.decisions) == sorted(expected), "each once, and none of another tenant"
    assert f'tidegate_decision_log_events{{name="siem"}} {float(len(expected))}' in metrics
    assert 'tidegate_decision_log_failing{name="siem"} 0.0' in metrics
    by_id = {event["decision_id"]: event for event in collector.events}
    event = by_id[decided[0]]
    assert event["labels"] | {"id": ""} == {
        "region": "eu",
        "app": "tidegate",
        "id": "",
        "tenant": "acme",
        "workspace": "ops",
    }
    assert event["requested_by"] == "bot-77"
    assert event["result"]["effect"] == "ALLOW"
    assert event["input"]["digest"].startswith("sha256:")
    assert event["bundles"]["main"]["revision"]
    assert by_id[held.body["decision"]]["result"]["effect"] == "REQUIRE_HITL"
    assert "secret words" not in str(collector.events)
    report = collector.reports[0]
    assert report["bundles"]["main"]["active_revision"] == event["bundles"]["main"]["revision"]
    assert report["plugins"]["ledger"] == {"state": "OK"}
    assert set(collector.paths) == {"/opa/logs", "/opa/status"}


def test_nothing_is_lost_when_the_collector_is_down_and_the_gate_dies(directory: Path, collector: Collector) -> None:
    gate = GateProcess.spawn(directory)
    try:
        decided = read(gate, 5)
    finally:
        gate.kill()
    with GateProcess.start(directory) as again:
        decided += read(again, 2)
        collector.answers = [500, 503, 429]
        with collector.listening():
            until(lambda: set(decided) <= set(collector.decisions), "what was decided while it was down")
    assert sorted(collector.decisions) == sorted(decided)


def test_calls_are_answered_when_the_collector_never_is(directory: Path, collector: Collector) -> None:
    with GateProcess.start(directory) as gate:
        assert len(read(gate, 10)) == 10
        until(lambda: "decision_log_failed" in gate.log.read_text(), "a line in the log")
        lines = [line for line in gate.log.read_text().splitlines() if "decision_log_failed" in line]
        assert all(collector.token not in line for line in lines)
        edit_config(directory, {"decision_logs": []})
        assert not gate.reload(), "the section takes effect at a start"
    assert collector.decisions == []


def test_uploads_become_smaller_when_the_collector_finds_them_too_large(directory: Path, collector: Collector) -> None:
    collector.max_bytes = 4096
    edit_config(directory, {"decision_logs": [section(collector, upload_max_bytes=16_384)]})
    with collector.listening(), GateProcess.start(directory) as gate:
        decided = read(gate, 60)
        until(lambda: set(decided) <= set(collector.decisions), "every decision")


def test_masks_hide_what_they_name(directory: Path, collector: Collector) -> None:
    mask = [
        {"path": "/requested_by"},
        {"path": "/input/subject/id", "op": "upsert", "value": "**"},
    ]
    edit_config(directory, {"decision_logs": [section(collector, mask=mask, partition="eu")]})
    with collector.listening(), GateProcess.start(directory) as gate:
        (decision,) = read(gate)
        until(lambda: decision in collector.decisions, "the decision")
    (event,) = collector.events
    assert "bot-77" not in str(event)
    assert "/requested_by" in event["erased"]
    assert event["masked"] == ["/input/subject/id"]
    assert "/opa/logs/eu" in collector.paths


def test_everything_is_erased_when_a_mask_fails(directory: Path, collector: Collector) -> None:
    edit_config(directory, {"decision_logs": [section(collector, mask=[{"path": "/requested_by/name"}])]})
    with collector.listening(), GateProcess.start(directory) as gate:
        (decision,) = read(gate)
        until(lambda: decision in collector.decisions, "the decision")
    (event,) = collector.events
    assert event["erased"] == ["/"]
    assert "bot-77" not in str(event)
    assert "input" not in event


def test_gate_does_not_start_when_a_collectors_token_cannot_be_read(directory: Path) -> None:
    (directory / "keys" / "collector.secret").unlink()
    with pytest.raises(StartFailed, match="secret_missing"):
        GateProcess.spawn(directory)


@pytest.mark.parametrize(
    "changed",
    [{"token": "inline-secret"}, {"service": "http://collector.example"}, {"allow_addresses": ["nowhere"]}],
    ids=["an inline secret", "an address without TLS", "an unknown class of addresses"],
)
def test_gate_does_not_start_when_the_section_has(
    directory: Path, collector: Collector, changed: dict[str, Any]
) -> None:
    edit_config(directory, {"decision_logs": [section(collector, **changed)]})
    with pytest.raises(StartFailed) as failed:
        GateProcess.spawn(directory)
    assert "inline-secret" not in str(failed.value)
