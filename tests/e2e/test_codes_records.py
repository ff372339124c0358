"""One code in every place: the answer, the ledger's record, the log line and the metric of a refused call agree.

A refusal before anybody is identified writes no record (security rule 26).
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from gateway.edge.problem import CODES
from tests.e2e.calling import JSON_TYPE, LIST, call, counted, logged, recorded, until
from tests.e2e.harness import GateProcess, edit_config, free_port, init_directory
from tests.e2e.raw import Answer

DELETE, QUERY, UPDATE = (f"servicenow.incident.{verb}" for verb in ("delete", "list", "update"))
LARGE = {"work_notes": "x" * (2 << 20)}
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
    pytest.param("denied", "DELETE", f"{LIST}/a1", None, "operator", DELETE, id="a rule denies"),
    pytest.param("denied", "GET", LIST, None, "auditor", QUERY, id="no rule matches"),
    pytest.param("unclassified", "GET", "/c/servicenow/api/now/table/x", None, "triage", "", id="no action matches"),
    pytest.param("arguments_invalid", "PATCH", f"{LIST}/a1", {"odd": 1}, "triage", UPDATE, id="the schema refuses"),
    pytest.param("arguments_invalid", "PATCH", f"{LIST}/a1", [DEEP], "triage", UPDATE, id="the body is no object"),
    pytest.param("body_too_large", "PATCH", f"{LIST}/a1", LARGE, "triage", UPDATE, id="the body is too large"),
    pytest.param("upstream_failed", "GET", LIST, None, "triage", QUERY, id="the service is not there for a read"),
    pytest.param("upstream_failed", "PATCH", f"{LIST}/a1", {"state": "2"}, "triage", UPDATE, id="nor for a write"),
    pytest.param(
        "egress_forbidden",
        "GET",
        "/c/github/repos/a/b",
        None,
        "developer",
        "github.repository.read",
        id="the address is metadata",
    ),
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


@pytest.mark.parametrize(("code", "method", "target", "body", "role", "action"), REFUSED)
def test_refusal_has_one_code_everywhere_when_its_caller_is_known(
    lonely: GateProcess, code: str, method: str, target: str, body: object, role: str, action: str
) -> None:
    token = lonely.token("somebody", role)
    label = action or "other"
    before = counted(lonely, "tidegate_calls_total", code, label)
    answer = call(lonely, method, target, body, token=token)
    _problem(answer, code)
    named = answer.headers["tidegate-call"]
    assert answer.json()["call"] == named
    last = recorded(lonely, answer)[-1]
    assert (last["action"]["code"], last["action"]["name"], last["subject"]["id"]) == (code, action, "somebody")
    line = until("the call is logged", lambda: logged(lonely, named))
    assert (line["code"], line["status"], line["subject"]) == (code, CODES[code].status, "somebody")
    assert (line["action"], line["tenant"]) == (action, "acme")
    assert counted(lonely, "tidegate_calls_total", code, label) == before + 1


UNKNOWN = [
    pytest.param("identity_invalid", {"Authorization": "Bearer not.a.token"}, id="a token that is none"),
    pytest.param("malformed_request", {"X-HTTP-Method-Override": "GET"}, id="a method override"),
]


@pytest.mark.parametrize(("code", "headers"), UNKNOWN)
def test_refusal_is_counted_and_not_recorded_when_its_caller_is_unknown(
    lonely: GateProcess, code: str, headers: dict[str, str]
) -> None:
    before = counted(lonely, "tidegate_unauthenticated_total", code)
    answer = call(lonely, "PATCH", f"{LIST}/a1", {"state": "2"}, headers={**JSON_TYPE, **headers})
    _problem(answer, code)
    assert recorded(lonely, answer) == []
    assert counted(lonely, "tidegate_unauthenticated_total", code) == before + 1
