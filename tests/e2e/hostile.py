"""An upstream that misbehaves as the path tells it to; it counts what it was asked."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

HANG_SECONDS = 30.0
FLOOD_CHUNK = b"x" * 65536
FLOOD_BYTES = 64 << 20
OK = b'{"result": []}'


class HostileUpstream:
    """Serves one request per connection; `asked` holds the request lines."""

    def __init__(self) -> None:
        self.port = 0
        self.asked: list[str] = []
        self._ended = threading.Event()

    @classmethod
    @contextmanager
    def start(cls) -> Iterator[HostileUpstream]:
        """Serve on a free loopback port until the end of the block."""
        upstream = cls()
        with socket.create_server(("127.0.0.1", 0)) as listener:
            listener.settimeout(0.2)
            upstream.port = listener.getsockname()[1]
            thread = threading.Thread(target=upstream._accept, args=(listener,), name="hostile", daemon=True)
            thread.start()
            try:
                yield upstream
            finally:
                upstream._ended.set()
                thread.join()

    def _accept(self, listener: socket.socket) -> None:
        while not self._ended.is_set():
            try:
                link, _ = listener.accept()
            except TimeoutError:
                continue
            threading.Thread(target=self._serve, args=(link,), name="hostile-one", daemon=True).start()

    def _serve(self, link: socket.socket) -> None:
        with link, contextlib.suppress(OSError):
            link.settimeout(HANG_SECONDS)
            head = b""
            while b"\r\n\r\n" not in head:
                piece = link.recv(65536)
                if not piece:
                    return
                head += piece
            line = head.split(b"\r\n", 1)[0].decode("latin-1")
            self.asked.append(line)
            self._misbehave(link, line)

    def _misbehave(self, link: socket.socket, line: str) -> None:
        if "close" in line:
            return
        if "hang" in line:
            self._ended.wait(HANG_SECONDS)
        elif "cut" in line:
            link.sendall(_head(200, 1000) + b'{"result": [')
        elif "flood" in line:
            link.sendall(_head(200, FLOOD_BYTES))
            for _ in range(FLOOD_BYTES // len(FLOOD_CHUNK)):
                link.sendall(FLOOD_CHUNK)
        elif "redirect" in line:
            link.sendall(_head(302, 0, "Location: http://169.254.169.254/latest/meta-data\r\n"))
        elif "garbage" in line:
            link.sendall(b"\x16\x03\x01 this is no HTTP\r\n\r\n")
        else:
            time.sleep(0)
            link.sendall(_head(200, len(OK)) + OK)


def _head(status: int, length: int, extra: str = "") -> bytes:
    return (
        f"HTTP/1.1 {status} OK\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n"
        f"Connection: close\r\n{extra}\r\n"
    ).encode()
