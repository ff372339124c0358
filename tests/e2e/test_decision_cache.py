"""A permission that is given again: said in the record, the log line and the metric; refused where policy reads a clock."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.harness import GateProcess, StandIns, init_directory, point_at_stand_ins, read_config, tidegate
from tests.e2e.rulebook import add_rules
from tests.integration.test_v1 import INCIDENT, INCIDENTS, send

CACHE = '\ncache contains {"seconds": 300} if input.subject.id in {"keeper", "other"}\n'
CLOCK = '\ndeny contains "never on such a day" if input.context.clock.weekday == "Caturday"\n'


@pytest.fixture
def directory(tmp_path: Path, stand_ins: StandIns) -> Path:
    """A starter directory in front of the stand-ins."""
    made = init_directory(tmp_path / "gate")
    point_at_stand_ins(made, stand_ins)
    return made


def lines(gate: GateProcess) -> dict[str, dict[str, Any]]:
    """The log's line of each call."""
    parsed = [json.loads(line) for line in gate.log.read_text().splitlines() if line.startswith('{"event":"call"')]
    return {line["call"]: line for line in parsed}


def test_decision_is_given_again_and_said_so_when_policy_asks_for_it(directory: Path) -> None:
    add_rules(directory, "servicenow", CACHE)
    with GateProcess.start(directory) as gate:
        bot, other = gate.token("keeper", "triage"), gate.token("other", "triage")
        calls = [send(gate, "GET", f"{INCIDENTS}/{INCIDENT}", token).headers for token in (bot, bot, other)]
        denied = [send(gate, "DELETE", f"{INCIDENTS}/{INCIDENT}", bot).code for _ in range(2)]
        assert denied == ["denied", "denied"]
        address = read_config(directory)["listen"]["metrics"]
        with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as answer:
            metrics = answer.read().decode()
        tail = tidegate("ledger", "tail", "--config", str(gate.config), "-n", "100", "--json")
    assert 'tidegate_pdp_decision_seconds_count{cache="hit",engine="wasm"} 1.0' in metrics
    assert len({headers["tidegate-decision"] for headers in calls}) == 3
    said = [lines(gate)[headers["tidegate-call"]].get("cached", False) for headers in calls]
    assert said == [False, True, False]
    assert tail.stdout.count('"cached"') == 1


def test_gate_denies_when_a_policy_that_reads_the_clock_asks_for_caching(directory: Path) -> None:
    add_rules(directory, "servicenow", CACHE + CLOCK)
    with GateProcess.start(directory) as gate:
        refused = send(gate, "GET", f"{INCIDENTS}/{INCIDENT}", gate.token("keeper", "triage"))
    assert refused.code == "denied"
    assert refused.body["reasons"][0]["code"] == "decision_malformed"
