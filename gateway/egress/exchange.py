"""One request and its answer on one upstream connection.

Guarantees: the connection goes back to its pool only after a whole, plain exchange; an early answer, a cut, a
cancellation or anything unread discards it. Leaves connecting and pooling to `dialer`.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Final

from aiohttp import ClientError, ClientPayloadError, ServerTimeoutError
from aiohttp.client_proto import ResponseHandler
from aiohttp.http import RawResponseMessage
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.streams import EofStream, StreamReader

from gateway.edge.fields import lower_name
from gateway.egress.errors import UpstreamError, UpstreamFailed, UpstreamTimeout
from gateway.egress.wire import Origin, body_framing, declared_length, encode_head
from gateway.errors import GateError, GateMisuse, Refusal

READ_BUFFER_BYTES: Final = 65_536
HEAD_LINE_MAX_BYTES: Final = 16_384
HEAD_FIELDS_MAX: Final = 128
INTERIM_ANSWERS_MAX: Final = 8

_KEEP_ALIVE_TIMEOUT: Final = re.compile(r"timeout\s*=\s*\"?([0-9]{1,6})", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class UpstreamTimeouts:
    """Deadlines of the phases of one exchange."""

    connect_seconds: float = 10.0
    write_seconds: float = 30.0
    first_byte_seconds: float = 60.0
    between_bytes_seconds: float = 60.0


class UpstreamProtocol(ResponseHandler):
    """aiohttp's client protocol; a reset is never mistaken for the end of a body.

    Its deadline is a number that moves with every read; one timer per connection comes back as long as there is one,
    where aiohttp sets and cancels a timer for each read.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self.keep_alive_seconds: float | None = None
        self.idle_since = 0.0
        self._deadline: float | None = None
        self._alarm: asyncio.TimerHandle | None = None
        self._alarm_at = 0.0

    def connection_lost(self, exc: BaseException | None) -> None:
        """A body that is delimited by the close of the connection ends only with an orderly close."""
        payload = self._payload
        if exc is not None and payload is not None and not payload.is_eof():
            payload.set_exception(ClientPayloadError("the connection was reset"))
        super().connection_lost(exc)
        self._drop_timeout()

    def resume_reading(self, resume_parser: bool = True) -> None:
        """Every read of a body asks for this; only after a pause is there something to resume."""
        if self._reading_paused:
            super().resume_reading(resume_parser)

    def _reschedule_timeout(self) -> None:
        seconds = self._read_timeout
        if not seconds:
            self._deadline = None
            return
        self._deadline = due = self._loop.time() + seconds
        if self._alarm is None:
            self._set_alarm(due)
        elif due < self._alarm_at:
            self._alarm.cancel()
            self._set_alarm(due)

    def _drop_timeout(self) -> None:
        self._deadline = None
        if self.transport is None and self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None

    def _set_alarm(self, due: float) -> None:
        self._alarm, self._alarm_at = self._loop.call_at(due, self._ring), due

    def _ring(self) -> None:
        self._alarm, due = None, self._deadline
        if due is None:
            return
        if self._loop.time() < due:
            self._set_alarm(due)
        else:
            self._deadline = None
            self._on_read_timeout()

    def cut(self) -> None:
        """Drop the connection; a body that is on its way has not ended with it."""
        if self.transport is None:
            return
        payload = self._payload
        if payload is not None and not payload.is_eof():
            payload.set_exception(ClientPayloadError("the connection was dropped"))
        self.transport.abort()

    def is_reusable(self) -> bool:
        """Whether the connection is open, and nothing unread or unexpected is on it."""
        return self.is_connected() and not self.should_close

    def write(self, data: bytes) -> None:
        """Hand bytes to the socket. Raises `ConnectionResetError` when it is closed."""
        if self.transport is None or self.transport.is_closing():
            raise ConnectionResetError("the connection is closed")
        self.transport.write(data)

    async def drain(self) -> None:
        """Wait until the socket takes more."""
        if self._paused:
            await self._drain_helper()


class UpstreamResponse:
    """Status and headers of an answer, and its body to be read once.

    `raw_headers` are the octets that came, `headers` the same as text. Trailers are dropped by the parser.
    """

    __slots__ = ("_exchange", "_payload", "raw_headers", "reason", "status")

    def __init__(self, message: RawResponseMessage, payload: StreamReader, exchange: Exchange) -> None:
        self.status: int = message.code
        self.reason: str = message.reason
        self.raw_headers = message.raw_headers
        self._payload = payload
        self._exchange = exchange

    @property
    def headers(self) -> tuple[tuple[str, str], ...]:
        """The fields as they came, text in latin-1."""
        return tuple([(name.decode("latin-1"), value.decode("latin-1")) for name, value in self.raw_headers])

    def lowered(self) -> list[tuple[str, str]]:
        """The fields in their order, with names in lower case."""
        return [(lower_name(name), value.decode("latin-1")) for name, value in self.raw_headers]

    @property
    def content(self) -> AsyncIterator[bytes]:
        """The body in pieces as they come. Raises `UpstreamFailed` or `UpstreamTimeout` when it does not come whole."""
        return self._pieces()

    async def read(self, max_bytes: int) -> bytes:
        """The whole body. Raises `UpstreamFailed` when it is larger than `max_bytes`."""
        pieces: list[bytes] = []
        size = 0
        async for piece in self._pieces():
            size += len(piece)
            if size > max_bytes:
                await self.close(discard=True)
                raise UpstreamFailed(f"the answer is larger than {max_bytes} bytes")
            pieces.append(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def whole(self, max_bytes: int) -> bytes | None:
        """The body if all of it is here already and it has at most `max_bytes`; else nothing is taken."""
        payload = self._payload
        if not payload.is_eof() or payload.exception() is not None or payload.total_bytes > max_bytes:
            return None
        return payload.read_nowait() if self._exchange.end() else None

    def stop(self) -> None:
        """Cut the answer here: whoever waits for its body gets `UpstreamFailed` now."""
        if not self._payload.is_eof():
            self._payload.set_exception(ClientPayloadError("the answer was stopped"))

    async def close(self, discard: bool = False) -> None:
        """Done with this answer; without its end having been read, or with `discard`, the connection is not reused."""
        await self._exchange.finish(reusable=not discard and self._payload.at_eof())

    async def _pieces(self) -> AsyncIterator[bytes]:
        payload = self._payload
        finished = False
        try:
            while not payload.at_eof():
                try:
                    piece = await payload.readany()
                except ServerTimeoutError as error:
                    raise UpstreamTimeout("the upstream stopped in the middle of its answer", sent=True) from error
                except (ClientError, HttpProcessingError, OSError, RuntimeError) as error:
                    raise UpstreamFailed("the upstream cut its answer") from error
                if piece:
                    yield piece
            if payload.exception() is not None:
                raise UpstreamFailed("the upstream cut its answer") from payload.exception()
            finished = True
        finally:
            await self._exchange.finish(reusable=finished)


class Exchange:
    """Sends one request over a connection and reads the head of its answer."""

    def __init__(
        self,
        protocol: UpstreamProtocol,
        origin: Origin,
        timeouts: UpstreamTimeouts,
        release: Callable[[bool], None],
    ) -> None:
        self._protocol = protocol
        self._origin = origin
        self._timeouts = timeouts
        self._release: Callable[[bool], None] | None = release
        self._pump: asyncio.Task[None] | None = None
        self._early = False

    async def run(
        self, method: str, target: str, headers: Sequence[tuple[str, str]], body: bytes | AsyncIterator[bytes] | None
    ) -> UpstreamResponse:
        """Send, and wait for the head. After an error the connection is the caller's to drop."""
        protocol = self._protocol
        protocol.set_response_params(
            skip_payload=method == "HEAD",
            read_until_eof=True,
            auto_decompress=False,
            read_timeout=self._timeouts.first_byte_seconds,
            read_bufsize=READ_BUFFER_BYTES,
            max_line_size=HEAD_LINE_MAX_BYTES,
            max_field_size=HEAD_LINE_MAX_BYTES,
            max_headers=HEAD_FIELDS_MAX,
        )
        try:
            if body is None or isinstance(body, bytes):
                framing = body_framing(method, None if body is None else len(body))
                head = encode_head(method, self._origin, target, headers, framing)
                protocol.write(head + body if body else head)
                protocol.start_timeout()
            else:
                self._start_pump(method, target, headers, body)
            message, payload = await self._head()
        except BaseException as error:
            meant = await self._failure(error)
            if meant is error:
                raise
            raise meant from error
        self._early = self._pump is not None and not self._pump.done()
        protocol.read_timeout = self._timeouts.between_bytes_seconds
        protocol.keep_alive_seconds = _keep_alive(message)
        return UpstreamResponse(message, payload, self)

    def end(self) -> bool:
        """Give the connection back after a whole answer; false when a body is still being sent or that was."""
        if self._pump is not None:
            return False
        release, self._release = self._release, None
        if release is not None:
            release(True)
        return True

    async def finish(self, reusable: bool) -> None:
        """Give the connection back, or drop it. Safe to call again."""
        release, self._release = self._release, None
        if release is None:
            return
        unsent = self._pump is not None and not self._pump.done()
        try:
            if unsent:
                await self._stop_pump()
        finally:
            release(reusable and not unsent and not self._early)

    def _start_pump(
        self, method: str, target: str, headers: Sequence[tuple[str, str]], body: AsyncIterator[bytes]
    ) -> None:
        length = declared_length(headers)
        framing = "Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}"
        self._protocol.write(encode_head(method, self._origin, target, headers, framing))
        self._pump = asyncio.get_running_loop().create_task(self._send_body(body, length), name="send-upstream-body")
        self._pump.add_done_callback(self._pump_done)

    async def _send_body(self, body: AsyncIterator[bytes], length: int | None) -> None:
        protocol, written = self._protocol, 0
        try:
            async for piece in body:
                if not piece:
                    continue
                written += len(piece)
                if length is not None and written > length:
                    raise GateMisuse("a request body is longer than its declared length")
                protocol.write(piece if length is not None else b"%x\r\n%b\r\n" % (len(piece), piece))
                if protocol.writing_paused:
                    try:
                        async with asyncio.timeout(self._timeouts.write_seconds):
                            await protocol.drain()
                    except TimeoutError as error:
                        raise UpstreamTimeout("the upstream does not take the request body", sent=True) from error
            if length is None:
                protocol.write(b"0\r\n\r\n")
            elif written != length:
                raise GateMisuse("a request body is shorter than its declared length")
        finally:
            closing = getattr(body, "aclose", None)
            if closing is not None:
                await closing()
        protocol.start_timeout()

    def _pump_done(self, pump: asyncio.Task[None]) -> None:
        """A body that fails half way must not look whole: the connection goes, and whoever reads from it wakes up."""
        if pump.cancelled() or pump.exception() is not None:
            self._protocol.cut()

    async def _head(self) -> tuple[RawResponseMessage, StreamReader]:
        for _ in range(INTERIM_ANSWERS_MAX):
            message, payload = await self._protocol.read()
            if message.code >= 200:
                return message, payload
            if message.code == 101:
                raise UpstreamFailed("the upstream switches protocols unasked")
        raise UpstreamFailed("the upstream sends interim answers without end")

    async def _failure(self, error: BaseException) -> BaseException:
        """What an error means to the caller."""
        pump_error = await self._stop_pump()
        if isinstance(pump_error, UpstreamError):
            return pump_error
        if isinstance(pump_error, Refusal):
            return UpstreamFailed("the caller's body ended early", refused=pump_error)
        if isinstance(error, GateError | asyncio.CancelledError):
            return error
        if isinstance(pump_error, GateError):
            return pump_error
        if isinstance(error, ServerTimeoutError):
            return UpstreamTimeout("the upstream did not answer in time", sent=True)
        if isinstance(error, ClientError | HttpProcessingError | OSError | EofStream):
            return UpstreamFailed("the upstream closed or garbled the connection")
        return error

    async def _stop_pump(self) -> BaseException | None:
        pump = self._pump
        if pump is None:
            return None
        if not pump.done():
            pump.cancel()
            await asyncio.wait([pump])
        return None if pump.cancelled() else pump.exception()


def _keep_alive(message: RawResponseMessage) -> float | None:
    """How long the upstream says it keeps an unused connection, less a second for the way."""
    for value in message.headers.getall("Keep-Alive", ()):
        match = _KEEP_ALIVE_TIMEOUT.search(value)
        if match is not None:
            return max(0.1, int(match.group(1)) - 1.0)
    return None
