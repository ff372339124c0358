"""`tidegate switch set`: what it says of a switch that stops something, and of one that does not."""

from __future__ import annotations

import json

from tests.e2e.harness import GateProcess, tidegate


def test_switch_warns_when_no_action_is_called_so(gate: GateProcess) -> None:
    operator = gate.token("op", "operator", tenant="globex")
    scope = "tenant/globex/action/servicenow.incident.lst"
    said = tidegate("switch", "set", scope, "--reason", "r", gate=gate.url, token=operator)
    assert said.returncode == 0, said.stderr
    assert "are stopped" not in said.stdout
    assert "did you mean servicenow.incident.list?" in said.stdout
    done = tidegate("switch", "set", scope, "--reason", "r", "--json", gate=gate.url, token=operator)
    assert "stops nothing now" in json.loads(done.stdout)["warning"]
    assert tidegate("switch", "clear", scope, gate=gate.url, token=operator).returncode == 0


def test_switch_says_what_it_stops_when_there_is_such_an_action(gate: GateProcess) -> None:
    operator = gate.token("op", "operator", tenant="globex")
    scope = "tenant/globex/action/servicenow.incident.list"
    said = tidegate("switch", "set", scope, "--reason", "r", gate=gate.url, token=operator)
    assert said.stdout.strip() == f"calls of {scope} are stopped"
    assert tidegate("switch", "clear", scope, gate=gate.url, token=operator).returncode == 0
