"""An answer written to the connection exactly as it is given.

Guarantees: status, header fields and body go out as they are, framed once; a body that fails half way ends without its
terminator, so that no client takes it for whole. Leaves to the flow which headers to give.

Used in place of aiohttp's response classes, which add and normalise headers and cost more than the rest of the edge.
"""

from __future__ import annotations

import asyncio
import http
from collections.abc import AsyncIterator, Iterable

from aiohttp import web

from gateway.edge.problem import problem_body, problem_headers
from gateway.errors import GateMisuse, Refusal

_REASONS = {status.value: status.phrase for status in http.HTTPStatus}
_BODILESS = frozenset({204, 304})


class ClientGone(ConnectionError):
    """The client closed, or stopped reading, before the answer was complete."""


class Answer:
    """Status, headers and body of one answer.

    `headers` are pairs of text in latin-1 and hold no framing: `Content-Length` is honoured for a streamed body, set
    for whole bytes; `Transfer-Encoding` and `Connection` are the edge's own.
    """

    __slots__ = ("body", "headers", "reason", "status")

    def __init__(
        self,
        status: int,
        headers: Iterable[tuple[str, str]] = (),
        body: bytes | AsyncIterator[bytes] = b"",
        reason: str | None = None,
    ) -> None:
        self.status = status
        self.headers = tuple(headers)
        self.body = body
        self.reason = _REASONS.get(status, "") if reason is None else reason

    @classmethod
    def problem(cls, refused: Refusal, call_id: str | None = None, headers: Iterable[tuple[str, str]] = ()) -> Answer:
        """The problem document of a refusal, with further headers."""
        return cls(refused.status, (*problem_headers(refused).items(), *headers), problem_body(refused, call_id))

    async def send(self, request: web.BaseRequest, *, close: bool, stall_seconds: float) -> None:
        """Write the answer; `close` says that the connection ends with it, `stall_seconds` how long the client may take none of it.

        Raises `ClientGone` when the client is not there any more, and whatever the body's iterator raises; after either
        the connection is to be dropped.
        """
        transport = request.transport
        body = self.body
        if isinstance(body, bytes):
            if transport is None:
                raise ClientGone("the client closed before the answer")
            self._write_whole(transport, body, request.method == "HEAD", close)
            protocol = request.protocol
            if protocol.writing_paused or protocol.transport is None:
                await _drain(request, stall_seconds)
            return
        try:
            if transport is None:
                raise ClientGone("the client closed before the answer")
            await self._send_pieces(request, transport, body, close, stall_seconds)
        finally:
            closing = getattr(body, "aclose", None)
            if closing is not None:
                await closing()

    def _write_whole(self, transport: asyncio.Transport, body: bytes, head_only: bool, close: bool) -> None:
        lines, declared = self._head(close)
        if self.status in _BODILESS:
            head_only = True
        elif declared is None:
            lines.append(f"Content-Length: {len(body)}")
        transport.write(_encode(lines) if head_only else _encode(lines) + body)

    async def _send_pieces(
        self,
        request: web.BaseRequest,
        transport: asyncio.Transport,
        body: AsyncIterator[bytes],
        close: bool,
        stall_seconds: float,
    ) -> None:
        lines, declared = self._head(close)
        chunked = declared is None and self.status not in _BODILESS and request.version >= (1, 1)
        if chunked:
            lines.append("Transfer-Encoding: chunked")
        transport.write(_encode(lines))
        if request.method == "HEAD" or self.status in _BODILESS:
            return
        if chunked:
            await _write_chunked(request, body, stall_seconds)
        else:
            await _write_plain(request, body, declared, stall_seconds)

    def _head(self, close: bool) -> tuple[list[str], int | None]:
        lines = [f"HTTP/1.1 {self.status} {self.reason}"]
        declared: int | None = None
        for name, value in self.headers:
            lower = name.lower()
            if lower in ("transfer-encoding", "connection"):
                continue
            if lower == "content-length":
                if declared is not None:
                    continue
                declared = int(value)
            lines.append(f"{name}: {value}")
        if close:
            lines.append("Connection: close")
        return lines, declared


def _encode(lines: list[str]) -> bytes:
    """Security: a line end inside a header would be a second header or a second answer."""
    text = "\r\n".join(lines)
    if text.count("\n") != len(lines) - 1 or text.count("\r") != len(lines) - 1 or "\0" in text:
        raise GateMisuse("an answer's header holds a line end")
    return text.encode("latin-1") + b"\r\n\r\n"


async def _drain(request: web.BaseRequest, stall_seconds: float) -> None:
    """Wait while the client reads slower than we write, but not for ever."""
    protocol = request.protocol
    if protocol.transport is None:
        raise ClientGone("the client closed during the answer")
    if not protocol.writing_paused:
        return
    try:
        async with asyncio.timeout(stall_seconds):
            await protocol._drain_helper()
    except (TimeoutError, ConnectionError) as error:
        raise ClientGone("the client does not take the answer") from error


async def _write_chunked(request: web.BaseRequest, body: AsyncIterator[bytes], stall_seconds: float) -> None:
    async for chunk in body:
        transport = request.transport
        if transport is None:
            raise ClientGone("the client closed during the answer")
        if chunk:
            transport.write(b"%x\r\n%b\r\n" % (len(chunk), chunk))
            await _drain(request, stall_seconds)
    transport = request.transport
    if transport is None:
        raise ClientGone("the client closed during the answer")
    transport.write(b"0\r\n\r\n")
    await _drain(request, stall_seconds)


async def _write_plain(
    request: web.BaseRequest, body: AsyncIterator[bytes], declared: int | None, stall_seconds: float
) -> None:
    written = 0
    async for chunk in body:
        transport = request.transport
        if transport is None:
            raise ClientGone("the client closed during the answer")
        written += len(chunk)
        if declared is not None and written > declared:
            raise GateMisuse("an answer's body is longer than its Content-Length")
        transport.write(chunk)
        await _drain(request, stall_seconds)
    if declared is not None and written != declared:
        raise GateMisuse("an answer's body is shorter than its Content-Length")
