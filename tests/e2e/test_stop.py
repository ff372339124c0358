"""A stop takes the time it is given, and says of every call that was under way how it ended."""

from __future__ import annotations

import json
import signal
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.e2e.calling import JSON_TYPE, LIST, call, host, until
from tests.e2e.harness import GateProcess, edit_config, init_directory, tidegate
from tests.e2e.hostile import HostileUpstream
from tests.e2e.raw import request

GRACE_SECONDS = 5
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
