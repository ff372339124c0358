"""What may answer in S3's place: one behaviour per server, on loopback, each connection in its own thread."""

from __future__ import annotations

import contextlib
import re
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

STOP_SECONDS = 30.0
"""The longest that a behaviour goes on by itself."""
PAGE = b"<html><body>Sign in to the network</body></html>"

Behaviour = Callable[[socket.socket, threading.Event], None]


def answering(status: str, body: bytes = b"", *headers: str) -> Behaviour:
    """A complete answer."""
    head = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", ""]
    return sending("\r\n".join(head).encode() + body)


def error(status: str, code: str) -> Behaviour:
    """An error as S3 says it."""
    body = f'<?xml version="1.0"?><Error><Code>{code}</Code><Message>in words</Message></Error>'.encode()
    return answering(status, body, "Content-Type: application/xml")


def sending(raw: bytes) -> Behaviour:
    """These bytes after the whole request, then the end: an end with something unread would be a reset."""

    def behave(connection: socket.socket, stop: threading.Event) -> None:
        head, _, body = read_head(connection).partition(b"\r\n\r\n")
        announced = re.search(rb"(?i)\r\ncontent-length: *([0-9]+)", head)
        missing = (int(announced[1]) if announced else 0) - len(body)
        while missing > 0 and (piece := connection.recv(65_536)):
            missing -= len(piece)
        connection.sendall(raw)

    return behave


def dripping(raw: bytes, *, forever: bytes = b"", pause_seconds: float = 0.05) -> Behaviour:
    """Byte by byte, then ``forever`` again and again."""

    def behave(connection: socket.socket, stop: threading.Event) -> None:
        read_head(connection)
        for byte in raw:
            connection.sendall(bytes([byte]))
            if stop.wait(pause_seconds):
                return
        while forever and not stop.wait(pause_seconds):
            connection.sendall(forever)

    return behave


def silent(connection: socket.socket, stop: threading.Event) -> None:
    """Takes the request and says nothing."""
    read_head(connection)
    stop.wait(STOP_SECONDS)


def deaf(connection: socket.socket, stop: threading.Event) -> None:
    """Does not even take the request."""
    stop.wait(STOP_SECONDS)


def endless(connection: socket.socket, stop: threading.Event) -> None:
    """A body without end, as fast as it is taken."""
    read_head(connection)
    connection.sendall(b'HTTP/1.1 200 OK\r\nETag: "x"\r\n\r\n')
    while not stop.is_set():
        connection.sendall(b"x" * 65_536)


def plain_at_once(connection: socket.socket, stop: threading.Event) -> None:
    """Speaks before it is asked, and no TLS."""
    connection.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
    stop.wait(1)


def refusing_early(connection: socket.socket, stop: threading.Event) -> None:
    """Answers from the head alone and takes none of the body."""
    read_head(connection)
    error("403 Forbidden", "AccessDenied")(Spoken(connection), stop)  # type: ignore[arg-type]


class Spoken:
    """A connection whose head was read already."""

    def __init__(self, connection: socket.socket) -> None:
        self.sendall = connection.sendall

    def recv(self, count: int) -> bytes:
        return b"\r\n\r\n"[:count]


def read_head(connection: socket.socket) -> bytes:
    """The head of the request, and what came along with it."""
    read = b""
    while b"\r\n\r\n" not in read:
        piece = connection.recv(65_536)
        if not piece:
            break
        read += piece
    return read


class HostileServer:
    """A listening socket whose every connection is treated by one behaviour."""

    def __init__(self, behaviour: Behaviour, tls: ssl.SSLContext | None) -> None:
        self.connections = 0
        self._behaviour = behaviour
        self._tls = tls
        self._stop = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept, name="hostile-s3")]
        self._threads[0].start()

    def close(self) -> None:
        """End everything."""
        self._stop.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(10)

    def _accept(self) -> None:
        while not self._stop.is_set():
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            thread = threading.Thread(target=self._treat, args=(connection,), name="hostile-s3-connection")
            self._threads.append(thread)
            thread.start()

    def _treat(self, connection: socket.socket) -> None:
        connection.settimeout(STOP_SECONDS)
        with contextlib.suppress(OSError), connection:
            if self._tls is None:
                self._behaviour(connection, self._stop)
                return
            with self._tls.wrap_socket(connection, server_side=True) as secured:
                self._behaviour(secured, self._stop)


@contextmanager
def hostile(behaviour: Behaviour, tls: ssl.SSLContext | None = None) -> Iterator[HostileServer]:
    """A server that behaves like this until the end of the block."""
    server = HostileServer(behaviour, tls)
    try:
        yield server
    finally:
        server.close()
