"""A gate of a few lines for tests of commands: it answers what it is told to, and remembers what it was asked."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answering = Callable[[str, str], tuple[int, str, Any]]
"""Method and target (path and query) to status, media type and JSON document or bytes."""


@dataclass
class GateStub:
    """Where it listens, and each request as method, target and headers."""

    url: str
    asked: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)

    @property
    def targets(self) -> list[str]:
        """The targets that were asked for, in order."""
        return [target for _, target, _ in self.asked]


@contextmanager
def gate_stub(answering: Answering) -> Iterator[GateStub]:
    """A stub on a loopback port of its own."""

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            self.rfile.read(int(self.headers.get("content-length", 0)))
            stub.asked.append((self.command, self.path, dict(self.headers.items())))
            status, media_type, document = answering(self.command, self.path)
            body = document if isinstance(document, bytes) else json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Type", media_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = do_PUT = do_DELETE = _answer

        def log_message(self, format: str, *arguments: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    stub = GateStub(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), name="gate-stub", daemon=True)
    thread.start()
    try:
        yield stub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
