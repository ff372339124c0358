"""A target that counts: it remembers every path it was asked for, in this process, whatever happens to the gate."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class CountingTarget:
    """Answers every POST with 200 and a small JSON body, and counts it by path before it answers."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seen: Counter[str] = Counter()
        self.port = 0

    def note(self, path: str) -> None:
        """Count one request."""
        with self._lock:
            self._seen[path] += 1

    def seen(self) -> Counter[str]:
        """What was asked for so far, by path."""
        with self._lock:
            return Counter(self._seen)

    @classmethod
    @contextmanager
    def start(cls) -> Iterator[CountingTarget]:
        """Serve on a free loopback port until the end of the block."""
        target = cls()

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length", "0")))
                target.note(self.path)
                body = b'{"ok":true}'
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *arguments: object) -> None:
                """Say nothing: the test reads the counts."""

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        target.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, name="counting-target", daemon=True)
        thread.start()
        try:
            yield target
        finally:
            server.shutdown()
            server.server_close()
            thread.join()
