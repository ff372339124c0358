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
Reading = Callable[[str, str, bytes], tuple[int, str, Any]]
"""The same for an answer that depends on what was sent."""


@dataclass
class GateStub:
    """Where it listens, and each request as method, target and headers."""

    url: str
    asked: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)

    @property
    def targets(self) -> list[str]:
        """The targets that were asked for, in order."""
        return [target for _, target, _ in self.asked]


def _not_found(_method: str, _target: str) -> tuple[int, str, Any]:
    return 404, "application/json", {}


@contextmanager
def gate_stub(answering: Answering = _not_found, bodies: Reading | None = None) -> Iterator[GateStub]:
    """A stub on a loopback port of its own; `bodies` answers in place of `answering` and is given the body too."""

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            sent = self.rfile.read(int(self.headers.get("content-length", 0)))
            stub.asked.append((self.command, self.path, dict(self.headers.items())))
            asked = (self.command, self.path)
            status, media_type, document = bodies(*asked, sent) if bodies is not None else answering(*asked)
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
