"""The processes of the quick start: stand-ins and gate, started, watched and ended."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

START_SECONDS = 30.0
STOP_SECONDS = 30.0
POLL_SECONDS = 0.03
ROOT = Path(__file__).resolve().parents[2]


class StartFailed(Exception):
    """A part did not start; the text says which and where its output is."""


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Processes:
    """Everything that runs beside the scenario, in one directory."""

    def __init__(self, directory: Path, *, free_ports: bool = False) -> None:
        self.directory = directory.resolve()
        self.config = self.directory / "tidegate.yaml"
        self.gate_url = "http://127.0.0.1:8080"
        self._free_ports = free_ports
        self._environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        self._running: list[subprocess.Popen[bytes]] = []

    def prepare(self) -> None:
        """Write the starter directory, once."""
        if self.config.exists():
            print(f"Using the starter directory {self.directory}.")
            return
        print(
            f"Writing a starter directory to {self.directory}: configuration, keys, policies and their signed bundle."
        )
        done = self.tidegate("init", str(self.directory))
        if done.returncode:
            raise StartFailed(f"tidegate init: {done.stderr.strip() or done.stdout.strip()}")

    def tidegate(self, *arguments: str, token: str = "") -> subprocess.CompletedProcess[str]:
        """One `tidegate` command, as a person would type it."""
        environment = {**self._environment, "TIDEGATE_GATE": self.gate_url}
        if token:
            environment["TIDEGATE_TOKEN"] = token
        command = [sys.executable, "-m", "cli.main", *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)

    def start(self) -> None:
        """Start the stand-ins and the gate, and wait until the gate is ready. Raises `StartFailed`."""
        ports_file = self.directory / "state" / "standins.json"
        ports_file.unlink(missing_ok=True)
        stand_ins = ["-m", "examples.standins", "--secrets-dir", str(self.directory / "keys")]
        if self._free_ports:
            stand_ins += ["--ports-file", str(ports_file)]
        first = self._spawn("standins", stand_ins)
        if self._free_ports:
            self._until("standins", first, ports_file.exists)
            self._use_free_ports(json.loads(ports_file.read_text()))
        gate = self._spawn("gate", ["-m", "cli.main", "gateway", "run", "--config", str(self.config)])
        self._until("gate", gate, self._ready)
        if first.poll() is not None:
            raise StartFailed(f"the stand-ins ended; see {self.directory / 'standins.log'}")
        print(
            f"The gate listens at {self.gate_url}; STAND-INS of the services run on loopback, no real one is touched.\n"
        )

    def _use_free_ports(self, ports: dict[str, int]) -> None:
        gate = f"127.0.0.1:{_free_port()}"
        self.gate_url = f"http://{gate}"
        self._environment["TIDEGATE_CONFIG__LISTEN__GATE"] = gate
        self._environment["TIDEGATE_CONFIG__LISTEN__METRICS"] = f"127.0.0.1:{_free_port()}"
        for name, port in ports.items():
            variable = f"TIDEGATE_CONFIG__INSTANCES__{name.upper().replace('-', '_')}__BASE_URL"
            self._environment[variable] = f"http://127.0.0.1:{port}"

    def _spawn(self, name: str, arguments: list[str]) -> subprocess.Popen[bytes]:
        with (self.directory / f"{name}.log").open("wb") as log:
            process = subprocess.Popen([sys.executable, *arguments], env=self._environment, stdout=log, stderr=log)
        self._running.append(process)
        return process

    def _until(self, name: str, process: subprocess.Popen[bytes], ready: object) -> None:
        deadline = time.monotonic() + START_SECONDS
        log = self.directory / f"{name}.log"
        while time.monotonic() < deadline:
            if process.poll() is not None:
                last = log.read_text(errors="replace").strip().splitlines()[-1:]
                raise StartFailed(f"{name} ended at once: {' '.join(last)} (see {log})")
            if callable(ready) and ready():
                return
            time.sleep(POLL_SECONDS)
        raise StartFailed(f"{name} was not ready after {START_SECONDS:.0f} seconds (see {log})")

    def _ready(self) -> bool:
        parts = urlsplit(self.gate_url)
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=2)
        with contextlib.closing(connection):
            try:
                connection.request("GET", "/health/ready")
                return connection.getresponse().status == 200
            except (OSError, http.client.HTTPException):
                return False

    def wait(self) -> None:
        """Until the gate ends."""
        self._running[-1].wait()

    def stop(self) -> None:
        """End everything that was started, the gate first."""
        for process in reversed(self._running):
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                try:
                    process.wait(STOP_SECONDS)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
        self._running.clear()
