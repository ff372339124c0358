"""Uploads with a ticket: streamed on, good once for one action, and the caller's fault when the body does not come."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from tests.e2e.calling import call, host, recorded, upload_target
from tests.e2e.harness import GateProcess, StandIns, edit_config, init_directory, point_at_stand_ins, read_config
from tests.e2e.raw import Answer, exchange, read_answer, request


@pytest.fixture(scope="module")
def impatient(tmp_path_factory: pytest.TempPathFactory, stand_ins: StandIns) -> Iterator[GateProcess]:
    """A gate that waits two seconds for a body."""
    directory = init_directory(tmp_path_factory.mktemp("impatient") / "gate")
    point_at_stand_ins(directory, stand_ins)
    edit_config(directory, {"limits": {"body_read_seconds": 2}})
    with GateProcess.start(directory) as running:
        yield running


@pytest.fixture(scope="module")
def apart(tmp_path_factory: pytest.TempPathFactory, stand_ins: StandIns) -> Iterator[GateProcess]:
    """A gate where two tenants share an instance of Slack and have an upload host each, at the same address."""
    directory = init_directory(tmp_path_factory.mktemp("apart") / "gate")
    point_at_stand_ins(directory, stand_ins)
    instances = read_config(directory)["instances"]
    shared = instances.pop("slack-upload")
    hosts = {f"slack-upload-{tenant}": {**shared, "tenants": [tenant]} for tenant in ("acme", "zeta")}
    edit_config(directory, {"instances": None})
    edit_config(directory, {"instances": {**hosts, **instances}})
    with GateProcess.start(directory) as running:
        yield running


@pytest.mark.parametrize("tenant", ["acme", "zeta"])
def test_upload_goes_by_the_tenants_own_host_when_each_tenant_has_one(apart: GateProcess, tenant: str) -> None:
    target = upload_target(apart, tenant)
    assert target.startswith(f"/c/slack-upload-{tenant}/")
    assert _upload(apart, target, {"Content-Length": "5"}, b"hello", slow=True).status == 200


def test_upload_url_is_kept_back_when_no_host_for_it_fits_the_caller(apart: GateProcess) -> None:
    with pytest.raises(AssertionError, match="leads past the gate"):
        upload_target(apart, "rival")


def _upload(gate: GateProcess, target: str, headers: dict[str, str], *pieces: bytes, slow: bool = False) -> Answer:
    sent = {"Host": host(gate), "Content-Type": "text/plain", **headers}
    return exchange(gate.url, request("POST", target, sent), *pieces, hold_open=slow)


def test_upload_is_sent_on_when_its_ticket_is_shown_once(impatient: GateProcess) -> None:
    target = upload_target(impatient)
    sent = _upload(impatient, target, {"Content-Length": "5"}, b"hello", slow=True)
    assert sent.status == 200
    issued_by = {record["ids"]["issued_by"] for record in recorded(impatient, sent)}
    (first,) = [recorded(impatient, Answer(200, {"tidegate-call": call_id}, b"")) for call_id in issued_by]
    assert first[-1]["action"]["name"] == "slack.file.upload_url"
    again = _upload(impatient, target, {"Content-Length": "5"}, b"hello", slow=True)
    assert (again.status, again.code) == (401, "identity_invalid")


UNFINISHED = [
    pytest.param({"Content-Length": "10"}, [b"hello"], True, 408, "too_slow", id="a length that is never reached"),
    pytest.param(
        {"Transfer-Encoding": "chunked"}, [b"5\r\nhello\r\n"], True, 408, "too_slow", id="chunks without an end"
    ),
    pytest.param({"Content-Length": "10"}, [b"hello"], False, 400, "malformed_request", id="a cut body"),
    pytest.param(
        {"Transfer-Encoding": "chunked"}, [b"5\r\nhello\r\n"], False, 400, "malformed_request", id="cut chunks"
    ),
]


@pytest.mark.parametrize(("headers", "pieces", "slow", "status", "code"), UNFINISHED)
def test_upload_is_the_callers_fault_and_recorded_when_its_body_does_not_come_whole(
    impatient: GateProcess, headers: dict[str, str], pieces: list[bytes], slow: bool, status: int, code: str
) -> None:
    answer = _upload(impatient, upload_target(impatient), headers, *pieces, slow=slow)
    assert (answer.status, answer.code) == (status, code)
    records = recorded(impatient, answer)
    assert [record["kind"] for record in records] == ["intent", "outcome"]
    assert records[-1]["action"]["code"] == code


ELSEWHERE = [pytest.param("?", "x?", id="another file"), pytest.param("/v1/", "/v2/", id="no action's path")]


@pytest.mark.parametrize(("there", "elsewhere"), ELSEWHERE)
def test_ticket_is_refused_when_it_is_shown_elsewhere(impatient: GateProcess, there: str, elsewhere: str) -> None:
    target = upload_target(impatient).replace(there, elsewhere, 1)
    answer = _upload(impatient, target, {"Content-Length": "5"}, b"hello", slow=True)
    assert (answer.status, answer.code) == (401, "identity_invalid")


def test_upload_is_killed_when_a_switch_is_set_while_its_body_comes(impatient: GateProcess) -> None:
    operator, parts = impatient.token("op", "operator"), urlsplit(impatient.url)
    sent = {"Host": host(impatient), "Content-Type": "text/plain", "Content-Length": "10"}
    with socket.create_connection((parts.hostname, parts.port), timeout=10) as link:
        link.sendall(request("POST", upload_target(impatient), sent) + b"hello")
        switched = call(impatient, "PUT", "/v1/switches/tenant/acme", {"reason": "drill"}, token=operator)
        link.sendall(b"hello")
        answer = read_answer(link)
    assert call(impatient, "DELETE", "/v1/switches/tenant/acme", token=operator).status == switched.status == 200
    assert (answer.status, answer.code) == (403, "killed")
    assert recorded(impatient, answer)[-1]["action"]["code"] == "killed"
