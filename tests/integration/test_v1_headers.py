"""Headers of `POST /v1/calls` and `/c/`: read alike, answered alike, and the status that was sent is the one that is logged."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from gateway.config import load_config
from gateway.flow.prepare import HEADER_MAX_CHARACTERS
from gateway.store.keyfile import read_key_file
from gateway.store.offline_inputs_driver import OfflineInputs
from gateway.store.sealing import TenantKeys
from tests.e2e.calling import until
from tests.e2e.harness import (
    GateProcess,
    StandIns,
    child_environment,
    edit_config,
    init_directory,
    point_at_stand_ins,
)
from tests.integration.test_v1 import INCIDENT, INCIDENTS, Answered, send

PATCH = f"{INCIDENTS}/{INCIDENT}"
READ = {"instance": "servicenow", "action": "incident.list", "arguments": {"sysparm_limit": 1}}


@pytest.fixture(scope="module")
def gate(tmp_path_factory: pytest.TempPathFactory, stand_ins: StandIns) -> Iterator[GateProcess]:
    """A gate that keeps what policy was asked."""
    directory = init_directory(tmp_path_factory.mktemp("gate") / "gate")
    point_at_stand_ins(directory, stand_ins)
    edit_config(directory, {"records": {"inputs_keep_seconds": 600}})
    with GateProcess.start(directory) as running:
        yield running


def _held(gate: GateProcess, path: str, note: str, headers: dict[str, str]) -> Answered:
    """A write that is held, asked for at either place."""
    bot = gate.token("header-bot", "triage", environment="prod")
    if path == "/v1/calls":
        arguments = {"sys_id": INCIDENT, "work_notes": note}
        body: Any = {"instance": "servicenow", "action": "incident.update", "arguments": arguments}
        return send(gate, "POST", path, bot, body, headers)
    return send(gate, "PATCH", PATCH, bot, {"work_notes": note}, headers)


def _logged(gate: GateProcess, call: str) -> dict[str, Any]:
    """The log line of a call."""

    def line() -> dict[str, Any] | None:
        lines = gate.log.read_text(encoding="utf-8").splitlines()
        found = [json.loads(each) for each in lines if f'"call":"{call}"' in each and each.endswith("}")]
        return found[0] if found else None

    return until("the call is logged", line)


@pytest.mark.parametrize("path", ["/v1/calls", "/c/"])
@pytest.mark.parametrize("preference", ["respond-async", "wait=0"])
def test_answer_names_the_preference_it_followed_and_its_status_is_logged(
    gate: GateProcess, path: str, preference: str
) -> None:
    answered = _held(gate, path, f"{path} {preference}", {"Prefer": preference})
    assert answered.headers["preference-applied"] == preference
    assert answered.status == (403 if (path, preference) == ("/c/", "wait=0") else 202), answered.body
    assert _logged(gate, answered.headers["tidegate-call"])["status"] == answered.status


def test_answer_names_no_preference_when_there_was_none(gate: GateProcess) -> None:
    assert "preference-applied" not in _held(gate, "/v1/calls", "none", {}).headers


@pytest.mark.parametrize("path", ["/v1/calls", "/c/"])
@pytest.mark.parametrize("name", ["Tidegate-Reason", "Tidegate-Ticket", "Tidegate-Run"])
def test_call_is_refused_when_a_header_is_too_long(gate: GateProcess, path: str, name: str) -> None:
    answered = _held(gate, path, name, {name: "x" * (HEADER_MAX_CHARACTERS + 1)})
    assert (answered.status, answered.code) == (400, "malformed_request")
    assert name.lower() in answered.body["detail"]


@pytest.mark.parametrize(
    ("member", "header", "shown"),
    [
        pytest.param(None, "CHG1", "CHG1", id="the header"),
        pytest.param("CHG2", "CHG1", "CHG2", id="the member before the header"),
        pytest.param("CHG2", None, "CHG2", id="the member"),
    ],
)
def test_policy_is_shown_the_ticket_of_a_call(
    gate: GateProcess, member: str | None, header: str | None, shown: str
) -> None:
    body = READ | ({"ticket": member} if member else {})
    headers = {"Tidegate-Ticket": header, "Tidegate-Run": "run-7"} if header else {}
    done = send(gate, "POST", "/v1/calls", gate.token("ticket-bot", "triage"), body, headers)
    assert done.status == 200, done.body
    config = load_config(gate.config.read_text(encoding="utf-8"), gate.directory, child_environment())
    keys = TenantKeys(read_key_file(config.file(config.document.ledger.hmac)))

    def kept() -> dict[str, Any] | None:
        with OfflineInputs(config.store_path, keys, 0) as inputs:
            found = inputs.of_call(done.body["id"])
        return json.loads(found.document)["context"] if found is not None else None

    context = until("the input is kept", kept)
    assert context["ticket"] == shown
    assert header is None or context["run"]["id"] == "run-7"
