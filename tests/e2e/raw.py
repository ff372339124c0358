"""Requests as bytes on a socket, for what no well-behaved client sends."""

from __future__ import annotations

import json
import socket
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

ANSWER_SECONDS = 40.0
ANSWER_MAX_BYTES = 4 << 20


@dataclass(frozen=True, slots=True)
class Answer:
    """A parsed answer: status, headers by lower-case name, body bytes."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def code(self) -> str:
        """The problem document's code; empty when the body is none."""
        if not self.headers.get("content-type", "").startswith("application/problem+json"):
            return ""
        return str(self.json()["code"])

    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


def exchange(url: str, *pieces: bytes, hold_open: bool = False) -> Answer:
    """Send the pieces over one connection and read one answer.

    The server may answer and close before everything is sent; what it said still counts. With `hold_open` the sending
    side stays open, as a slow client's would.
    """
    parts = urlsplit(url)
    with socket.create_connection((parts.hostname, parts.port), timeout=ANSWER_SECONDS) as link:
        try:
            for piece in pieces:
                link.sendall(piece)
            if not hold_open:
                link.shutdown(socket.SHUT_WR)
        except (BrokenPipeError, ConnectionResetError):
            pass  # the answer may already be there
        return read_answer(link)


def conversation(url: str, *pieces: bytes) -> bytes:
    """Send the pieces over one connection and read everything until the server ends it; the sending side stays open."""
    parts = urlsplit(url)
    raw = bytearray()
    with socket.create_connection((parts.hostname, parts.port), timeout=ANSWER_SECONDS) as link:
        try:
            for piece in pieces:
                link.sendall(piece)
        except (BrokenPipeError, ConnectionResetError):
            pass  # the answer may already be there
        while chunk := _receive(link):
            raw += chunk
            if len(raw) > ANSWER_MAX_BYTES:
                raise AssertionError(f"more than {ANSWER_MAX_BYTES} bytes of answers")
    return bytes(raw)


def read_answer(link: socket.socket) -> Answer:
    raw = bytearray()
    while b"\r\n\r\n" not in raw:
        chunk = _receive(link)
        if not chunk:
            raise AssertionError(f"no answer, only {bytes(raw)!r}")
        raw += chunk
    head, _, body = bytes(raw).partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    length = int(headers.get("content-length", ANSWER_MAX_BYTES))
    while len(body) < length:
        chunk = _receive(link)
        if not chunk:
            break
        body += chunk
    return Answer(int(first.split(" ")[1]), headers, body)


def _receive(link: socket.socket) -> bytes:
    try:
        return link.recv(65536)
    except ConnectionResetError:
        return b""


def request(method: str, target: str, headers: dict[str, str] | None = None, body: bytes | None = None) -> bytes:
    """One plain HTTP/1.1 request; `Content-Length` is added when it is not given. `Host` is the caller's to say."""
    given = {name.lower() for name in headers or {}}
    if "host" not in given:
        raise ValueError("a request names its host")
    lines = [f"{method} {target} HTTP/1.1"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    if body is not None and not given & {"content-length", "transfer-encoding"}:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + (body or b"")
