"""The starter directory as the README writes it, used from another working directory; only its own files are edited."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.harness import StandIns, child_environment, edit_config, free_port, point_at_stand_ins, tidegate

DIRECTORY = "../place/gate"
CONFIG = f"{DIRECTORY}/tidegate.yaml"
PARTS = ("tidegate.yaml", "keys", "bundle", "bundle.tar.gz", "state")
SECONDS = 40.0
RULE = """
deny contains {"code": "staging_is_closed", "message": "staging is being moved"} if {
	tidegate.is_action("servicenow.incident.list")
	tidegate.in_environment("staging")
}
"""


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """Where commands are run, the starter directory beside it, and the gate's address as its configuration says it."""

    work: Path
    directory: Path
    gate: str

    def run(self, *arguments: str, token: str = "") -> subprocess.CompletedProcess[str]:
        """One command, run where the starter directory is not."""
        return tidegate(*arguments, token=token, gate=self.gate, cwd=self.work)

    def token(self, environment: str) -> str:
        """What `tidegate token` prints for the triage agent."""
        scope = ("--tenant", "acme", "--workspace", "ops", "--environment", environment, "--role", "triage")
        done = self.run("token", "--config", CONFIG, "--subject", "triage-bot", *scope)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory, stand_ins: StandIns) -> Elsewhere:
    """A starter directory with other ports and upstreams, a new rule, and one connector's policies taken out."""
    root = tmp_path_factory.mktemp("elsewhere")
    work, directory = root / "work", root / "place" / "gate"
    work.mkdir()
    done = tidegate("init", DIRECTORY, cwd=work)
    assert done.returncode == 0, done.stderr
    address, metrics = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
    edit_config(directory, {"listen": {"gate": address, "metrics": metrics}})
    point_at_stand_ins(directory, stand_ins)
    with (directory / "bundle/policies/servicenow/servicenow.rego").open("a", encoding="utf-8") as policy:
        policy.write(RULE)
    shutil.rmtree(directory / "bundle/policies/webhook")
    return Elsewhere(work, directory, f"http://{address}")


@pytest.fixture(scope="module")
def built(elsewhere: Elsewhere, opa_path: Path) -> Elsewhere:
    """The same, built and signed again with the command that `init` names."""
    key, out = f"{DIRECTORY}/keys/bundle.pem", f"{DIRECTORY}/bundle.tar.gz"
    done = elsewhere.run("bundle", "build", f"{DIRECTORY}/bundle", "--key", key, "--out", out, "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout)["sequence"] == 2
    return elsewhere


@contextmanager
def _running(elsewhere: Elsewhere) -> Iterator[None]:
    command = [sys.executable, "-m", "cli.main", "gateway", "run", "--config", CONFIG]
    log = elsewhere.directory.parent / "gate.log"
    with log.open("wb") as output:
        gate = subprocess.Popen(command, cwd=elsewhere.work, env=child_environment(), stdout=output, stderr=output)
    try:
        deadline = time.monotonic() + SECONDS
        while not _ready(elsewhere.gate):
            assert gate.poll() is None and time.monotonic() < deadline, log.read_text(errors="replace")
            time.sleep(0.05)
        yield
    finally:
        gate.send_signal(signal.SIGTERM)
        assert gate.wait(SECONDS) == 0, log.read_text(errors="replace")


def _ready(gate: str) -> bool:
    try:
        with urllib.request.urlopen(f"{gate}/health/ready", timeout=2) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _list_incidents(elsewhere: Elsewhere, environment: str) -> subprocess.CompletedProcess[str]:
    limit = ("--arg", "sysparm_limit=1", "--json")
    return elsewhere.run("call", "servicenow", "servicenow.incident.list", *limit, token=elsewhere.token(environment))


def test_starter_directory_works_as_written_when_used_from_elsewhere(built: Elsewhere) -> None:
    with _running(built):
        allowed, denied = _list_incidents(built, "test"), _list_incidents(built, "staging")
    said = json.loads(allowed.stdout)
    assert (allowed.returncode, said["state"], said["effect"], said["status"]) == (0, "done", "ALLOW", 200)
    assert len(said["response"]["result"]) == 1
    assert denied.returncode == 1
    assert "staging_is_closed" in denied.stdout + denied.stderr
    verified = built.run("ledger", "verify", "--config", CONFIG)
    assert verified.returncode == 0, verified.stdout
    assert not list(built.work.iterdir()), "something was written where the commands were run"


def test_check_says_which_instance_no_policy_covers_when_run_from_elsewhere(built: Elsewhere) -> None:
    checked = built.run("gateway", "check", "--config", CONFIG, "--json")
    document = json.loads(checked.stdout)
    assert (checked.returncode, document["enforcement"]["uncovered_instances"]) == (0, ["webhook"])
    assert [finding["what"] for finding in document["findings"]] == [
        "the instance webhook has no policy: every call to it is denied"
    ]
    assert "the instance webhook has no policy" in built.run("gateway", "check", "--config", CONFIG).stdout


def test_doctor_names_the_instance_when_no_policy_covers_it(built: Elsewhere) -> None:
    done = built.run("doctor", "--config", CONFIG)
    assert done.returncode == 1
    assert "the instance webhook has no policy" in done.stdout
    assert "mend: add policies for its connector" in done.stdout


def test_gate_does_not_start_when_the_bundle_is_not_there(elsewhere: Elsewhere, tmp_path: Path) -> None:
    edited = tmp_path / "tidegate.yaml"
    edited.write_text((elsewhere.directory / "tidegate.yaml").read_text())
    done = elsewhere.run("gateway", "check", "--config", str(edited))
    assert done.returncode == 1, "relative paths are relative to the file that names them"
    assert "missing" in done.stderr


@pytest.mark.parametrize("part", PARTS)
def test_init_refuses_and_writes_nothing_when_one_part_exists(tmp_path: Path, part: str) -> None:
    directory = tmp_path / "gate"
    directory.mkdir()
    (directory / part).write_text("mine")
    done = tidegate("init", "gate", cwd=tmp_path)
    assert done.returncode == 1
    assert f"{part} exists" in done.stderr
    assert [path.name for path in directory.iterdir()] == [part]
    assert (directory / part).read_text() == "mine"


def test_init_refuses_when_the_directory_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "gate").write_text("mine")
    done = tidegate("init", "gate", cwd=tmp_path)
    assert done.returncode == 1
    assert (tmp_path / "gate").read_text() == "mine"


def test_init_refuses_when_the_configuration_is_a_link_to_nothing(tmp_path: Path) -> None:
    directory = tmp_path / "gate"
    directory.mkdir()
    os.symlink(tmp_path / "outside", directory / "tidegate.yaml")
    assert tidegate("init", "gate", cwd=tmp_path).returncode == 1
    assert [path.name for path in directory.iterdir()] == ["tidegate.yaml"]
    assert not (tmp_path / "outside").exists()


@pytest.mark.parametrize(
    ("given", "written"),
    [
        pytest.param("gate", "here/gate", id="a name"),
        pytest.param("deep/er/gate", "here/deep/er/gate", id="a path whose folders are not there yet"),
        pytest.param("../gate", "gate", id="a path that leads up"),
        pytest.param(".", "here", id="the working directory itself"),
    ],
)
def test_init_writes_a_directory_that_checks_when_it_is_given_as(tmp_path: Path, given: str, written: str) -> None:
    here = tmp_path / "here"
    here.mkdir()
    done = tidegate("init", given, cwd=here)
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in (tmp_path / written).iterdir()) == sorted(PARTS)
    assert tidegate("gateway", "check", "--config", f"{given}/tidegate.yaml", cwd=here).returncode == 0
