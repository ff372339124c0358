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
CHUNKS_FREE: Final = 4_096
CHUNK_MIN_MEAN_BYTES: Final = 16
"""From `CHUNKS_FREE` chunks on, the chunks of a body must hold this much on average."""

_BLANK = re.compile(rb"[\r\n]*+")
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
    """Follows requests through a byte stream; `feed` raises a refusal when a limit is passed.

    Security: every octet is looked at once, however many messages or chunks one read holds.
    """

    __slots__ = ("_chunk", "_chunks", "_limits", "_pending", "_remaining", "body_bytes", "heads", "phase")

    def __init__(self, limits: EdgeLimits) -> None:
        self._limits = limits
        self._pending = b""
        self._remaining = 0
        self._chunk: _Chunk | None = None
        self._chunks = 0
        self.phase = Phase.BETWEEN
        self.heads = 0
        self.body_bytes = 0

    def feed(self, data: bytes) -> None:
        """Take the next octets.

        Raises refusals `uri_too_long`, `headers_too_large` and `malformed_request`.

        Source: RFC 9112 §6 (framing), §7.1 (chunks and trailers).
        """
        if self._pending:
            data, self._pending = self._pending + data, b""
        at, end = 0, len(data)
        while at < end:
            if self.phase is not _BODY:
                at = self._feed_head(data, at)
            elif self._chunk is None:
                at += self._take(end - at)
                if not self._remaining:
                    self.phase = _BETWEEN
            else:
                at = self._feed_chunks(data, at)

    def _take(self, available_bytes: int) -> int:
        """How many of these octets belong to the body; they are counted."""
        taken = min(self._remaining, available_bytes)
        self._remaining -= taken
        self.body_bytes += taken
        return taken

    def _feed_head(self, data: bytes, at: int) -> int:
        """Where what follows the head begins; what is no whole head yet is kept."""
        if self.phase is _BETWEEN:
            if data[at] in b"\r\n":
                blank = _BLANK.match(data, at)
                at = len(data) if blank is None else blank.end()
                if at == len(data):
                    return at
            self.phase = _HEAD
        end = data.find(b"\r\n\r\n", at)
        if end < 0:
            self._pending = data[at:] if at else data
            self._check_head(self._pending)
            return len(data)
        head = data[at : end + 2]
        self._check_head(head)
        self._begin_body(head)
        return end + 4

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
        self._chunk, self._chunks = None, 0
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

    def _feed_chunks(self, data: bytes, at: int) -> int:
        """Where what follows the body begins, or the end of `data`."""
        end = len(data)
        while at < end:
            if self._chunk is _Chunk.DATA:
                at += self._take(end - at)
                if not self._remaining:
                    self._chunk, self._remaining = _Chunk.END, 2
            elif self._chunk is _Chunk.END:
                taken = min(self._remaining, end - at)
                self._remaining -= taken
                at += taken
                if not self._remaining:
                    self._chunk = _Chunk.SIZE
            else:
                line_end = data.find(b"\r\n", at, at + _CHUNK_LINE_MAX_BYTES + 2)
                if line_end < 0:
                    if end - at > _CHUNK_LINE_MAX_BYTES:
                        raise refusal("malformed_request", "a line of the chunked body is too long")
                    self._pending = data[at:]
                    return end
                self._chunk_line(data[at:line_end])
                at = line_end + 2
                if self.phase is not _BODY:
                    return at
        return at

    def _chunk_line(self, line: bytes) -> None:
        if self._chunk is _Chunk.TRAILER:
            if line:
                raise refusal("malformed_request", "trailers are not accepted")
            self.phase, self._chunk = _BETWEEN, None
            return
        match = _CHUNK_SIZE.fullmatch(line)
        if match is None:
            raise refusal("malformed_request", "a chunk of the body states no plain size")
        self._chunks += 1
        if self._chunks > CHUNKS_FREE + self.body_bytes // CHUNK_MIN_MEAN_BYTES:
            raise refusal("malformed_request", "the body comes in too many tiny chunks")
        self._remaining = int(match.group(1), 16)
        self._chunk = _Chunk.DATA if self._remaining else _Chunk.TRAILER


def _target_bytes(line: bytes) -> int:
    """The length of the target in a request line that may not be complete yet."""
    words = line.split(b" ", 2)
    return len(words[1]) if len(words) > 1 else len(line)
