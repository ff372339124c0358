"""A collector of decision logs on loopback, as strict as the real ones: gzip arrays, a bearer token, a size limit."""

from __future__ import annotations

import gzip
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

WAIT_SECONDS = 40.0
POLL_SECONDS = 0.05


class Collector:
    """What arrived, and how to answer next. `answers` are statuses used up one per upload; then 200."""

    def __init__(self) -> None:
        self.token = "collector-token"
        self.events: list[dict[str, Any]] = []
        self.reports: list[dict[str, Any]] = []
        self.paths: list[str] = []
        self.refused: list[str] = []
        self.answers: list[int] = []
        self.max_bytes = 1 << 20
        self.headers: tuple[tuple[str, str], ...] = ()
        self.port = 0
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}/opa"

    @property
    def decisions(self) -> list[str]:
        """The decisions that arrived, in order."""
        with self.lock:
            return [str(event["decision_id"]) for event in self.events]

    @contextmanager
    def listening(self) -> Iterator[Collector]:
        """Listen until the end of the block; on the same port when it was open before."""
        server = ThreadingHTTPServer(("127.0.0.1", self.port), _handler(self))
        server.daemon_threads = True
        self.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            server.shutdown()
            server.server_close()
            thread.join(WAIT_SECONDS)

    def take(self, path: str, headers: Any, body: bytes) -> int:
        """Judge one request and keep what it brings; the status to answer with."""
        with self.lock:
            self.paths.append(path)
            if headers.get("Authorization") != f"Bearer {self.token}":
                return self._refuse(401, "token")
            if headers.get("Content-Type") != "application/json":
                return self._refuse(415, "type")
            if self.answers and "/logs" in path:
                return self._refuse(self.answers.pop(0), "told to")
            if len(body) > self.max_bytes:
                return self._refuse(413, "size")
            if "/logs" not in path:
                self.reports.append(json.loads(body))
                return 200
            if headers.get("Content-Encoding") != "gzip":
                return self._refuse(415, "coding")
            self.events.extend(json.loads(gzip.decompress(body)))
            return 200

    def _refuse(self, status: int, why: str) -> int:
        self.refused.append(why)
        return status


def _handler(collector: Collector) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
            self.send_response(collector.take(self.path, self.headers, body))
            for name, value in collector.headers:
                self.send_header(name, value)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *arguments: Any) -> None:
            """Quiet."""

    return Handler


def until(holds: Any, what: str) -> None:
    """Wait for a condition, not for ever."""
    deadline = time.monotonic() + WAIT_SECONDS
    while not holds():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {WAIT_SECONDS} s: {what}")
        time.sleep(POLL_SECONDS)
