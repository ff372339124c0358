"""One code in every place: the answer, the ledger's record, the log line and the metric of a refused call agree.

A refusal before anybody is identified writes no record (page 12, rule 26).
"""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from gateway.edge.problem import CODES
from tests.e2e.calling import JSON_TYPE, LIST, call, recorded, until
from tests.e2e.harness import GateProcess, edit_config, free_port, init_directory, read_config
from tests.e2e.raw import Answer

DEEP: object = {"a": {"a": {"a": {}}}}


@pytest.fixture(scope="module")
def lonely(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GateProcess]:
    """A gate of its own, in front of services that are not there."""
    directory = init_directory(tmp_path_factory.mktemp("lonely") / "gate")
    nowhere = {"base_url": f"http://127.0.0.1:{free_port()}"}
    metadata = {"base_url": "http://169.254.169.254"}
    edit_config(directory, {"instances": {"servicenow": nowhere, "webhook": nowhere, "github": metadata}})
    with GateProcess.start(directory) as running:
        yield running


REFUSED = [
    pytest.param("denied", "DELETE", f"{LIST}/a1", None, "operator", id="a rule denies"),
    pytest.param("denied", "GET", LIST, None, "auditor", id="no rule matches"),
    pytest.param("unclassified", "GET", "/c/servicenow/api/now/table/x", None, "triage", id="no action matches"),
    pytest.param("arguments_invalid", "PATCH", f"{LIST}/a1", {"odd": 1}, "triage", id="the schema refuses"),
    pytest.param("arguments_invalid", "PATCH", f"{LIST}/a1", [DEEP], "triage", id="the body is no object"),
    pytest.param("upstream_failed", "GET", LIST, None, "triage", id="the service is not there for a read"),
    pytest.param("upstream_failed", "PATCH", f"{LIST}/a1", {"state": "2"}, "triage", id="nor for a write"),
    pytest.param("egress_forbidden", "GET", "/c/github/repos/a/b", None, "developer", id="the address is metadata"),
]


def _problem(answer: Answer, code: str) -> None:
    """The parts that every problem document has (RFC 9457)."""
    document, kind = answer.json(), CODES[code]
    assert (answer.status, answer.code) == (kind.status, code)
    assert document["type"] == "urn:tidegate:problem:" + code.replace("_", "-")
    assert (document["title"], document["status"]) == (kind.title, kind.status)
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-should-retry"] == "false"


def _line(gate: GateProcess, named: str) -> dict[str, Any] | None:
    for text in gate.log.read_text(encoding="utf-8").splitlines():
        if named in text and text.endswith("}"):
            line: dict[str, Any] = json.loads(text)
            return line
    return None


def _metrics(gate: GateProcess) -> dict[str, float]:
    address = read_config(gate.directory)["listen"]["metrics"]
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as answer:
        lines = [line for line in answer.read().decode().splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}


def _counted(gate: GateProcess, family: str, code: str) -> float:
    label = f'code="{code}"'
    return sum(value for name, value in _metrics(gate).items() if name.startswith(family + "{") and label in name)


@pytest.mark.parametrize(("code", "method", "target", "body", "role"), REFUSED)
def test_refusal_has_one_code_everywhere_when_its_caller_is_known(
    lonely: GateProcess, code: str, method: str, target: str, body: object, role: str
) -> None:
    token = lonely.token("somebody", role)
    before = _counted(lonely, "tidegate_calls_total", code)
    answer = call(lonely, method, target, body, token=token)
    _problem(answer, code)
    named = answer.headers["tidegate-call"]
    assert answer.json()["call"] == named
    last = recorded(lonely, answer)[-1]
    assert (last["action"]["code"], last["subject"]["id"]) == (code, "somebody")
    line = until("the call is logged", lambda: _line(lonely, named))
    assert (line["code"], line["status"], line["subject"]) == (code, CODES[code].status, "somebody")
    assert _counted(lonely, "tidegate_calls_total", code) == before + 1


UNKNOWN = [
    pytest.param("identity_invalid", {"Authorization": "Bearer not.a.token"}, id="a token that is none"),
    pytest.param("malformed_request", {"X-HTTP-Method-Override": "GET"}, id="a method override"),
]


@pytest.mark.parametrize(("code", "headers"), UNKNOWN)
def test_refusal_is_counted_and_not_recorded_when_its_caller_is_unknown(
    lonely: GateProcess, code: str, headers: dict[str, str]
) -> None:
    before = _counted(lonely, "tidegate_unauthenticated_total", code)
    answer = call(lonely, "PATCH", f"{LIST}/a1", {"state": "2"}, headers={**JSON_TYPE, **headers})
    _problem(answer, code)
    assert recorded(lonely, answer) == []
    assert _counted(lonely, "tidegate_unauthenticated_total", code) == before + 1
