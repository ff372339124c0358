"""The listening HTTP server: aiohttp's parser under our own connection protocol.

Guarantees: every connection is bounded in time and size; what the parser or a limit refuses is answered with a problem
document; a request body is never decompressed; a connection on which anything went wrong is not used again; on close,
running calls are given their time. Leaves to the handler what a request means.

The protocol subclasses aiohttp's `RequestHandler` and replaces its loop: one task per connection instead of one per
request, deadlines by one sweep over all connections instead of timers per request.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable
from typing import Final

from aiohttp import web
from aiohttp.http import RawRequestMessage, StreamWriter
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.streams import EMPTY_PAYLOAD, StreamReader
from aiohttp.web_protocol import ERROR, RequestHandler, _ErrInfo

from gateway.edge.answer import Answer, ClientGone
from gateway.edge.framing import FramingWatch, Phase
from gateway.edge.limits import EdgeLimits
from gateway.edge.problem import refusal
from gateway.errors import GateMisuse, Refusal

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse | Answer]]
ProtocolRefused = Callable[[Refusal, str | None], None]

READ_BUFFER_BYTES: Final = 65_536
SWEEP_SECONDS: Final = 1.0
BACKLOG: Final = 1_024
SERVER_NAME: Final = "tidegate"

_LOG = logging.getLogger("tidegate.edge")


class _Connection(RequestHandler):
    """One client connection."""

    __slots__ = (
        "_answering",
        "_body_due",
        "_body_seen_bytes",
        "_client_done",
        "_discard_until",
        "_draining",
        "_limits",
        "_phase_since",
        "_receiving",
        "_refused",
        "_server",
        "_serving",
        "_watch",
    )

    def __init__(self, server: _Server, loop: asyncio.AbstractEventLoop, limits: EdgeLimits) -> None:
        super().__init__(
            server,
            loop=loop,
            keepalive_timeout=0,
            access_log=None,  # type: ignore[arg-type]
            max_line_size=limits.uri_max_bytes + 1,
            max_field_size=limits.headers_max_bytes,
            max_headers=limits.headers_max_count,
            lingering_time=0,
            read_bufsize=READ_BUFFER_BYTES,
            auto_decompress=False,
        )
        self._server = server
        self._limits = limits
        self._watch = FramingWatch(limits)
        self._receiving: StreamReader = EMPTY_PAYLOAD
        self._phase_since = loop.time()
        self._body_due: float | None = None
        self._body_seen_bytes = 0
        self._discard_until: float | None = None
        self._refused = False
        self._draining = False
        self._serving = False
        self._client_done = False
        self._answering = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The task that serves is known to the server until it ends, also when its client has long gone."""
        super().connection_made(transport)
        task = self._task_handler
        if task is not None:
            self._server.serving.add(task)
            task.add_done_callback(self._server.serving.discard)

    def is_left(self, idle_seconds: float) -> bool:
        """Whether the client has closed its side, and has had nothing to read for so long that it is taken to have left."""
        return self._client_done and idle_seconds > self._limits.half_closed_seconds

    # -- bytes in -----------------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        if self._force_close or self._refused or self._discard_until is not None or self._parser is None:
            return
        try:
            if data:
                self._follow(data)
            messages, _, _ = self._parser.feed_data(data)
        except Refusal as refused:
            self._refuse(refused)
            return
        except HttpProcessingError as error:
            _LOG.debug("the parser refuses: %s", error)
            self._refuse(refusal("malformed_request", "the request is no well-formed HTTP/1.1"))
            return
        for message, payload in messages:
            self._receiving = payload
            if message.upgrade or message.method == "CONNECT":
                self._receiving = EMPTY_PAYLOAD
                self._refuse(refusal("malformed_request", "protocol upgrades and tunnels are not accepted"))
                return
            self._messages.append((message, payload))
        if messages:
            self._wake()
            if not self._buffer_paused and len(self._messages) >= self._max_msg_queue_size:
                self._pause_reading_for_buffer()

    def _follow(self, data: bytes) -> None:
        watch = self._watch
        phase, heads = watch.phase, watch.heads
        watch.feed(data)
        if watch.phase is not phase or watch.heads != heads:
            self._phase_since, self._body_due = self._loop.time(), None

    def resume_reading(self, resume_parser: bool = True) -> None:
        """Every read of a body asks for this; only after a pause is there something to resume."""
        if self._reading_paused:
            super().resume_reading(resume_parser)

    def eof_received(self) -> bool:  # type: ignore[override]
        """A client that has sent everything may still read: its request is answered, and no other one follows.

        What it left half sent is refused. The transport stays open for the answer if this returns true; after
        `half_closed_seconds` without an answer the client is taken to have left, so that nothing waits for it.
        """
        self._client_done, self._draining, self._phase_since = True, True, self._loop.time()
        if not self._receiving.is_eof() and not self._refused:
            self._refuse(refusal("malformed_request", "the body ended early"))
        return self._serving or bool(self._messages)

    def _refuse(self, refused: Refusal) -> None:
        """Stop reading from this client; whoever waits for its bytes gets the refusal, and tells of it."""
        self._refused = True
        payload = self._receiving
        if not payload.is_eof():
            payload.set_exception(refused)
            return
        self._server.protocol_refused(refused, _peer(self))
        self._messages.append((_ErrInfo(status=refused.status, exc=refused, message=refused.detail), EMPTY_PAYLOAD))
        self._wake()

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    # -- requests ----------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Serve the requests of this connection, one after the other."""
        try:
            while await self._next_message():
                message, payload = self._messages.popleft()
                if isinstance(message, _ErrInfo):
                    await self._answer_refused(message)
                    break
                if self._parser is not None:
                    self._parser.message_consumed()
                if self._buffer_paused and len(self._messages) <= self._msg_queue_resume_size:
                    self._resume_reading_if_drained()
                if not await self._serve(message, payload):
                    break
        finally:
            self._task_handler = None
            self._finish_connection()

    async def _next_message(self) -> bool:
        """Wait for a request; false when the connection is to end."""
        if self._messages:
            return True
        if self._draining or self._force_close or self._refused:
            return False
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            return False  # the connection was lost while idle
        finally:
            self._waiter = None
        return bool(self._messages)

    async def _serve(self, message: RawRequestMessage, payload: StreamReader) -> bool:
        """Handle one request and write its answer; true if the connection may take another."""
        request = self._request(message, payload)
        self._serving, self._current_request = True, request
        try:
            answer = await self._handled(request)
            self._answering = True
            close = message.should_close or self._draining or self._refused or not payload.is_eof()
            if isinstance(answer, Answer):
                await answer.send(
                    request,
                    close=close or message.version < (1, 1),
                    stall_seconds=self._limits.write_stall_seconds,
                )
            else:
                await _send_response(answer, request, close)
            return not close and payload.is_eof() and self.transport is not None
        except (ClientGone, ConnectionError):
            self._abort()
        except asyncio.CancelledError:
            self._abort()
            raise
        except Exception:  # the boundary: an answer that fails half way ends the connection, not the process
            _LOG.exception("an answer was cut")
            self._abort()
        finally:
            self._serving, self._answering, self._current_request = False, False, None
            self._phase_since = self._loop.time()
        return False

    async def _handled(self, request: web.BaseRequest) -> web.StreamResponse | Answer:
        try:
            return await self._server.handler(request)
        except Refusal as refused:
            return Answer.problem(refused)
        except Exception:  # the boundary: an error of ours is a refusal, and the call is not made
            _LOG.exception("the handler failed")
            return Answer.problem(refusal("engine_failed", "the gate could not handle this request"))

    async def _answer_refused(self, message: _ErrInfo) -> None:
        refused = message.exc
        if not isinstance(refused, Refusal):
            raise GateMisuse("a connection was refused without a reason") from refused
        try:
            request, stall_seconds = self._request(ERROR, EMPTY_PAYLOAD), self._limits.write_stall_seconds
            await Answer.problem(refused).send(request, close=True, stall_seconds=stall_seconds)
        except ClientGone:
            self._abort()

    def _request(self, message: RawRequestMessage, payload: StreamReader) -> web.BaseRequest:
        task = self._task_handler or asyncio.current_task()
        if task is None:
            raise GateMisuse("a connection is served by its own task")
        return web.BaseRequest(message, payload, self, StreamWriter(self, self._loop), task, self._loop)

    # -- endings -----------------------------------------------------------------------------------------------------

    def _abort(self) -> None:
        self._force_close = True
        if self.transport is not None:
            self.transport.abort()

    def force_close(self) -> None:
        """End this connection now. What it did not take is lost: closing alone would wait for it to be read, for ever."""
        transport = self.transport
        super().force_close()
        if transport is not None:
            transport.abort()

    def _close_once_read(self, transport: asyncio.Transport) -> None:
        """Close, and give the client `write_stall_seconds` to take what is left."""
        self._discard_until = self._loop.time() + self._limits.write_stall_seconds
        transport.close()

    def _finish_connection(self) -> None:
        """Close after the last answer; a client that is still sending gets time to read it.

        Source: RFC 9112 §9.6: closing with unread input would reset the connection and lose the answer.
        """
        transport = self.transport
        if transport is None or self._force_close:
            return
        if self._client_done or (not self._refused and self._receiving.is_eof()):
            self._close_once_read(transport)
            return
        self._discard_until = self._loop.time() + self._limits.linger_seconds
        if transport.can_write_eof():
            transport.write_eof()
        self._resume_transport_reading()

    def drain(self) -> None:
        """End this connection after the answer that is being made, at once if there is none."""
        self._draining = True
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
        if self._discard_until is not None and self.transport is not None:
            self.transport.close()

    def sweep(self, now: float) -> None:
        """Enforce the deadlines of the phase in which this connection is."""
        limits = self._limits
        if self._discard_until is not None:
            if now >= self._discard_until and self.transport is not None:
                self.transport.abort()
        elif self._client_done:
            if not self._answering and now - self._phase_since > limits.half_closed_seconds:
                if self.transport is not None:
                    self._close_once_read(self.transport)
        elif self._refused or self._force_close:
            return
        elif self._watch.phase is Phase.BODY:
            self._sweep_body(now)
        elif self._serving or self._messages:
            return
        elif self._watch.phase is Phase.HEAD:
            if now - self._phase_since > limits.header_read_seconds:
                self._refuse(refusal("too_slow", f"the head took longer than {limits.header_read_seconds:g} seconds"))
        elif now - self._phase_since > limits.idle_seconds:
            self.force_close()

    def _sweep_body(self, now: float) -> None:
        due, received = self._body_due, self._watch.body_bytes
        if due is None:
            due, self._body_seen_bytes = self._phase_since + self._limits.body_read_seconds, 0
        if self._reading_paused or self._buffer_paused:
            due += self._server.sweep_seconds  # we are not reading: not the client's time
        self._body_due = due = self._limits.body_due(due, received - self._body_seen_bytes, now)
        self._body_seen_bytes = received
        if now > due:
            self._refuse(refusal("too_slow", "the body arrived too slowly"))


class _Server(web.Server):
    """Makes connections and sweeps over them."""

    def __init__(
        self, handler: Handler, loop: asyncio.AbstractEventLoop, limits: EdgeLimits, refused: ProtocolRefused
    ) -> None:
        super().__init__(handler, loop=loop)  # type: ignore[arg-type]
        self.handler = handler
        self.serving: set[asyncio.Task[None]] = set()
        self.protocol_refused = refused
        self.take_limits(limits)
        self._timer: asyncio.TimerHandle | None = None

    def take_limits(self, limits: EdgeLimits) -> None:
        """Give these limits to every connection that is made from now on."""
        self.limits = limits
        shortest = min(limits.header_read_seconds, limits.body_read_seconds, limits.idle_seconds)
        self.sweep_seconds = min(SWEEP_SECONDS, shortest / 4)

    def __call__(self) -> RequestHandler:
        return _Connection(self, self._loop, self.limits)

    def connection_made(self, handler: RequestHandler, transport: asyncio.Transport) -> None:
        super().connection_made(handler, transport)
        if len(self._connections) > self.limits.connections_max:
            self.protocol_refused(refusal("throttled", "too many connections"), _peer(handler))
            transport.abort()

    def sweep(self) -> None:
        """Check every connection's deadline, and again after `sweep_seconds`."""
        now = self._loop.time()
        for connection in self.connections:
            if isinstance(connection, _Connection):
                connection.sweep(now)
        self._timer = self._loop.call_later(self.sweep_seconds, self.sweep)

    def stop_sweeping(self) -> None:
        """No further sweep."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class RunningServer:
    """A server that has its port."""

    def __init__(self, server: _Server, listener: asyncio.Server, port: int) -> None:
        self._server = server
        self._listener = listener
        self.port = port

    @property
    def connections(self) -> int:
        """How many clients are connected."""
        return len(self._server.connections)

    async def serve(self) -> None:
        """Let clients connect. Raises `OSError` when somebody else came to listen on the port meanwhile."""
        await self._listener.start_serving()

    def take_limits(self, limits: EdgeLimits) -> None:
        """Keep these limits on connections that are made from now on; those that stand keep theirs."""
        self._server.take_limits(limits)

    def stop_accepting(self) -> None:
        """Close the listening sockets; connections that stand go on."""
        self._listener.close()

    async def close(self, grace_seconds: float) -> None:
        """Accept nothing more, let running calls finish for `grace_seconds`, then cancel them.

        A call whose client has gone counts: what it did is not known before it ends.
        """
        self._listener.close()
        for connection in self._server.connections:
            if isinstance(connection, _Connection):
                connection.drain()
        tasks = tuple(self._server.serving)
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=grace_seconds)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late)
        self._server.stop_sweeping()
        for connection in self._server.connections:
            if connection.transport is not None:
                connection.transport.abort()
        await asyncio.sleep(0)  # lets the transports tell that they are closed
        await self._listener.wait_closed()


def has_left(request: web.BaseRequest, idle_seconds: float) -> bool:
    """Whether nobody reads this request's answer any more, on which nothing has come for so long.

    Either the connection is lost, or the client has sent its last and would hear of its own end only from the next piece.
    """
    if request.transport is None:
        return True
    connection = request.protocol
    return isinstance(connection, _Connection) and connection.is_left(idle_seconds)


def _ignore_refusal(refused: Refusal, peer: str | None) -> None:
    """Nobody counts."""


async def start_server(
    handler: Handler,
    host: str,
    port: int,
    limits: EdgeLimits,
    on_protocol_refusal: ProtocolRefused = _ignore_refusal,
    *,
    serving: bool = True,
) -> RunningServer:
    """Listen on `host` and `port` (0: any free one) and hand every request to `handler`.

    `handler` gives an `Answer` or an aiohttp response, or raises a `Refusal`. `on_protocol_refusal` is told of refusals
    that no handler saw, with the peer's address. Unless `serving`, the port is taken and clients are let in by
    `RunningServer.serve`. Raises `OSError` when the port is taken.
    """
    loop = asyncio.get_running_loop()
    server = _Server(handler, loop, limits, on_protocol_refusal)
    listener = await loop.create_server(server, host, port, backlog=BACKLOG, start_serving=serving)
    server.sweep()
    return RunningServer(server, listener, _port(listener.sockets[0]))


def _port(listening: socket.socket) -> int:
    address = listening.getsockname()
    return int(address[1])


def _peer(connection: RequestHandler) -> str | None:
    peer = connection.peername
    return str(peer[0]) if isinstance(peer, tuple) else None


async def _send_response(response: web.StreamResponse, request: web.BaseRequest, close: bool) -> None:
    if close:
        response.force_close()
    if not response.prepared:
        response.headers.setdefault("Server", SERVER_NAME)
    await response.prepare(request)
    await response.write_eof()
