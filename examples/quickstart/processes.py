"""The processes of the quick start: stand-ins and gate, started side by side, watched and ended."""

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
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from cli.token import make_token
from gateway.config import ConfigError, GatewayConfig, load_config

START_SECONDS = 30.0
STOP_SECONDS = 30.0
POLL_SECONDS = 0.03
TOKEN_SECONDS = 3600
SERVICE = "servicenow"
DEFAULT_PORTS = {"http": 80, "https": 443}
ROOT = Path(__file__).resolve().parents[2]


class StartFailed(Exception):
    """A part did not start; the text says which and where its output is."""


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _answers(address: tuple[str, int]) -> bool:
    """Whether somebody takes connections there."""
    try:
        socket.create_connection(address, timeout=2).close()
    except OSError:
        return False
    return True


class Processes:
    """Everything that runs beside the scenario, in one directory."""

    def __init__(self, directory: Path, *, free_ports: bool = False) -> None:
        self.directory = directory.resolve()
        self.config = self.directory / "tidegate.yaml"
        self.gate_url = ""
        self._free_ports = free_ports
        self._read: GatewayConfig | None = None
        self._environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        self._running: dict[str, subprocess.Popen[bytes]] = {}

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
        """Start the stand-ins and the gate; `await_ready` sees them through. Raises `StartFailed`."""
        ports_file = self.directory / "state" / "standins.json"
        ports_file.unlink(missing_ok=True)
        stand_ins = ["-m", "examples.standins", "--secrets-dir", str(self.directory / "keys")]
        if self._free_ports:
            stand_ins += ["--ports-file", str(ports_file)]
        self._spawn("standins", stand_ins)
        if self._free_ports:
            self._until("standins", ports_file.exists)
            self._use_free_ports(json.loads(ports_file.read_text()))
        else:
            self._use_configured_port()
        self._spawn("gate", ["-m", "cli.main", "gateway", "run", "--config", str(self.config)])

    def await_ready(self) -> None:
        """Until the gate says it is ready and the service of the scenario listens. Raises `StartFailed`."""
        self._until("gate", self._ready)
        self._until("standins", self._service_listens)
        print(
            f"The gate listens at {self.gate_url}; STAND-INS of the services run on loopback, no real one is touched.\n"
        )

    def _use_configured_port(self) -> None:
        """Where the configuration puts the gate; somebody else who answers there would be taken for it."""
        try:
            host, port = self._configured().endpoint(self._configured().document.listen.gate)
        except ConfigError as error:
            raise StartFailed(str(error)) from error
        self.gate_url = f"http://{host}:{port}"
        if _answers((host, port)):
            mend = f"end what listens there, name another port in {self.config}, or add --free-ports"
            raise StartFailed(f"port {port} of {host} is taken: {mend}")

    def _use_free_ports(self, ports: dict[str, int]) -> None:
        gate = f"127.0.0.1:{_free_port()}"
        self.gate_url = f"http://{gate}"
        self._environment["TIDEGATE_CONFIG__LISTEN__GATE"] = gate
        self._environment["TIDEGATE_CONFIG__LISTEN__METRICS"] = f"127.0.0.1:{_free_port()}"
        for name, port in ports.items():
            variable = f"TIDEGATE_CONFIG__INSTANCES__{name.upper().replace('-', '_')}__BASE_URL"
            self._environment[variable] = f"http://127.0.0.1:{port}"

    def token(self, subject: str, role: str) -> str:
        """What `tidegate token` prints for somebody in production, made here while the gate starts."""
        claims = {"sub": subject, "tenant": "acme", "workspace": "ops", "environment": "prod", "roles": [role]}
        try:
            return make_token(self._configured(), claims, lifetime_seconds=TOKEN_SECONDS, now=int(time.time()))
        except (ConfigError, OSError) as error:
            raise StartFailed(f"no token for {subject}: {error}") from error

    def _configured(self) -> GatewayConfig:
        if self._read is None:
            self._read = load_config(self.config.read_text(encoding="utf-8"), self.directory, self._environment)
        return self._read

    def _spawn(self, name: str, arguments: list[str]) -> None:
        with (self.directory / f"{name}.log").open("wb") as log:
            process = subprocess.Popen([sys.executable, *arguments], env=self._environment, stdout=log, stderr=log)
        self._running[name] = process

    def _until(self, name: str, ready: Callable[[], bool]) -> None:
        process = self._running[name]
        deadline = time.monotonic() + START_SECONDS
        log = self.directory / f"{name}.log"
        while time.monotonic() < deadline:
            if process.poll() is not None:
                last = log.read_text(errors="replace").strip().splitlines()[-1:]
                raise StartFailed(f"{name} ended at once: {' '.join(last)} (see {log})")
            if ready():
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

    def _service_listens(self) -> bool:
        service = urlsplit(self._configured().document.instances[SERVICE].base_url)
        return _answers((service.hostname or "", service.port or DEFAULT_PORTS[service.scheme]))

    def wait(self) -> None:
        """Until the gate ends."""
        self._running["gate"].wait()

    def stop(self) -> None:
        """End everything that was started, the gate first."""
        for process in reversed(self._running.values()):
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                try:
                    process.wait(STOP_SECONDS)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
        self._running.clear()
