"""The quick start is run as the README says it."""

from __future__ import annotations

import http.client
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.e2e.harness import ROOT, child_environment, edit_config, init_directory, tidegate

SECONDS = 90
RULE = """
deny contains {"code": "closed", "message": "closed"} if input.subject.id == "triage-bot"
"""


def _quickstart(directory: Path, *options: str) -> list[str]:
    return [sys.executable, "-m", "examples.quickstart", "--dir", str(directory), *options]


def _run(directory: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        _quickstart(directory, *options),
        cwd=ROOT,
        env=child_environment(),
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


def test_quickstart_tells_and_does_everything_when_run_once_and_again(tmp_path: Path) -> None:
    first, second = (_run(tmp_path / "run", "--once", "--free-ports") for _ in range(2))
    for done in (first, second):
        assert done.returncode == 0, done.stdout + done.stderr
        for word in ("ALLOWED", "DENIED", "HELD", "APPROVED", "VERIFIED", "STAND-INS"):
            assert word in done.stdout
    assert "Writing a starter directory" in first.stdout
    assert "Using the starter directory" in second.stdout


def test_quickstart_leaves_the_gate_running_until_it_is_ended(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with log.open("wb") as output:
        command = _quickstart(tmp_path / "run", "--free-ports")
        running = subprocess.Popen(command, cwd=ROOT, env=child_environment(), stdout=output, stderr=output)
    try:
        deadline = time.monotonic() + SECONDS
        while "goes on running at " not in log.read_text():
            assert running.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
        gate = urlsplit(log.read_text().rpartition("goes on running at ")[2].split()[0].rstrip("."))
        assert _answers(gate.port or 0)
        running.send_signal(signal.SIGTERM)
        assert running.wait(SECONDS) == 0
        assert not _answers(gate.port or 0), "the gate outlived the quick start"
    finally:
        running.kill()


def _answers(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/health/ready")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


@pytest.fixture
def starter(tmp_path: Path) -> Path:
    """A starter directory on free ports, as somebody may have edited it."""
    return init_directory(tmp_path / "run")


def test_quickstart_could_not_start_when_the_gates_port_is_taken(starter: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        edit_config(starter, {"listen": {"gate": f"127.0.0.1:{taken.getsockname()[1]}"}})
        done = _run(starter, "--once")
    assert done.returncode == 3, done.stdout
    assert "could not start" in done.stderr and "is taken: end what listens there" in done.stderr


def test_quickstart_could_not_start_when_the_configuration_is_wrong(starter: Path) -> None:
    edit_config(starter, {"surprise": True})
    done = _run(starter, "--once")
    assert done.returncode == 3, done.stdout
    assert "surprise" in done.stderr


def test_quickstart_goes_otherwise_when_the_policy_was_changed(starter: Path, opa_path: Path) -> None:
    policy = starter / "bundle/policies/servicenow/servicenow.rego"
    policy.write_text(policy.read_text() + RULE)
    key, out = starter / "keys/bundle.pem", starter / "bundle.tar.gz"
    built = tidegate("bundle", "build", str(starter / "bundle"), "--key", str(key), "--out", str(out))
    done = _run(starter, "--once", "--free-ports")
    assert built.returncode == 0 and done.returncode == 1, built.stderr + done.stdout
    assert "went otherwise than told: the read was answered 403" in done.stderr
