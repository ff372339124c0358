"""What the page on operations says of copies of the store and of new secrets, done as it says."""

from __future__ import annotations

import base64
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from tests.e2e.calling import LIST, call
from tests.e2e.harness import GateProcess, edit_config, init_directory, tidegate


class _Asked(BaseHTTPRequestHandler):
    """Answers everything, and notes the credential."""

    protocol_version = "HTTP/1.1"
    seen: list[str]

    def do_GET(self) -> None:
        self.seen.append(self.headers["Authorization"])
        body = b'{"result": []}'
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def credentials() -> Iterator[tuple[int, list[str]]]:
    """A service's port, and what it was given as a credential."""
    seen: list[str] = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Asked", (_Asked,), {"seen": seen}))
    server.daemon_threads = True
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield server.server_port, seen
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def directory(tmp_path: Path, credentials: tuple[int, list[str]]) -> Path:
    directory = init_directory(tmp_path / "gate")
    edit_config(directory, {"instances": {"servicenow": {"base_url": f"http://127.0.0.1:{credentials[0]}"}}})
    return directory


def test_store_is_copied_beside_a_running_gate_and_put_back(directory: Path, tmp_path: Path) -> None:
    store, copy = directory / "state" / "tidegate.db", tmp_path / "copy.db"
    with GateProcess.start(directory) as gate:
        kept = call(gate, "GET", LIST)
        with closing(sqlite3.connect(f"file:{store}?mode=ro", uri=True)) as connection:
            connection.execute("VACUUM INTO ?", (str(copy),))
        lost = call(gate, "GET", LIST)
        assert (kept.status, lost.status) == (200, 200)
        assert tidegate("ledger", "verify", "--config", str(gate.config)).returncode == 0
    assert [path.name for path in store.parent.glob("tidegate.db-*")] == []
    copy.chmod(0o600)
    copy.replace(store)
    with GateProcess.start(directory) as gate:
        assert call(gate, "GET", LIST).status == 200
        assert tidegate("ledger", "verify", "--config", str(gate.config)).returncode == 0
        with closing(sqlite3.connect(f"file:{store}?mode=ro", uri=True)) as connection:
            calls = {name for (name,) in connection.execute("SELECT call FROM records")}
    assert kept.headers["tidegate-call"] in calls
    assert lost.headers["tidegate-call"] not in calls


def test_new_secret_is_sent_after_a_reload(directory: Path, credentials: tuple[int, list[str]]) -> None:
    secret, fresh = directory / "keys" / "servicenow.secret", directory / "keys" / "servicenow.secret.new"
    with GateProcess.start(directory) as gate:
        assert call(gate, "GET", LIST).status == 200
        fresh.write_text("changed\n", encoding="utf-8")
        fresh.chmod(0o600)
        os.replace(fresh, secret)
        assert call(gate, "GET", LIST).status == 200
        assert gate.reload()
        assert call(gate, "GET", LIST).status == 200
    sent = [base64.b64decode(value.removeprefix("Basic ")).decode().partition(":")[2] for value in credentials[1]]
    assert sent[0] == sent[1] != sent[2] == "changed"
