"""Decisions put to OPA as well: a real OPA that agrees, lags and goes away, and a server that decides otherwise."""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from bundles.archive import read_archive
from bundles.canonical import sha256_hex
from gateway.quarantine import Entry
from gateway.quarantine_store import FILE_NAME, QuarantineStore
from tests.e2e.bundle_services import resigned, spawn_stale
from tests.e2e.calling import LIST, call, logged, metrics, recorded, until
from tests.e2e.harness import GateProcess, StandIns, edit_config, free_port, point_at_stand_ins, tidegate
from tests.integration.opa_process import OpaProcess, socket_folder

INCIDENT = f"{LIST}/46d44a5dc0a8010e0000c5b1d3a1f1b2"
DENY = {"effect": "DENY", "reasons": [], "obligations": {}}


@pytest.fixture
def directory(tmp_path: Path, starter_directory: Path, stand_ins: StandIns) -> Path:
    """A starter directory in front of the stand-ins."""
    made = tmp_path / "gate"
    shutil.copytree(starter_directory, made)
    ports = {"gate": f"127.0.0.1:{free_port()}", "metrics": f"127.0.0.1:{free_port()}"}
    edit_config(made, {"listen": ports})
    point_at_stand_ins(made, stand_ins)
    return made


@pytest.fixture
def sockets() -> Iterator[Path]:
    """A folder whose name is short enough for a socket."""
    with socket_folder() as folder:
        yield folder


def check_all(directory: Path, opa: str, on_difference: str = "quarantine") -> None:
    """Have every decision compared."""
    edit_config(directory, {"cross_check": {"opa": opa, "share": 1.0, "on_difference": on_difference}})


def serve(directory: Path, sockets: Path, archive: str = "bundle.tar.gz") -> OpaProcess:
    """OPA with a bundle of the gate, verified with the gate's key."""
    public = (directory / "keys" / "bundle.pub.pem").read_bytes()
    (directory / "opa").mkdir(exist_ok=True)
    return OpaProcess.spawn(directory / "opa", (directory / archive).read_bytes(), public, sockets / "opa.sock")


def counted(gate: GateProcess, name: str) -> float:
    """One counter of the cross-check, over all its labels."""
    return sum(
        value for series, value in metrics(gate).items() if series.startswith(f"tidegate_cross_check_{name}_total")
    )


def test_gate_and_opa_decide_alike_and_calls_go_on_when_opa_is_gone(directory: Path, sockets: Path) -> None:
    opa = serve(directory, sockets)
    check_all(directory, opa.socket_url)
    try:
        with GateProcess.start(directory) as gate:
            prod = gate.token("triage-bot", "triage", environment="prod")
            assert call(gate, "GET", LIST).status == 200
            assert call(gate, "DELETE", INCIDENT).code == "denied"
            held = call(gate, "PATCH", INCIDENT, {"state": "2"}, token=prod, headers={"Prefer": "wait=0"})
            assert held.code == "approval_required"
            until("all are compared", lambda: True if counted(gate, "compared") == 3 else None)
            shown = call(gate, "GET", "/v1/enforcement", token=gate.token("op", "operator")).json()["cross_check"]
            assert (shown["engine"], shown["differences"], shown["trouble"]) == ("opa", 0, None)
            opa.stop()
            assert call(gate, "GET", LIST).status == 200
            until("it is counted", lambda: True if counted(gate, "failed") else None)
            assert call(gate, "GET", LIST).status == 200
            assert counted(gate, "differences") == 0
    finally:
        opa.stop()


def test_opa_that_holds_another_revision_is_no_difference(directory: Path, sockets: Path) -> None:
    other = directory / "other.tar.gz"
    opa = serve(directory, sockets, _with_revision(directory, other).name)
    check_all(directory, opa.socket_url)
    try:
        with GateProcess.start(directory) as gate:
            assert call(gate, "GET", LIST).status == 200
            until("it is counted", lambda: True if counted(gate, "failed") == 1 else None)
            assert any("other_revision" in series for series, value in metrics(gate).items() if value)
            assert call(gate, "GET", LIST).status == 200
            assert counted(gate, "differences") == 0
    finally:
        opa.stop()


def _manifest(directory: Path) -> dict[str, Any]:
    manifest: dict[str, Any] = json.loads(read_archive((directory / "bundle.tar.gz").read_bytes())[".manifest"])
    return manifest


def _with_revision(directory: Path, out: Path) -> Path:
    manifest = _manifest(directory)
    manifest["revision"] = "another"
    raw = json.dumps(manifest).encode()
    key = directory / "keys" / "bundle.pem"
    return resigned(directory / "bundle.tar.gz", key, out, sequence=2, _dot_manifest=raw)


class Differing:
    """A policy server that holds the gate's revision and answers as it is told."""

    def __init__(self, revision: str) -> None:
        self.revision = revision
        self.answer: dict[str, Any] = DENY
        self.url = ""

    @contextmanager
    def running(self) -> Iterator[Differing]:
        """Serve until the end of the block."""
        told = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                known = {"provenance": {"bundles": {"main": {"revision": told.revision}}}}
                body = json.dumps({"result": told.answer, **known}).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:
                """Silent."""

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), name="differing-opa")
        thread.start()
        try:
            yield self
        finally:
            server.shutdown()
            server.server_close()
            thread.join()


@pytest.fixture
def differing(directory: Path) -> Iterator[Differing]:
    """Such a server."""
    with Differing(_manifest(directory)["revision"]).running() as running:
        yield running


def test_difference_is_told_everywhere_and_changes_nothing_when_it_is_an_alarm(
    directory: Path, differing: Differing
) -> None:
    check_all(directory, differing.url, "alarm")
    with GateProcess.start(directory) as gate:
        answer = call(gate, "GET", LIST)
        assert answer.status == 200
        until("it is counted", lambda: True if counted(gate, "differences") == 1 else None)
        line = until("it is said", lambda: logged(gate, "cross_check_difference"))
        assert (line["call"], line["kind"]) == (answer.headers["tidegate-call"], "tightening")
        found = until("it is recorded", lambda: _difference(gate, answer))
        assert found["digests"] == {name: line[field] for name, field in DIGESTS.items()}
        auditor = gate.token("ada", "auditor")
        listed = call(gate, "GET", "/v1/shadow?kind=engine", token=auditor).json()
        (item,) = listed["items"]
        assert (item["call"], item["kind"], item["difference"]) == (line["call"], "engine", "tightening")
        assert listed["counts"] == {"engine": 1} and listed["cross_check"]["differences"] == 1
        assert call(gate, "GET", LIST).status == 200


DIGESTS = {"input": "input_digest", "ours": "ours", "theirs": "theirs"}


def _difference(gate: GateProcess, answer: Any) -> Any:
    found = [record for record in recorded(gate, answer) if record["kind"] == "bundle"]
    return found[0] if found else None


def refuses(gate: GateProcess) -> bool | None:
    """Whether calls are refused because no bundle decides."""
    answer = call(gate, "GET", LIST)
    return True if (answer.status, answer.code) == (503, "policy_unavailable") else None


def test_quarantined_bundle_decides_no_more_and_no_reload_brings_it_back(directory: Path, differing: Differing) -> None:
    check_all(directory, differing.url)
    with GateProcess.start(directory) as gate:
        assert call(gate, "GET", LIST).status == 200
        until("calls are refused", lambda: refuses(gate))
        assert call(gate, "PATCH", INCIDENT, {"state": "2"}).code == "policy_unavailable"
        assert "policy" in call(gate, "GET", "/health/ready").json()["missing"]
        assert metrics(gate)["tidegate_bundle_quarantined"] == 1
        assert gate.reload(), "the configuration is taken, the bundle is not"
        assert refuses(gate)
    entries = QuarantineStore(directory / "state" / FILE_NAME).entries()
    assert [entry.ours != entry.theirs for entry in entries.values()] == [True]


def test_quarantine_outlives_a_restart_until_it_is_released(directory: Path) -> None:
    store = QuarantineStore(directory / "state" / FILE_NAME)
    digest = f"sha256:{sha256_hex((directory / 'bundle.tar.gz').read_bytes())}"
    store.add(digest, Entry(1_800_000_000_000, "c1", "sha256:in", "sha256:ours", "sha256:theirs"))
    gate = spawn_stale(directory)
    try:
        assert refuses(gate)
        done = tidegate("gateway", "release", digest, "--config", str(gate.config), "--json")
        assert (done.returncode, json.loads(done.stdout)["released"]) == (0, True)
        assert refuses(gate), "the gate looks when it is told to"
        assert gate.reload()
        assert call(gate, "GET", LIST).status == 200
        assert metrics(gate)["tidegate_bundle_quarantined"] == 0
    finally:
        gate.stop()
    done = tidegate("ledger", "tail", "-n", "100", "--json", "--config", str(gate.config))
    assert "tidegate.cross_check.release" in done.stdout


def test_another_bundle_decides_when_one_is_quarantined_and_the_quarantined_one_stays_out(
    directory: Path, differing: Differing
) -> None:
    check_all(directory, differing.url)
    quarantined = (directory / "bundle.tar.gz").read_bytes()
    with GateProcess.start(directory) as gate:
        assert call(gate, "GET", LIST).status == 200
        until("calls are refused", lambda: refuses(gate))
        edit_config(directory, {"cross_check": None})
        key = directory / "keys" / "bundle.pem"
        newer = resigned(directory / "bundle.tar.gz", key, directory / "newer.tar.gz", sequence=2)
        os.replace(newer, directory / "bundle.tar.gz")
        assert gate.reload()
        assert call(gate, "GET", LIST).status == 200
        (directory / "bundle.tar.gz").write_bytes(quarantined)
        assert not gate.reload()
        assert call(gate, "GET", LIST).status == 200


def test_gate_does_not_start_when_its_quarantine_cannot_be_read(directory: Path) -> None:
    (directory / "state").mkdir(exist_ok=True, mode=0o700)
    (directory / "state" / "quarantine.json").write_bytes(b"{")
    done = tidegate("gateway", "run", "--config", str(directory / "tidegate.yaml"), "--json")
    assert (done.returncode, "quarantine_unreadable" in done.stdout) == (3, True)
