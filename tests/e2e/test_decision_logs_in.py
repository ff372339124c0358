"""A real OPA that posts its decision log and status to a gate, and everything the gate's intake refuses."""

from __future__ import annotations

import gzip
import json
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from gateway.api.opa_events import UNPACKED_MAX_BYTES
from tests.e2e.collectors import until
from tests.e2e.harness import GateProcess, free_port, tidegate
from tests.integration.test_v1 import Answered, send

POLICY = """package app
default allow := false
allow if input.user == "ann"
"""
LOGS = "/v1/opa/logs"
STATUS = "/v1/opa/status"
EVENT: dict[str, Any] = {"decision_id": "by-hand", "labels": {"id": "x"}, "input": {"pin": 1234}, "result": False}


def records(gate: GateProcess, kind: str) -> list[dict[str, Any]]:
    """The records of a kind in the ledger, as the command line shows them."""
    done = tidegate("ledger", "tail", "--config", str(gate.config), "-n", "1000", "--json")
    assert done.returncode == 0, done.stderr
    parsed = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    shown = [one for item in parsed for one in item.get("items", [item])]
    return [one for one in (record.get("record", record) for record in shown) if one.get("kind") == kind]


@contextmanager
def running_opa(opa: Path, directory: Path, gate: GateProcess, token: str) -> Iterator[str]:
    """`opa run --server` that reports to the gate; its address."""
    (directory / "app.rego").write_text(POLICY)
    port = free_port()
    reporting = {
        "service": "tidegate",
        "partition_name": "edge",
        "reporting": {"min_delay_seconds": 1, "max_delay_seconds": 1},
    }
    config = {
        "services": {"tidegate": {"url": f"{gate.url}/v1/opa", "credentials": {"bearer": {"token": token}}}},
        "labels": {"region": "eu"},
        "decision_logs": reporting,
        "status": {"service": "tidegate"},
    }
    (directory / "opa.json").write_text(json.dumps(config))
    command = [str(opa), "run", "--server", "--addr", f"127.0.0.1:{port}", "--config-file", "opa.json", "app.rego"]
    with (directory / "opa.log").open("wb") as output:
        process = subprocess.Popen(command, cwd=directory, stdout=output, stderr=output)
    try:
        until(lambda: _healthy(port), "OPA's health")
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(20)


def _healthy(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def ask(url: str, user: str) -> str:
    """Ask OPA; the decision's id."""
    body = json.dumps({"input": {"user": user, "secret": f"word-of-{user}"}}).encode()
    request = urllib.request.Request(f"{url}/v1/data/app/allow", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=20) as answer:
        return str(json.loads(answer.read())["decision_id"])


def test_decisions_and_status_of_a_real_opa_reach_the_ledger(gate: GateProcess, opa_path: Path, tmp_path: Path) -> None:
    with running_opa(opa_path, tmp_path, gate, gate.token("opa-1", "collector")) as url:
        asked = {ask(url, "ann"): True, ask(url, "bob"): False}
        until(lambda: set(asked) <= {r["decision"]["id"] for r in records(gate, "opa_decision")}, "OPA's decisions")
        until(lambda: records(gate, "opa_status"), "OPA's status")
    found = {r["decision"]["id"]: r for r in records(gate, "opa_decision")}
    for decision, allowed in asked.items():
        record = found[decision]
        assert record["decision"] == {"id": decision, "engine": "opa", "allowed": allowed}
        assert record["action"]["path"] == "app/allow"
        assert {"name": "region", "value": "eu"} in record["action"]["labels"]
        assert record["actor"] == "opa-1"
        assert record["digests"].keys() == {"event", "input", "result"}
        assert "word-of" not in json.dumps(record)
    status = records(gate, "opa_status")[-1]
    assert {"name": "region", "value": "eu"} in status["action"]["labels"]
    assert {"decision_logs", "status"} <= {plugin["name"] for plugin in status["action"]["plugins"]}


def post(gate: GateProcess, raw: bytes, path: str = LOGS, token: str | None = None, **headers: str) -> Answered:
    """Hand in one body as it is."""
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    return send(gate, "POST", path, gate.token("opa-2", "collector") if token is None else token, raw, sent)


def packed(document: Any) -> bytes:
    """A body as OPA packs it."""
    return gzip.compress(json.dumps(document).encode())


@pytest.mark.parametrize("path", [LOGS, f"{LOGS}/edge"])
def test_upload_is_taken_when_it_is(gate: GateProcess, path: str) -> None:
    assert post(gate, packed([EVENT]), path, Content_Encoding="gzip").status == 204
    assert post(gate, json.dumps([EVENT]).encode(), path).status == 204


def test_status_is_taken_with_and_without_a_coding(gate: GateProcess) -> None:
    report = {"labels": {"id": "x"}}
    assert post(gate, json.dumps(report).encode(), STATUS).status == 204
    assert post(gate, packed(report), f"{STATUS}/edge", Content_Encoding="gzip").status == 204


BODIES: dict[str, tuple[bytes, str, int]] = {
    "no gzip": (b"[]", "gzip", 400),
    "another coding": (b"[]", "deflate", 400),
    "gzip that is cut short": (packed([EVENT])[:-4], "gzip", 400),
    "a bomb": (gzip.compress(b"[" + b" " * UNPACKED_MAX_BYTES + b"]"), "gzip", 413),
    "no array": (packed({}), "gzip", 400),
    "an event without an id": (packed([{}]), "gzip", 400),
    "a key twice": (gzip.compress(b'[{"decision_id":"a","decision_id":"b"}]'), "gzip", 400),
    "a body beyond the limit": (b"[" + b" " * (1 << 20) + b"]", "identity", 413),
}


@pytest.mark.parametrize(("raw", "coding", "status"), BODIES.values(), ids=BODIES.keys())
def test_upload_is_refused_when_it_is(gate: GateProcess, raw: bytes, coding: str, status: int) -> None:
    assert post(gate, raw, Content_Encoding=coding).status == status


def test_compressed_body_is_still_refused_everywhere_else(gate: GateProcess) -> None:
    answered = post(gate, packed({}), "/v1/calls", Content_Encoding="gzip")
    assert (answered.status, answered.code) == (400, "malformed_request")


def test_upload_is_refused_when_no_token_comes_with_it(gate: GateProcess) -> None:
    answered = post(gate, packed([EVENT]), token="", Content_Encoding="gzip")
    assert (answered.status, answered.code) == (401, "identity_missing")


@pytest.mark.parametrize("role", ["triage", "operator", "auditor", "enforcer", "stranger"])
def test_upload_is_denied_to(gate: GateProcess, role: str) -> None:
    answered = post(gate, packed([EVENT]), token=gate.token("other", role), Content_Encoding="gzip")
    assert (answered.status, answered.code) == (403, "denied")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", LOGS, 405), ("POST", "/v1/opa", 404), ("POST", "/v1/opa/bundles", 404), ("POST", f"{LOGS}/a/b", 404)],
    ids=["it is fetched", "nothing is named", "something else is named", "a partition has parts"],
)
def test_intake_is_refused_when(gate: GateProcess, method: str, path: str, status: int) -> None:
    assert send(gate, method, path, gate.token("opa-2", "collector"), b"[]").status == status


def test_upload_lands_in_the_ledger_of_its_token_alone(gate: GateProcess) -> None:
    event = {**EVENT, "decision_id": "foreign", "labels": {"tenant": "acme"}}
    foreign = gate.token("opa-3", "collector", tenant="globex")
    assert post(gate, packed([event]), token=foreign, Content_Encoding="gzip").status == 204
    (record,) = [r for r in records(gate, "opa_decision") if r["decision"]["id"] == "foreign"]
    assert record["log"][0] == "globex"
