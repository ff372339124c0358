"""`docs/bundle-service.md`: its commands and both configurations work as they stand, on a port that is free."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

from tests.e2e.calling import until
from tests.e2e.harness import ROOT, GateProcess, child_environment, edit_config, free_port, init_directory
from tests.integration.pages import blocks, page, section
from tests.integration.test_v1 import send

SET_UP = section(page("bundle-service.md"), "## Set it up")
PORT = "8090"
SERVE = "bundle serve"


def _environment() -> dict[str, str]:
    environment = child_environment()
    return environment | {"PATH": f"{ROOT / '.venv' / 'bin'}:{environment['PATH']}"}


def _run(command: str, directory: Path) -> str:
    done = subprocess.run(
        ["bash", "-ec", command],
        cwd=directory,
        env=_environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout


@contextmanager
def _serving(command: str, directory: Path, port: int) -> Iterator[None]:
    with (directory / "service.log").open("wb") as log:
        process = subprocess.Popen(
            ["bash", "-ec", command.removesuffix("&") + "& wait"],
            cwd=directory,
            env=_environment(),
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        until("the service listens", lambda: _listens(port) or None)
        yield
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(30)


def _listens(port: int) -> bool:
    return (
        subprocess.run(
            ["bash", "-c", f"exec 3<>/dev/tcp/127.0.0.1/{port}"], capture_output=True, check=False
        ).returncode
        == 0
    )


@pytest.mark.timeout(180)
def test_commands_and_configurations_work_as_the_page_shows_them(tmp_path: Path) -> None:
    commands, service, gate = blocks(SET_UP)
    assert (commands.language, service.language, gate.language) == ("sh", "yaml", "yaml")
    port = free_port()
    directory = init_directory(tmp_path / "gate")
    before, serve, after = commands.text.partition(next(line for line in commands.text.splitlines() if SERVE in line))
    _run(before, directory)
    (directory / "service" / "bundle-service.yaml").write_text(service.text.replace(PORT, str(port)), encoding="utf-8")
    with _serving(serve, directory, port):
        printed = _run(after.replace(PORT, str(port)), directory)
        assert "acme/main" in printed
        _follow(directory, yaml.safe_load(gate.text), port)
        with GateProcess.start(directory) as running:
            answer = send(running, "GET", "/v1/enforcement", token=running.token("ops", "operator"))
            bundle = answer.body["bundles"][0]
            assert (bundle["name"], bundle["freshness"]) == ("main", "signed"), bundle
            assert 0 < bundle["lease_remaining_seconds"] <= 600


def _follow(directory: Path, shown: dict[str, object], port: int) -> None:
    """Let the gate follow the service as the page shows it, over loopback instead of TLS."""
    (directory / "keys" / "freshness.pub.pem").write_bytes((directory / "service" / "freshness.pub.pem").read_bytes())
    (directory / "keys" / "service.token").write_bytes((directory / "service" / "gates.token").read_bytes())
    (directory / "keys" / "service.token").chmod(0o600)
    (entry,) = shown["bundles"]  # type: ignore[misc]
    entry |= {"source": f"http://127.0.0.1:{port}/bundles/acme/main", "allow_addresses": ["loopback"]}
    edit_config(directory, {"bundles": [entry]})
