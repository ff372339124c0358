"""An upstream that misbehaves as the path tells it to; it counts what it was asked and what it could send.

The word that a path segment or a query value begins with says what to do; a request without one gets a small sound
answer.
"""

from __future__ import annotations

import contextlib
import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

HANG_SECONDS = 30.0
FLOOD_PIECE = b"x" * (1 << 20)
FLOOD_BYTES = 64 << 20
CUT_AFTER_BYTES = 12 << 20
"""More than a gate holds back, so that a streamed answer has begun when it is cut."""
OK = b'{"result": []}'
METADATA = "http://169.254.169.254/latest/meta-data"
JSON, BINARY = "application/json", "application/octet-stream"
_REDIRECT = re.compile(r"redirect-(\d{3})-(\w+)")


class HostileUpstream:
    """Serves one request per connection; `asked` holds the request lines, `flooded` the bytes of endless answers."""

    def __init__(self, flood_bytes: int = FLOOD_BYTES) -> None:
        self.port = 0
        self.asked: list[str] = []
        self.flooded = 0
        self.flood_bytes = flood_bytes
        self.elsewhere = METADATA
        self.released = threading.Event()
        self._ended = threading.Event()

    @classmethod
    @contextmanager
    def start(cls, flood_bytes: int = FLOOD_BYTES) -> Iterator[HostileUpstream]:
        """Serve on a free loopback port until the end of the block."""
        upstream = cls(flood_bytes)
        with socket.create_server(("127.0.0.1", 0)) as listener:
            listener.settimeout(0.2)
            upstream.port = listener.getsockname()[1]
            thread = threading.Thread(target=upstream._accept, args=(listener,), name="hostile", daemon=True)
            thread.start()
            try:
                yield upstream
            finally:
                upstream._ended.set()
                upstream.released.set()
                thread.join()

    def times_asked(self, text: str) -> int:
        """How many requests had `text` in their first line."""
        return sum(text in line for line in self.asked)

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
            named = (fault for word, fault in _FAULTS if f"/{word}" in line or f"={word}" in line)
            fault = next(named, HostileUpstream._answer)
            fault(self, link, line)

    def _answer(self, link: socket.socket, line: str) -> None:
        link.sendall(_head(200, len(OK)) + OK)

    def _wait(self, link: socket.socket, line: str) -> None:
        """Answer when the test releases it."""
        self.released.wait(HANG_SECONDS)
        self._answer(link, line)

    def _late(self, link: socket.socket, line: str) -> None:
        """Close without a word when the test releases it."""
        self.released.wait(HANG_SECONDS)

    def _close(self, link: socket.socket, line: str) -> None:
        """Read, then close without a word."""

    def _hang(self, link: socket.socket, line: str) -> None:
        self._ended.wait(HANG_SECONDS)

    def _hang_in_body(self, link: socket.socket, line: str) -> None:
        link.sendall(_head(200, 1000) + b'{"result": [')
        self._ended.wait(HANG_SECONDS)

    def _idle(self, link: socket.socket, line: str) -> None:
        """One event, and then nothing more."""
        link.sendall(_head(200, None, media_type="text/event-stream") + _chunk(b"data: first\n\n"))
        self._ended.wait(HANG_SECONDS)

    def _cut(self, link: socket.socket, line: str) -> None:
        link.sendall(_head(200, 1000) + b'{"result": [')

    def _cut_chunked(self, link: socket.socket, line: str) -> None:
        link.sendall(_head(200, None) + _chunk(b'{"result": ['))

    def _cut_in_chunk(self, link: socket.socket, line: str) -> None:
        link.sendall(_head(200, None) + b'400\r\n{"result": [')

    def _cut_long(self, link: socket.socket, line: str) -> None:
        link.sendall(_head(200, 2 * CUT_AFTER_BYTES, media_type=BINARY))
        self._flood(link, CUT_AFTER_BYTES, _plain)

    def _cut_long_chunked(self, link: socket.socket, line: str) -> None:
        link.sendall(_head(200, None, media_type=BINARY))
        self._flood(link, CUT_AFTER_BYTES, _chunk)

    def _flood_json(self, link: socket.socket, line: str) -> None:
        link.sendall(_head(200, self.flood_bytes))
        self._flood(link, self.flood_bytes, _plain)

    def _flood_chunked(self, link: socket.socket, line: str) -> None:
        link.sendall(_head(200, None, media_type=BINARY))
        self._flood(link, self.flood_bytes, _chunk)
        link.sendall(b"0\r\n\r\n")

    def _flood_json_chunked(self, link: socket.socket, line: str) -> None:
        link.sendall(_head(200, None))
        self._flood(link, self.flood_bytes, _chunk)

    def _flood_plain(self, link: socket.socket, line: str) -> None:
        link.sendall(_head(200, self.flood_bytes, media_type=BINARY))
        self._flood(link, self.flood_bytes, _plain)

    def _flood(self, link: socket.socket, count: int, framed: Callable[[bytes], bytes]) -> None:
        piece = framed(FLOOD_PIECE)
        for _ in range(count // len(FLOOD_PIECE)):
            link.sendall(piece)
            self.flooded += len(FLOOD_PIECE)

    def _garbage(self, link: socket.socket, line: str) -> None:
        link.sendall(b"\x16\x03\x01 this is no HTTP\r\n\r\n")

    def _long_length(self, link: socket.socket, line: str) -> None:
        """A length of more digits than Python reads, which is the right one for all that."""
        link.sendall(_head(200, len(OK)).replace(b"Length: ", b"Length: " + b"0" * 5_000) + OK)

    def _redirect(self, link: socket.socket, line: str) -> None:
        found = _REDIRECT.search(line)
        status, where = (found[1], found[2]) if found is not None else ("302", "metadata")
        places = {
            "metadata": METADATA,
            "elsewhere": self.elsewhere,
            "own": f"http://127.0.0.1:{self.port}/api/now/table/incident/moved",
            "relative": "/api/now/table/incident/moved",
        }
        link.sendall(_head(int(status), 0, f"Location: {places[where]}\r\n"))


_FAULTS: tuple[tuple[str, Callable[[HostileUpstream, socket.socket, str], None]], ...] = (
    ("wait", HostileUpstream._wait),
    ("late", HostileUpstream._late),
    ("close", HostileUpstream._close),
    ("hang-in-body", HostileUpstream._hang_in_body),
    ("hang", HostileUpstream._hang),
    ("idle", HostileUpstream._idle),
    ("cut-long-chunked", HostileUpstream._cut_long_chunked),
    ("cut-long", HostileUpstream._cut_long),
    ("cut-chunked", HostileUpstream._cut_chunked),
    ("cut-in-chunk", HostileUpstream._cut_in_chunk),
    ("cut", HostileUpstream._cut),
    ("flood-json-chunked", HostileUpstream._flood_json_chunked),
    ("flood-json", HostileUpstream._flood_json),
    ("flood-chunked", HostileUpstream._flood_chunked),
    ("flood", HostileUpstream._flood_plain),
    ("long-length", HostileUpstream._long_length),
    ("redirect", HostileUpstream._redirect),
    ("garbage", HostileUpstream._garbage),
)


@contextmanager
def never_accepting() -> Iterator[int]:
    """A loopback port whose queue of connections is full: dialling it neither succeeds nor fails."""
    with contextlib.ExitStack() as held, socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        port: int = listener.getsockname()[1]
        for _ in range(4):
            link = held.enter_context(socket.socket())
            link.setblocking(False)
            link.connect_ex(("127.0.0.1", port))
        yield port


def _plain(piece: bytes) -> bytes:
    return piece


def _chunk(piece: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(piece), piece)


def _head(status: int, length: int | None, extra: str = "", media_type: str = JSON) -> bytes:
    framing = "Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}"
    return (
        f"HTTP/1.1 {status} OK\r\nContent-Type: {media_type}\r\n{framing}\r\nConnection: close\r\n{extra}\r\n"
    ).encode()
