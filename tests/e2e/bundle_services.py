"""A real bundle service as a process, and what publishes to it."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import yaml
from cryptography.hazmat.primitives.asymmetric import ec

from bundles.archive import read_archive
from bundles.build import SigningOptions, sign_files
from bundles.claims import SIGNATURES_FILE
from bundles.keys import generate_signing_key, load_private_key, public_pem, write_private
from tests.e2e.harness import (
    ROOT,
    GateProcess,
    _await,
    _end,
    child_environment,
    edit_config,
    free_port,
    read_config,
    tidegate,
)

LEASE_SECONDS = 5
"""Short enough to wait for, long enough that a busy machine misses no four questions in a row."""

TOKEN = "publisher-" + "t" * 30


@dataclass(slots=True)
class ServiceProcess:
    """A directory with keys, token and configuration, and the service that runs on it."""

    directory: Path
    port: int
    name: str = "main"
    process: subprocess.Popen[bytes] | None = None

    @classmethod
    def prepare(
        cls, directory: Path, bundle_key: Path, *, ttl_seconds: int = 600, name: str = "main"
    ) -> ServiceProcess:
        """Write everything a service for one bundle needs; a short time to live says development."""
        directory.mkdir()
        done = tidegate("bundle", "freshness-key", "--out", str(directory / "freshness.pem"))
        if done.returncode:
            raise RuntimeError(done.stdout + done.stderr)
        (directory / "bundle.pub.pem").write_bytes(public_pem(load_private_key(bundle_key)))
        write_private(directory / "publish.token", TOKEN.encode())
        port = free_port()
        document = {
            "listen": f"127.0.0.1:{port}",
            "development": ttl_seconds < 300,
            "freshness": {"key": "file:freshness.pem", "ttl_seconds": ttl_seconds},
            "bundles": [
                {
                    "name": name,
                    "open": True,
                    "trusted_keys": [{"keyid": "bundle", "algorithm": "ES256", "key": "file:bundle.pub.pem"}],
                }
            ],
            "tokens": [{"name": "ci", "token": "file:publish.token", "may": "publish", "bundles": ["*"]}],
        }
        (directory / "service.yaml").write_text(yaml.safe_dump(document))
        return cls(directory, port, name)

    @property
    def url(self) -> str:
        """The bundle's address."""
        return f"http://127.0.0.1:{self.port}/bundles/{self.name}"

    @property
    def token_file(self) -> Path:
        """The publisher's token."""
        return self.directory / "publish.token"

    @contextmanager
    def running(self) -> Iterator[ServiceProcess]:
        """Run it until the end of the block."""
        self.start()
        try:
            yield self
        finally:
            self.stop()

    def start(self) -> None:
        """Start it and wait until it answers."""
        log = self.directory / "service.log"
        command = [
            sys.executable,
            "-m",
            "cli.main",
            "bundle",
            "serve",
            "--config",
            str(self.directory / "service.yaml"),
        ]
        with log.open("ab") as output:
            self.process = subprocess.Popen(command, cwd=ROOT, env=child_environment(), stdout=output, stderr=output)
        _await(self.process, log, self._answers)

    def stop(self) -> None:
        """End it, if it runs."""
        if self.process is not None:
            _end(self.process)
            self.process = None

    def publish(self, archive: Path) -> subprocess.CompletedProcess[str]:
        """`tidegate bundle publish`."""
        return tidegate(
            "bundle", "publish", str(archive), "--to", self.url, "--token-file", str(self.token_file), "--json"
        )

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health/live", timeout=2) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False


def resigned(
    archive: Path,
    key: Path,
    out: Path,
    *,
    sequence: int,
    epoch: int = 0,
    keyid: str = "bundle",
    **changed: bytes,
) -> Path:
    """The same bundle under another sequence, with files replaced (``__`` for ``/``, ``_dot_`` for a dot)."""
    files = {**read_archive(archive.read_bytes())}
    files.pop(SIGNATURES_FILE)
    files.update({name.replace("__", "/").replace("_dot_", "."): content for name, content in changed.items()})
    options = SigningOptions(keyid=keyid, epoch=epoch, sequence=sequence, issued_at=int(time.time()))
    out.write_bytes(sign_files(files, load_private_key(key), options))
    return out


def new_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """Another signing key on disk."""
    key = generate_signing_key(path)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise TypeError("a P-256 key was expected")
    return key


def asked(url: str, document: Mapping[str, Any] | None = None, *, timeout: float = 5) -> Any:
    """JSON from a URL; `None` when nobody answers with 200."""
    body = None if document is None else json.dumps(document).encode()
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            return json.loads(answer.read() or b"null")
    except (urllib.error.URLError, OSError):
        return None


def eventually(probe: Any, seconds: float) -> Any:
    """The first truthy answer of `probe` within `seconds`, else its last one."""
    deadline = time.monotonic() + seconds
    while True:
        found = probe()
        if found or time.monotonic() > deadline:
            return found
        time.sleep(0.05)


def follow(directory: Path, service: ServiceProcess, **changes: Any) -> None:
    """Let the gate of a starter directory follow the service instead of its file."""
    public = (service.directory / "freshness.pub.pem").read_bytes()
    (directory / "keys" / "freshness.pub.pem").write_bytes(public)
    bundle = read_config(directory)["bundles"][0]
    followed = {
        "source": service.url,
        "freshness": "signed",
        "freshness_keys": [{"keyid": "freshness", "algorithm": "ES256", "key": "file:keys/freshness.pub.pem"}],
        "lease_seconds": LEASE_SECONDS,
        "poll_seconds": 1,
        "allow_addresses": ["loopback"],
    }
    edit_config(directory, {"bundles": [{**bundle, **followed, **changes}]})


def spawn_stale(directory: Path) -> GateProcess:
    """Start a gate that need not become ready: it lives, and refuses for want of a fresh bundle."""
    url = f"http://{read_config(directory)['listen']['gate']}"
    log = directory / "gate.log"
    command = [sys.executable, "-m", "cli.main", "gateway", "run", "--config", str(directory / "tidegate.yaml")]
    with log.open("ab") as output:
        process = subprocess.Popen(command, cwd=directory, env=child_environment(), stdout=output, stderr=output)
    _await(process, log, lambda: asked(f"{url}/health/live") is not None)
    return GateProcess(directory, url, process, log)


@contextmanager
def lying_service(port: int, archive: bytes, statement: Callable[[], str]) -> Iterator[list[str]]:
    """A service that answers every question with this archive and a new statement; the questions' conditions."""
    conditions: list[str] = []

    class Liar(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            conditions.append(self.headers.get("If-None-Match", ""))
            self.send_response(200)
            self.send_header("Content-Type", "application/vnd.openpolicyagent.bundles")
            self.send_header("Content-Length", str(len(archive)))
            self.send_header("Tidegate-Freshness", statement())
            self.end_headers()
            self.wfile.write(archive)

        def log_message(self, format: str, *args: Any) -> None:
            """Silent."""

    server = ThreadingHTTPServer(("127.0.0.1", port), Liar)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), name="lying-service")
    thread.start()
    try:
        yield conditions
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
