"""A real Envoy asks a real gate: allowed, denied, held and approved, and closed when the gate is gone."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway.envoy.settings import ExtAuthz
from tests.e2e.calling import logged, recorded, until
from tests.e2e.harness import ROOT, GateProcess, edit_config, free_port, init_directory, tidegate
from tests.e2e.raw import Answer, exchange, request
from tests.integration.envoy_mesh import BODY_MAX_BYTES, HOST, Service, bootstrap, envoy_before, mesh_directory

NOTE = "/api/notes/a1"
TEXT = b'{"text":"hello"}'


@dataclass(slots=True)
class Mesh:
    """Envoy before the service, asking the gate."""

    url: str
    service: Service
    gate: GateProcess

    def call(
        self, method: str, target: str, body: bytes | None = None, *, environment: str = "test", **headers: str
    ) -> Answer:
        """One call as the triage bot, through Envoy."""
        sent = {
            "Host": HOST,
            "Authorization": f"Bearer {self.gate.token('bot', 'triage', environment=environment)}",
            **({"Content-Type": "application/json"} if body is not None else {}),
            **{name.replace("_", "-"): value for name, value in headers.items()},
        }
        raw = request(method, target, {name: value for name, value in sent.items() if value}, body)
        return exchange(self.url, raw, hold_open=True)

    def records(self, answer: Answer) -> list[tuple[str, Any]]:
        """Kind and code of each record of the call that an answer names."""
        return [(record["kind"], record["action"].get("code")) for record in recorded(self.gate, answer)]


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A gate's directory; its door is a socket."""
    return mesh_directory(init_directory(tmp_path_factory.mktemp("mesh") / "g"), address="unix:state/door.sock")


@pytest.fixture(scope="module")
def gate(directory: Path) -> Iterator[GateProcess]:
    """A gate with that door."""
    with GateProcess.start(directory) as running:
        yield running


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    """The service that Envoy stands before."""
    with Service.start() as running:
        yield running


@pytest.fixture(scope="module")
def mesh(gate: GateProcess, service: Service) -> Iterator[Mesh]:
    """The whole, configured as docs/envoy.md says."""
    with envoy_before(gate.directory, service, f"unix:{gate.directory}/state/door.sock") as url:
        yield Mesh(url, service, gate)


def test_mesh_forwards_only_what_was_decided_when_policy_allows_a_read(mesh: Mesh) -> None:
    before = len(mesh.service.seen)
    answer = mesh.call("GET", NOTE, X_Trace="t1", X_Evil="1", Accept_Encoding="gzip", Tidegate_Reason="why")
    assert (answer.status, answer.body) == (200, b"ok")
    assert answer.headers["tidegate-effect"] == "ALLOW" and answer.headers["tidegate-decision"]
    [(method, path, headers, body)] = mesh.service.seen[before:]
    assert (method, path, body, headers["x-trace"]) == ("GET", NOTE, b"", "t1")
    assert headers["accept-encoding"] == "identity"
    assert {"authorization", "x-evil", "tidegate-reason"}.isdisjoint(headers)
    assert mesh.records(answer) == [("call", "handed_over")]


def test_mesh_records_intent_and_outcome_when_policy_allows_a_write(mesh: Mesh) -> None:
    answer = mesh.call("PUT", NOTE, TEXT)
    assert (answer.status, mesh.service.seen[-1][3]) == (200, TEXT)
    assert mesh.records(answer) == [("intent", None), ("outcome", "handed_over")]


REFUSED: dict[str, tuple[dict[str, Any], int, str]] = {
    "policy denies it": ({"method": "PUT", "target": NOTE, "body": b'{"text":"forbidden"}'}, 403, "denied"),
    "the arguments do not fit": ({"method": "PUT", "target": NOTE, "body": b'{"x":1}'}, 422, "arguments_invalid"),
    "it is no action": ({"method": "DELETE", "target": NOTE}, 403, "unclassified"),
    "there is no token": ({"method": "GET", "target": NOTE, "Authorization": ""}, 401, "identity_missing"),
    "the token is forged": (
        {"method": "GET", "target": NOTE, "Authorization": "Bearer e30.e30."},
        401,
        "identity_invalid",
    ),
    "it is for another host": ({"method": "GET", "target": NOTE, "Host": "other.test"}, 403, "unclassified"),
    "the path has two readings": ({"method": "GET", "target": "/api/x/%2e%2e/notes/a1"}, 400, "malformed_request"),
    "the body is larger than Envoy sends": (
        {"method": "PUT", "target": NOTE, "body": b'{"text":"' + b"x" * BODY_MAX_BYTES + b'"}'},
        413,
        "body_too_large",
    ),
    "a key stands twice": (
        {"method": "PUT", "target": NOTE, "body": b'{"text":"a","text":"b"}'},
        400,
        "malformed_request",
    ),
    "a read brings a body": ({"method": "GET", "target": NOTE, "body": b"{}"}, 400, "malformed_request"),
    "it has a key of its own": (
        {"method": "PUT", "target": NOTE, "body": TEXT, "Idempotency_Key": "k1"},
        403,
        "denied",
    ),
}


@pytest.mark.parametrize(("asked", "status", "code"), REFUSED.values(), ids=REFUSED.keys())
def test_mesh_forwards_nothing_when(mesh: Mesh, asked: dict[str, Any], status: int, code: str) -> None:
    before = len(mesh.service.seen)
    answer = mesh.call(**asked)
    assert (answer.status, answer.code) == (status, code)
    assert len(mesh.service.seen) == before


def test_mesh_forwards_once_when_a_held_call_was_approved(mesh: Mesh) -> None:
    before = len(mesh.service.seen)
    body = b'{"text":"to production"}'
    held = mesh.call("PUT", NOTE, body, environment="prod")
    assert (held.status, held.code) == (403, "approval_required")
    approval = held.json()["approval"]["id"]
    assert held.headers["tidegate-approval"] == approval
    again = mesh.call("PUT", NOTE, body, environment="prod")
    assert again.json()["approval"]["id"] == approval

    person = mesh.gate.token("alice", "approver", environment="prod")
    voted = tidegate("approvals", "approve", approval, "--reason", "seen", token=person, gate=mesh.gate.url)
    assert voted.returncode == 0, voted.stdout + voted.stderr
    other = mesh.call("PUT", NOTE, b'{"text":"something else"}', environment="prod")
    assert (other.status, other.code) == (403, "approval_required")
    assert len(mesh.service.seen) == before

    used = mesh.call("PUT", NOTE, body, environment="prod")
    assert (used.status, mesh.service.seen[-1][3]) == (200, body)
    assert mesh.records(used)[-2:] == [("intent", None), ("outcome", "handed_over")]
    spent = mesh.call("PUT", NOTE, body, environment="prod")
    assert spent.code == "approval_required" and spent.json()["approval"]["id"] != approval
    assert len(mesh.service.seen) == before + 1


def test_mesh_forwards_a_chunked_body_when_it_came_whole(mesh: Mesh) -> None:
    token = mesh.gate.token("bot", "triage")
    head = (
        f"PUT {NOTE} HTTP/1.1\r\nHost: {HOST}\r\nAuthorization: Bearer {token}\r\n"
        "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    chunks = b"%x\r\n%b\r\n0\r\n\r\n" % (len(TEXT), TEXT)
    assert exchange(mesh.url, head.encode(), chunks, hold_open=True).status == 200
    assert mesh.service.seen[-1][3] == TEXT


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "bodies are not sent": ({"with_request_body": None}, "malformed_request"),
    "bodies are sent as text": (
        {"with_request_body": {"max_request_bytes": BODY_MAX_BYTES, "allow_partial_message": True}},
        "malformed_request",
    ),
    "headers are sent joined": ({"encode_raw_headers": False}, "malformed_request"),
}


@pytest.mark.parametrize(("asks", "code"), WRONG.values(), ids=WRONG.keys())
def test_mesh_is_closed_when_envoy_is_configured_so_that(
    gate: GateProcess, service: Service, asks: dict[str, Any], code: str
) -> None:
    before = len(service.seen)
    with envoy_before(gate.directory, service, f"unix:{gate.directory}/state/door.sock", asks=asks) as url:
        answer = Mesh(url, service, gate).call("PUT", NOTE, TEXT)
    assert (answer.status, answer.code, len(service.seen)) == (400, code, before)


def test_mesh_is_closed_while_the_gate_is_gone(tmp_path: Path, directory: Path, service: Service) -> None:
    own = tmp_path / "g"
    shutil.copytree(directory, own, ignore=shutil.ignore_patterns("state", "*.log"))
    edit_config(own, {"listen": {"gate": f"127.0.0.1:{free_port()}", "metrics": None}})
    gate = GateProcess.spawn(own)
    with envoy_before(own, service, f"unix:{own}/state/door.sock") as url:
        mesh = Mesh(url, service, gate)
        assert mesh.call("GET", NOTE).status == 200
        gate.kill()
        before = len(service.seen)
        assert [mesh.call("GET", NOTE).status for _ in range(3)] == [403, 403, 403]
        assert len(service.seen) == before
        with GateProcess.start(own):
            until("Envoy asks again", lambda: mesh.call("GET", NOTE).status == 200 or None)


def _documented() -> list[Any]:
    """The YAML blocks of docs/envoy.md."""
    text = (ROOT / "docs" / "envoy.md").read_text(encoding="utf-8")
    return [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)]


def test_guide_configures_envoy_as_it_is_tried_here() -> None:
    _, _, [documented], per_route = _documented()
    listener = bootstrap(1, 2, "unix:x")["static_resources"]["listeners"][0]
    manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
    tried = manager["http_filters"][0]["typed_config"]
    written = documented["typed_config"]
    for name in ("@type", "transport_api_version", "failure_mode_allow", "encode_raw_headers"):
        assert written[name] == tried[name]
    assert written["with_request_body"] == tried["with_request_body"] | {"max_request_bytes": 1 << 20}
    route = manager["route_config"]["virtual_hosts"][0]["routes"][0]
    assert per_route["typed_per_filter_config"] == route["typed_per_filter_config"]


def test_guide_configures_the_door_as_it_is_read() -> None:
    gate, remote, *_ = _documented()
    assert ExtAuthz.model_validate(gate["listen"]["ext_authz"]).is_local
    assert ExtAuthz.model_validate(remote).tls is not None


def test_gate_logs_the_call_when_envoy_carries_it_out(mesh: Mesh) -> None:
    call = mesh.call("GET", NOTE).headers["tidegate-call"]
    line = until("the call is logged", lambda: logged(mesh.gate, call))
    assert (line["event"], line["action"], line["code"]) == ("call", "desk.note.read", "ok")
