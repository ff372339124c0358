"""A stop takes the time it is given, and says of every call that was under way how it ended."""

from __future__ import annotations

import json
import os
import signal
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.e2e.calling import JSON_TYPE, LIST, call, host, logged, meanwhile, until
from tests.e2e.harness import GateProcess, edit_config, init_directory, tidegate
from tests.e2e.hostile import HostileUpstream
from tests.e2e.raw import request

GRACE_SECONDS = 5
ENDS_SECONDS = GRACE_SECONDS + 15.0
"""The store has some time of its own after the calls', and its process some to end."""
READ_SECONDS = 30.0
KEYED = {**JSON_TYPE, "Idempotency-Key": "asked-once"}
RESET = struct.pack("ii", 1, 0)
"""Lingering for no time: closing resets the connection."""


@pytest.fixture
def upstream() -> Iterator[HostileUpstream]:
    """A service that answers when it is told to."""
    with HostileUpstream.start() as running:
        yield running


@pytest.fixture
def gate(tmp_path: Path, upstream: HostileUpstream) -> Iterator[GateProcess]:
    """A gate in front of it."""
    directory = init_directory(tmp_path / "gate")
    here = {"base_url": f"http://127.0.0.1:{upstream.port}"}
    limits = {"grace_seconds": GRACE_SECONDS}
    edit_config(directory, {"instances": {"servicenow": here, "webhook": here}, "limits": limits})
    with GateProcess.start(directory) as running:
        yield running


def _ask(gate: GateProcess, method: str, target: str, headers: dict[str, str], body: object = None) -> socket.socket:
    """A call whose answer nobody reads yet."""
    parts = urlsplit(gate.url)
    link = socket.create_connection((parts.hostname, parts.port), timeout=READ_SECONDS)
    token = gate.token("triage-bot", "triage")
    sent = {"Host": host(gate), "Authorization": f"Bearer {token}", **headers}
    link.sendall(request(method, target, sent, json.dumps(body).encode() if body is not None else None))
    return link


def _hang_up(gate: GateProcess, link: socket.socket) -> None:
    """Leave without a word, and see that the gate has turned once since."""
    link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    link.close()
    assert call(gate, "GET", "/health/live").status == 200


def _begin_stop(gate: GateProcess) -> None:
    """Ask it to end, and wait until it accepts nothing more."""
    gate.process.send_signal(signal.SIGTERM)
    parts = urlsplit(gate.url)

    def refused() -> bool | None:
        with socket.socket() as probe:
            return probe.connect_ex((parts.hostname, parts.port)) != 0 or None

    until("the gate accepts nothing more", refused)


def _records(gate: GateProcess) -> list[dict[str, Any]]:
    """The newest records, oldest first."""
    done = tidegate("ledger", "tail", "-n", "20", "--json", "--config", str(gate.config))
    assert done.returncode == 0, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout)["items"]
    return [record for record in found if record["kind"] != "bundle"]


def test_stop_waits_for_a_write_when_its_caller_has_hung_up(gate: GateProcess, upstream: HostileUpstream) -> None:
    link = _ask(gate, "PATCH", f"{LIST}/wait-1", KEYED, {"state": "2"})
    until("the write is sent", lambda: upstream.times_asked("wait-1") or None)
    _hang_up(gate, link)
    _begin_stop(gate)
    upstream.released.set()
    assert gate.stop() == 0
    ends = [(record["kind"], record["action"].get("status")) for record in _records(gate)]
    assert ends == [("intent", None), ("outcome", 200)]
    with GateProcess.start(gate.directory) as again:
        repeated = call(again, "PATCH", f"{LIST}/wait-1", {"state": "2"}, headers=KEYED)
    assert (repeated.status, repeated.json(), upstream.times_asked("wait-1")) == (200, {"result": []}, 1)


def _end_of(gate: GateProcess, named: str) -> dict[str, Any]:
    """The last record of a call, and its log line."""
    record = [one for one in _records(gate) if one["ids"].get("call") == named][-1]
    line = until("the end is logged", lambda: logged(gate, named))
    return {"kind": record["kind"], **record["action"], "cut": record["digests"].get("cut"), "logged": line["code"]}


def _call_id(link: socket.socket, first: bytes) -> str:
    """What a streamed call is named in its head, once its first piece has come."""
    begun = b""
    while first not in begun:
        piece = link.recv(65536)
        assert piece, begun
        begun += piece
    lines = begun.decode("latin-1").split("\r\n")
    return next(line.partition(": ")[2] for line in lines if line.lower().startswith("tidegate-call:"))


@pytest.mark.parametrize(
    ("method", "kind"),
    [pytest.param("GET", "call", id="a read"), pytest.param("PATCH", "outcome", id="a write")],
)
def test_stream_has_its_end_recorded_when_a_stop_cuts_it(gate: GateProcess, method: str, kind: str) -> None:
    body = {"state": "2"} if method == "PATCH" else None
    with _ask(gate, method, f"{LIST}/idle-1", KEYED if body else {}, body) as link:
        named = _call_id(link, b"data: first")
        assert gate.stop() == 0
    end = _end_of(gate, named)
    assert (end["kind"], end["status"], end["code"], end["cut"]) == (
        kind,
        200,
        "upstream_failed",
        "the gate gave the stream up",
    )
    assert end["logged"] == "upstream_failed"
    with GateProcess.start(gate.directory) as again:
        state = call(again, "GET", f"/v1/calls/{named}", token=again.token("op", "operator", "auditor")).json()
        assert _unknown(again, 2) == 0
    assert (state["state"], state["code"]) == ("done", "upstream_failed")


def test_read_that_was_sent_is_recorded_and_logged_when_a_stop_cuts_it(
    gate: GateProcess, upstream: HostileUpstream
) -> None:
    with _ask(gate, "GET", f"{LIST}/hang-1", {}):
        until("the read is sent", lambda: upstream.times_asked("hang-1") or None)
        assert gate.stop() == 0
    (record,) = _records(gate)
    end = _end_of(gate, record["ids"]["call"])
    assert (end["kind"], end["status"], end["code"], end["logged"]) == (
        "call",
        None,
        "upstream_failed",
        "upstream_failed",
    )


def test_held_caller_hears_that_a_person_must_approve_when_the_gate_stops(
    gate: GateProcess, upstream: HostileUpstream
) -> None:
    token = gate.token("dev", "developer", environment="prod")
    approver = gate.token("alice", "approver", environment="prod")
    headers = {"Prefer": "wait=60"}
    with meanwhile(
        lambda: call(gate, "POST", "/c/webhook/held", {"event": "1"}, token=token, headers=headers)
    ) as answers:
        until("the call is held", lambda: _pending(gate, approver) or None)
        began = time.monotonic()
        assert gate.stop() == 0
        assert time.monotonic() - began < GRACE_SECONDS
    assert [(answer.status, answer.code) for answer in answers] == [(403, "approval_required")]
    assert _end_of(gate, answers[0].headers["tidegate-call"])["code"] == "approval_required"
    with GateProcess.start(gate.directory) as again:
        assert _pending(again, approver) == [answers[0].json()["approval"]["id"]]
    assert upstream.asked == []


def _pending(gate: GateProcess, token: str) -> list[str]:
    listed = call(gate, "GET", "/v1/approvals?state=pending", token=token).json()["items"]
    return [item["id"] for item in listed]


@pytest.mark.parametrize("method", [pytest.param("GET", id="a read"), pytest.param("PATCH", id="a write")])
def test_stream_is_unknown_after_the_next_start_when_the_gate_was_killed(gate: GateProcess, method: str) -> None:
    body = {"state": "2"} if method == "PATCH" else None
    with _ask(gate, method, f"{LIST}/idle-1", KEYED if body else {}, body) as link:
        named = _call_id(link, b"data: first")
        gate.kill()
    with GateProcess.start(gate.directory) as again:
        state = call(again, "GET", f"/v1/calls/{named}", token=again.token("op", "operator", "auditor")).json()
        assert (state["state"], state["code"]) == ("unknown", "outcome_unknown")
        assert again.stop() == 0
    with GateProcess.start(gate.directory) as third:
        assert _unknown(third, 3) == 0
    assert tidegate("ledger", "verify", "--config", str(gate.config)).returncode == 0


def test_read_stream_that_ended_is_left_alone_by_the_next_start(gate: GateProcess) -> None:
    with _ask(gate, "GET", f"{LIST}/flood-chunked", {"Connection": "close"}) as link:
        while link.recv(1 << 20):
            pass
    assert gate.stop() == 0
    assert [record["kind"] for record in _records(gate)] == ["response_began", "call"]
    with GateProcess.start(gate.directory) as again:
        assert _unknown(again, 2) == 0


def _unknown(gate: GateProcess, starts: int) -> int:
    """How many calls the newest of so many starts marked unknown; its line may come after readiness."""

    def told() -> int | None:
        lines = [line for line in gate.log.read_text(encoding="utf-8").splitlines() if '"what":"started"' in line]
        return int(json.loads(lines[-1])["unknown"]) if len(lines) == starts else None

    return until(f"start {starts} is told", told)


def test_stop_ends_and_tells_what_is_lost_when_the_store_hangs(gate: GateProcess, upstream: HostileUpstream) -> None:
    owner = gate.store_pid
    with _ask(gate, "PATCH", f"{LIST}/wait-1", KEYED, {"state": "2"}) as link:
        until("the write is sent", lambda: upstream.times_asked("wait-1") or None)
        os.kill(owner, signal.SIGSTOP)
        try:
            upstream.released.set()
            began = time.monotonic()
            _begin_stop(gate)
            assert gate.process.wait(ENDS_SECONDS) == 1
            assert time.monotonic() - began < ENDS_SECONDS
            assert b"200 OK" not in _rest(link)
        finally:
            os.kill(owner, signal.SIGCONT)
    log = gate.log.read_text(encoding="utf-8")
    assert '"what":"ledger_failed"' in log
    assert '"what":"outcomes_lost","waiting":1' in log


def test_stop_ends_when_the_store_hangs_and_has_nothing_to_do(gate: GateProcess) -> None:
    owner = gate.store_pid
    os.kill(owner, signal.SIGSTOP)
    try:
        gate.process.send_signal(signal.SIGTERM)
        assert gate.process.wait(ENDS_SECONDS) == 0
    finally:
        os.kill(owner, signal.SIGCONT)


def _rest(link: socket.socket) -> bytes:
    """Everything until the gate ends the connection."""
    rest = b""
    with suppress(ConnectionResetError):
        while piece := link.recv(65536):
            rest += piece
    return rest
