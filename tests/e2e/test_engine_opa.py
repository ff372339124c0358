"""A gate whose engine is a real OPA behind a Unix socket: the same answers, and nothing leaves without one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.calling import LIST, call, recorded, until
from tests.e2e.harness import GateProcess, StandIns, edit_config, init_directory, point_at_stand_ins
from tests.e2e.raw import Answer
from tests.integration.opa_process import OpaProcess, socket_folder

INCIDENT = "/c/servicenow/api/now/table/incident/46d44a5dc0a8010e0000c5b1d3a1f1b2"


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory, stand_ins: StandIns, opa_path: Path) -> Path:
    """A starter directory in front of the stand-ins."""
    made = init_directory(tmp_path_factory.mktemp("opa-gate") / "gate")
    point_at_stand_ins(made, stand_ins)
    return made


@pytest.fixture(scope="module")
def sockets() -> Iterator[Path]:
    """A folder whose name is short enough for a socket."""
    with socket_folder() as folder:
        yield folder


def _serve(directory: Path, sockets: Path) -> OpaProcess:
    """OPA with the gate's own bundle, verified with the gate's own key."""
    raw = (directory / "bundle.tar.gz").read_bytes()
    public = (directory / "keys" / "bundle.pub.pem").read_bytes()
    (directory / "opa").mkdir(exist_ok=True)
    return OpaProcess.spawn(directory / "opa", raw, public, sockets / "opa.sock")


@pytest.fixture
def opa(directory: Path, sockets: Path) -> Iterator[OpaProcess]:
    """OPA at the configured socket."""
    running = _serve(directory, sockets)
    yield running
    running.stop()


@pytest.fixture
def gate(directory: Path, sockets: Path, opa: OpaProcess) -> Iterator[GateProcess]:
    """The gate that asks it."""
    edit_config(directory, {"engine": {"opa": f"unix://{sockets}/opa.sock"}})
    with GateProcess.start(directory) as running:
        yield running


def _update(gate: GateProcess, environment: str) -> Answer:
    token = gate.token("triage-bot", "triage", environment=environment)
    return call(gate, "PATCH", INCIDENT, {"state": "2"}, token=token, headers={"Prefer": "wait=0"})


def test_calls_are_allowed_held_denied_and_refused_by_opa_when_the_engine_is_opa(
    gate: GateProcess, opa: OpaProcess, directory: Path, sockets: Path
) -> None:
    allowed = call(gate, "GET", LIST)
    assert allowed.status == 200
    decisions = [record for record in recorded(gate, allowed) if "decision" in record]
    assert decisions
    assert {record["decision"]["engine"] for record in decisions} == {"opa"}
    held = _update(gate, "prod")
    assert (held.status, held.code) == (403, "approval_required")
    assert call(gate, "DELETE", INCIDENT).code == "denied"

    opa.stop()
    refused = call(gate, "GET", LIST)
    assert (refused.status, refused.code) == (503, "engine_failed")
    assert _update(gate, "test").code == "engine_failed"

    again = _serve(directory, sockets)
    try:
        assert until("answers after a restart", lambda: call(gate, "GET", LIST).status == 200 or None)
    finally:
        again.stop()
