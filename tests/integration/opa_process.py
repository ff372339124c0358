"""A real `opa run --server` with a signed bundle, on loopback and on a Unix socket, verification on."""

from __future__ import annotations

import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.harness import free_port
from tests.integration.opa_verdicts import OPA

START_DEADLINE_SECONDS = 60
STOP_DEADLINE_SECONDS = 20
_POLL_SECONDS = 0.02


@contextmanager
def socket_folder() -> Iterator[Path]:
    """A folder with a short name, because a socket's path has 108 bytes at most."""
    with tempfile.TemporaryDirectory(prefix="opa") as scratch:
        yield Path(scratch)


@dataclass(frozen=True, slots=True)
class OpaProcess:
    """A running server."""

    url: str
    socket_url: str
    process: subprocess.Popen[bytes]

    @classmethod
    @contextmanager
    def start(cls, folder: Path, raw: bytes, public: bytes, *, port: int | None = None) -> Iterator[OpaProcess]:
        """Serve a bundle that this key signed until the block ends; raises ``RuntimeError`` when OPA refuses it."""
        with socket_folder() as sockets:
            running = cls.spawn(folder, raw, public, sockets / "opa.sock", port=port)
            try:
                yield running
            finally:
                running.stop()

    @classmethod
    def spawn(
        cls, folder: Path, raw: bytes, public: bytes, socket_path: Path, *, port: int | None = None
    ) -> OpaProcess:
        """Serve, listening at this socket too, until ``stop``."""
        url = f"http://127.0.0.1:{port if port is not None else free_port()}"
        process = _started(folder, raw, public, ["--addr", url, "--addr", f"unix://{socket_path}"])
        try:
            _wait_until_healthy(process, f"{url}/health?bundles")
        except RuntimeError:
            process.kill()
            process.communicate()
            raise
        return cls(url, f"unix://{socket_path}", process)

    def stop(self) -> None:
        """End it, if it has not ended."""
        self.process.terminate()
        self.process.communicate(timeout=STOP_DEADLINE_SECONDS)

    @staticmethod
    def refusal(folder: Path, raw: bytes, public: bytes) -> str:
        """What OPA says when it refuses to serve a bundle; raises ``RuntimeError`` when it serves it."""
        process = _started(folder, raw, public, ["--addr", f"http://127.0.0.1:{free_port()}"])
        try:
            out, err = process.communicate(timeout=START_DEADLINE_SECONDS)
        except subprocess.TimeoutExpired as serving:
            process.kill()
            process.communicate()
            raise RuntimeError("OPA serves the bundle") from serving
        if process.returncode == 0:
            raise RuntimeError("OPA ended without an error")
        return (out + err).decode("utf-8", "replace")


def _started(folder: Path, raw: bytes, public: bytes, more: Sequence[str]) -> subprocess.Popen[bytes]:
    (folder / "bundle.tar.gz").write_bytes(raw)
    (folder / "key.pub").write_bytes(public)
    command = [str(OPA), "run", "--server", "--log-level", "error", "--disable-telemetry", *more]
    command += ["--bundle", "bundle.tar.gz", "--verification-key", "key.pub", "--verification-key-id", "bundle"]
    command += ["--signing-alg", "ES256", "--scope", "write"]
    return subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def _wait_until_healthy(process: subprocess.Popen[bytes], url: str) -> None:
    deadline = time.monotonic() + START_DEADLINE_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            urllib.request.urlopen(url, timeout=1).close()
        except (urllib.error.URLError, OSError):
            time.sleep(_POLL_SECONDS)
        else:
            return
    raise RuntimeError("OPA did not start")
