"""Watches the bytes of one connection for what the HTTP parser does not limit or tell.

Guarantees: the length of the request target, size and count of header fields, contradicting framing and the presence
of trailers are noticed on the raw octets, before the parser has acted on them. Leaves to the parser everything else:
this watch only ever refuses, and it refuses what it cannot follow.
"""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Final

from gateway.edge.limits import EdgeLimits
from gateway.edge.problem import refusal

_CHUNK_LINE_MAX_BYTES: Final = 256

_FRAMING = re.compile(rb"\r\n(content-length|transfer-encoding)[ \t]*:[ \t]*([^\r\n]*)", re.IGNORECASE)
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})(?:[ \t]*;[^\r\n]*)?")


class Phase(StrEnum):
    """Where in a message the connection stands."""

    BETWEEN = "between"
    HEAD = "head"
    BODY = "body"


_BETWEEN, _HEAD, _BODY = Phase  # look-ups on an enumeration's class are slow, and these happen for every request


class _Chunk(StrEnum):
    SIZE = "size"
    DATA = "data"
    END = "end"
    TRAILER = "trailer"


class FramingWatch:
    """Follows requests through a byte stream; `feed` raises a refusal when a limit is passed."""

    __slots__ = ("_chunk", "_limits", "_pending", "_remaining", "body_bytes", "heads", "phase")

    def __init__(self, limits: EdgeLimits) -> None:
        self._limits = limits
        self._pending = b""
        self._remaining = 0
        self._chunk: _Chunk | None = None
        self.phase = Phase.BETWEEN
        self.heads = 0
        self.body_bytes = 0

    def feed(self, data: bytes) -> None:
        """Take the next octets.

        Raises refusals `uri_too_long`, `headers_too_large` and `malformed_request`.

        Source: RFC 9112 §6 (framing), §7.1 (chunks and trailers).
        """
        while data:
            if self.phase is not _BODY:
                data = self._feed_head(data)
            elif self._chunk is None:
                taken = min(self._remaining, len(data))
                self._remaining -= taken
                self.body_bytes += taken
                data = data[taken:]
                if not self._remaining:
                    self.phase = Phase.BETWEEN
            else:
                data = self._feed_chunks(data)

    def _feed_head(self, data: bytes) -> bytes:
        if self.phase is _BETWEEN:
            data = data.lstrip(b"\r\n")
            if not data:
                return b""
            self.phase = _HEAD
        pending = self._pending + data if self._pending else data
        end = pending.find(b"\r\n\r\n")
        if end < 0:
            self._check_head(pending)
            self._pending = pending
            return b""
        head = pending[: end + 2]
        self._check_head(head)
        self._pending = b""
        self._begin_body(head)
        return pending[end + 4 :]

    def _check_head(self, head: bytes) -> None:
        limits = self._limits
        line_end = head.find(b"\r\n")
        line_bytes = line_end if line_end >= 0 else len(head)
        if line_bytes > limits.uri_max_bytes and _target_bytes(head[:line_bytes]) > limits.uri_max_bytes:
            raise refusal("uri_too_long", f"the request target is longer than {limits.uri_max_bytes} bytes")
        if line_end >= 0 and len(head) - line_end > limits.headers_max_bytes:
            raise refusal("headers_too_large", f"the headers are larger than {limits.headers_max_bytes} bytes")
        if head.count(b"\r\n") - 1 > limits.headers_max_count:
            raise refusal("headers_too_large", f"there are more than {limits.headers_max_count} headers")

    def _begin_body(self, head: bytes) -> None:
        self.heads += 1
        self.body_bytes = 0
        self._remaining = 0
        self._chunk = None
        length: bytes | None = None
        for name, value in _FRAMING.findall(head):
            if name[0] in b"tT":
                self._chunk = _Chunk.SIZE
            elif length is not None:
                raise refusal("malformed_request", "the header content-length stands more than once")
            else:
                length = value.strip()
        if length is not None and self._chunk is not None:
            raise refusal("malformed_request", "Content-Length and Transfer-Encoding exclude each other")
        if length is not None:
            if not length.isdigit() or len(length) > 18:
                raise refusal("malformed_request", "Content-Length is no number")
            self._remaining = int(length)
        self.phase = _BODY if self._chunk is not None or self._remaining else _BETWEEN

    def _feed_chunks(self, data: bytes) -> bytes:
        if self._chunk in (_Chunk.DATA, _Chunk.END):
            taken = min(self._remaining, len(data))
            self._remaining -= taken
            if self._chunk is _Chunk.DATA:
                self.body_bytes += taken
            if not self._remaining:
                self._chunk, self._remaining = (_Chunk.END, 2) if self._chunk is _Chunk.DATA else (_Chunk.SIZE, 0)
            return data[taken:]
        pending = self._pending + data
        end = pending.find(b"\r\n")
        if (end if end >= 0 else len(pending)) > _CHUNK_LINE_MAX_BYTES:
            raise refusal("malformed_request", "a line of the chunked body is too long")
        if end < 0:
            self._pending = pending
            return b""
        self._pending = b""
        self._chunk_line(pending[:end])
        return pending[end + 2 :]

    def _chunk_line(self, line: bytes) -> None:
        if self._chunk is _Chunk.TRAILER:
            if line:
                raise refusal("malformed_request", "trailers are not accepted")
            self.phase, self._chunk = Phase.BETWEEN, None
            return
        match = _CHUNK_SIZE.fullmatch(line)
        if match is None:
            raise refusal("malformed_request", "a chunk of the body states no plain size")
        self._remaining = int(match.group(1), 16)
        self._chunk = _Chunk.DATA if self._remaining else _Chunk.TRAILER


def _target_bytes(line: bytes) -> int:
    """The length of the target in a request line that may not be complete yet."""
    words = line.split(b" ", 2)
    return len(words[1]) if len(words) > 1 else len(line)
