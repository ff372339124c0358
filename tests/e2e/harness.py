"""Real processes for end-to-end tests: a starter directory, the stand-ins, a gate.

Everything listens on loopback, on ports the system gives out. Only the configuration file is edited, as a user would.
"""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from cli.token import make_token
from gateway.config import load_config
from gateway.store.port import STORE_PROCESS

ROOT = Path(__file__).resolve().parents[2]
START_SECONDS = 40.0
STOP_SECONDS = 40.0
COMMAND_SECONDS = 120.0
POLL_SECONDS = 0.05
PORTS = (12_000, 32_000)
PORTS_TRIED_MAX = 100
CLAIM_SECONDS = 900.0
"""Longer than any test lasts."""
_CLAIMS = Path(tempfile.gettempdir()) / f"tidegate-test-ports-{os.getuid()}"
_RANDOM = random.SystemRandom()  # two runs side by side, each seeded alike, must not draw alike


class StartFailed(Exception):
    """A process ended, or did not answer in time; the text holds what it printed."""


def tidegate(
    *arguments: str, token: str = "", gate: str = "", cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run one `tidegate` command as a user would; never raises for its exit status."""
    environment = child_environment()
    if token:
        environment["TIDEGATE_TOKEN"] = token
    if gate:
        environment["TIDEGATE_GATE"] = gate
    return subprocess.run(
        [sys.executable, "-m", "cli.main", *arguments],
        cwd=cwd or ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=COMMAND_SECONDS,
        check=False,
    )


def child_environment() -> dict[str, str]:
    """The environment of a child: ours, without this run's settings and without proxies."""
    dropped = ("TIDEGATE_", "HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy", "ALL_PROXY")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(dropped)}
    kept["PYTHONPATH"] = str(ROOT)
    kept["NO_COLOR"] = "1"
    return kept


def _claimed(port: int) -> bool:
    """Whether nobody else's test drew this port lately: runs side by side would find it free as well, and one would lose."""
    _CLAIMS.mkdir(mode=0o700, exist_ok=True)
    claim = _CLAIMS / str(port)
    with suppress(FileNotFoundError):
        if time.time() - claim.stat().st_mtime > CLAIM_SECONDS:
            claim.unlink()
    try:
        claim.touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def free_port() -> int:
    """A loopback port that was free a moment ago, below those that the system gives to outgoing connections."""
    for _ in range(PORTS_TRIED_MAX):
        port = _RANDOM.randrange(*PORTS)
        if not _claimed(port):
            continue
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise StartFailed(f"no free port among {PORTS_TRIED_MAX} tried")


def init_directory(directory: Path) -> Path:
    """Write a starter directory and give it free ports."""
    done = tidegate("init", str(directory))
    if done.returncode:
        raise StartFailed(f"tidegate init: {done.stdout}{done.stderr}")
    edit_config(directory, {"listen": {"gate": f"127.0.0.1:{free_port()}", "metrics": f"127.0.0.1:{free_port()}"}})
    return directory


def edit_config(directory: Path, changes: Mapping[str, Any]) -> None:
    """Merge `changes` into `tidegate.yaml`, one level of sections deep."""
    path = directory / "tidegate.yaml"
    document = yaml.safe_load(path.read_text(encoding="utf-8"))
    for section, value in changes.items():
        if isinstance(value, Mapping) and isinstance(document.get(section), dict):
            for key, entry in value.items():
                if isinstance(entry, Mapping) and isinstance(document[section].get(key), dict):
                    document[section][key] = {**document[section][key], **entry}
                else:
                    document[section][key] = entry
        else:
            document[section] = value
    path.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")


def read_config(directory: Path) -> dict[str, Any]:
    """The configuration document as written."""
    document: dict[str, Any] = yaml.safe_load((directory / "tidegate.yaml").read_text(encoding="utf-8"))
    return document


def _await(process: subprocess.Popen[bytes], log: Path, ready: Any) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise StartFailed(f"ended with {process.returncode}: {log.read_text(errors='replace')[-4000:]}")
        if ready():
            return
        time.sleep(POLL_SECONDS)
    process.kill()
    process.wait()
    raise StartFailed(f"not ready after {START_SECONDS} s: {log.read_text(errors='replace')[-4000:]}")


def _end(process: subprocess.Popen[bytes]) -> int:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    return process.returncode


@dataclass(frozen=True, slots=True)
class StandIns:
    """The stand-in services and where each listens."""

    ports: Mapping[str, int]

    @classmethod
    @contextmanager
    def start(cls, directory: Path) -> Iterator[StandIns]:
        """Run them all on free ports until the end of the block."""
        ports_file, log = directory / "ports.json", directory / "standins.log"
        command = [sys.executable, "-m", "examples.standins", "--ports-file", str(ports_file)]
        with log.open("wb") as output:
            process = subprocess.Popen(command, cwd=ROOT, env=child_environment(), stdout=output, stderr=output)
        try:
            _await(process, log, lambda: ports_file.is_file() and ports_file.read_text().strip().endswith("}"))
            yield cls(json.loads(ports_file.read_text()))
        finally:
            _end(process)


def point_at_stand_ins(directory: Path, stand_ins: StandIns) -> None:
    """Put the stand-ins' ports into the configuration's instances."""
    configured = read_config(directory)["instances"]
    changed = {
        name: {"base_url": f"http://127.0.0.1:{stand_ins.ports[name]}"}
        for name in configured
        if name in stand_ins.ports
    }
    edit_config(directory, {"instances": changed})


@dataclass(slots=True)
class GateProcess:
    """A running gate: its directory, its address, its process."""

    directory: Path
    url: str
    process: subprocess.Popen[bytes]
    log: Path
    _tokens: dict[tuple[str, ...], str] = field(default_factory=dict)

    @classmethod
    @contextmanager
    def start(cls, directory: Path) -> Iterator[GateProcess]:
        """Run a gate on `directory` until the end of the block; graceful stop at its end."""
        running = cls.spawn(directory)
        try:
            yield running
        finally:
            _end(running.process)

    @classmethod
    def spawn(cls, directory: Path) -> GateProcess:
        """Start a gate and wait until it is ready; the caller ends it."""
        url = f"http://{read_config(directory)['listen']['gate']}"
        log = directory / "gate.log"
        command = [sys.executable, "-m", "cli.main", "gateway", "run", "--config", str(directory / "tidegate.yaml")]
        with log.open("ab") as output:
            process = subprocess.Popen(command, cwd=directory, env=child_environment(), stdout=output, stderr=output)
        _await(process, log, lambda: _ready(url))
        return cls(directory, url, process, log)

    def kill(self) -> None:
        """End it as a crash does: no signal handler runs."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        """Ask it to end and give its exit status."""
        return _end(self.process)

    def reload(self) -> bool:
        """Have it read configuration, keys and bundle anew; whether it took them."""
        before = self._reloads()
        self.process.send_signal(signal.SIGHUP)
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            said = self._reloads()[len(before) :]
            if said:
                return said[-1] == "reloaded"
            time.sleep(POLL_SECONDS)
        raise StartFailed(f"no reload after {START_SECONDS} s: {self.log.read_text(errors='replace')[-4000:]}")

    def _reloads(self) -> list[str]:
        lines = [line for line in self.log.read_text(encoding="utf-8").splitlines() if '"event":"gate"' in line]
        said = [str(json.loads(line).get("what")) for line in lines if line.endswith("}")]
        return [what for what in said if what in {"reloaded", "reload_refused"}]

    @property
    def store_pid(self) -> int:
        """The process that owns its store's file."""
        for children in Path(f"/proc/{self.process.pid}/task").glob("*/children"):
            for child in children.read_text().split():
                if STORE_PROCESS.encode() in Path(f"/proc/{child}/cmdline").read_bytes():
                    return int(child)
        raise StartFailed("the gate has no process for its store")

    @property
    def config(self) -> Path:
        """Its configuration file."""
        return self.directory / "tidegate.yaml"

    def token(self, subject: str, *roles: str, environment: str = "test", tenant: str = "acme") -> str:
        """A development token as `tidegate token` makes it, made once and kept."""
        key = (subject, environment, tenant, *roles)
        if key not in self._tokens:
            configured = load_config(self.config.read_text(encoding="utf-8"), self.directory, child_environment())
            claims = {"sub": subject, "tenant": tenant, "workspace": "ops", "environment": environment, "roles": roles}
            self._tokens[key] = make_token(configured, claims, lifetime_seconds=3600, now=int(time.time()))
        return self._tokens[key]

    def instance(self, name: str) -> str:
        """The base URL of an instance, as a client is given it."""
        return f"{self.url}/c/{name}"


def _ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/health/ready", timeout=2) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False
