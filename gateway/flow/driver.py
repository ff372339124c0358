"""Performs the commands of a call's flow with asyncio; decides nothing.

Guarantees: every command is performed once and answered with its event; errors of the parts below become refusals with
stable codes; a streamed answer ends properly only when the flow says so. Runs inside the connection's own task.
"""

from __future__ import annotations

import hashlib
import logging
from asyncio import CancelledError, current_task, sleep
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from time import monotonic
from typing import Any

from aiohttp import web

from gateway.approvals.model import ApprovalRefused
from gateway.connectors.credentials import Injected
from gateway.connectors.leaks import LeakDetector
from gateway.connectors.outbound import inject
from gateway.edge.body import bounded_body
from gateway.edge.headers import HeaderPairs
from gateway.edge.problem import CODES, refusal
from gateway.egress.errors import UpstreamError
from gateway.egress.exchange import UpstreamResponse
from gateway.errors import Refusal
from gateway.flow import commands as c
from gateway.flow import events as e
from gateway.flow.answer_head import answer_began
from gateway.flow.controls_driver import ControlsDriver
from gateway.flow.failures import approval_refusal, dispatch_failed, policy_failed
from gateway.flow.guard_driver import GIVEN_UP, GONE, StreamGuard, why_left
from gateway.flow.rewriting_driver import rewritten
from gateway.flow.services import Reach, Services
from gateway.flow.values import Finished, GovernedCall, Trace
from gateway.ledger.record import RecordMalformed
from gateway.ledger.writer import LedgerUnavailable
from gateway.store.port import StoreConflict, StoreUnavailable
from pdp.errors import PdpError

ENDING_STEPS_MAX = 8
_LOG = logging.getLogger("tidegate.flow")
UNAUTHORIZED = 401
_BODIED = frozenset({"POST", "PUT", "PATCH"})


class StreamCut(ConnectionError):
    """The answer ends here without its terminator."""


class CallDriver(ControlsDriver):
    """Drives one flow for one request. `request` is None where there is nobody to read a body from.

    `in_force` tells by what calls go now: `reach` at first, another one once the gate has read its configuration anew.
    """

    __slots__ = ("_detector", "_pieces", "_response", "_sending", "_stopped", "given_up")

    def __init__(
        self,
        services: Services,
        reach: Reach,
        trace: Trace,
        request: web.BaseRequest | None,
        in_force: Callable[[], Reach],
    ) -> None:
        super().__init__(services, reach, trace, request, in_force)
        self._response: UpstreamResponse | None = None
        self._pieces: AsyncIterator[bytes] | None = None
        self._detector: LeakDetector | None = None
        self._stopped: Refusal | None = None
        self._sending = False
        self.given_up: Refusal | None = None

    async def run(self, flow: e.Flow[Finished], event: e.Event | None = None) -> Finished | c.BeginStream | c.EndStream:
        """Drive until the flow ends, or wants to begin or end a stream. Raises `Refusal`; anything else gives the call up."""
        error: Exception | None = None
        try:
            while True:
                try:
                    command: c.Command = flow.send(event) if error is None else flow.throw(error)  # type: ignore[arg-type]
                except StopIteration as stop:
                    finished: Finished = stop.value
                    return finished
                except StoreConflict as conflict:
                    code = conflict.code if conflict.code in CODES else "stale_state"
                    raise refusal(code, conflict.detail) from conflict
                kind = type(command)
                if kind in _GIVEN_BACK:
                    return command  # type: ignore[return-value]
                try:
                    at_once = _AT_ONCE.get(kind)
                    event = at_once(self, command) if at_once is not None else None
                    if event is None:
                        event = await _PERFORM[kind](self, command)
                    error = None
                except (Refusal, StoreConflict) as refused:
                    error = refused
                except (LedgerUnavailable, RecordMalformed, StoreUnavailable) as failed:
                    self._trace.fault = failed.detail
                    error = refusal("ledger_unavailable")
                except ApprovalRefused as refused_approval:
                    error = approval_refusal(refused_approval)
                except PdpError as failed_policy:
                    error = policy_failed(failed_policy, self._services.metrics)
                except Exception as unexpected:  # the boundary: what has begun is ended by the flow, which records it
                    if not (self._trace.sent or self._trace.intended):
                        raise
                    self._report(unexpected)
                    error = refusal("upstream_failed" if self._trace.sent else "engine_failed")
        except Refusal:
            raise
        except BaseException:
            self._give_up(flow)
            raise

    def _report(self, unexpected: Exception) -> None:
        """Tell of an error of the gate's own: where it comes from in the log, what it is in the call's line."""
        self._trace.fault = type(unexpected).__name__
        _LOG.error("a command of a call failed", exc_info=unexpected)

    # -- the upstream -----------------------------------------------------------------------------------------------

    async def _dispatch(self, command: c.Dispatch) -> e.Event:
        call, outbound = command.call, command.outbound
        target = self._reach.targets[call.plan.name]
        url = target.base_url + outbound.reference
        services, started = self._services, monotonic()
        try:
            injected = target.injector.known or await target.injector.headers()
            headers = inject(outbound.headers, injected.headers)
            body: bytes | AsyncIterator[bytes] | None = outbound.body
            if outbound.streamed and self._request is not None:
                headers, body = self._streamed_body(call, self._request, headers)
            elif not body:
                body = b"" if outbound.method in _BODIED else None
            self._sending = True
            pool = services.pools.pool(call.subject.tenant, call.plan.name, target.credential, target.allowed)
            response = await pool.request(outbound.method, url, headers, body, self._reach.timeouts)
        except UpstreamError as failed:
            return self._failed(failed)
        except Refusal as refused:
            return e.DispatchFailed("not_sent", refused.code, refused.detail)
        except Exception as unexpected:  # the boundary: whether anything was sent is not known
            self._report(unexpected)
            return e.DispatchFailed("failed", "upstream_failed", "the exchange with the service failed")
        services.metrics.observe_stage("dispatch", monotonic() - started)
        try:
            began = self._began(call, response, injected)
        except Exception:  # whatever is wrong with the answer, the call was sent
            self._trace.sent = True
            await self._drop(c.DropAnswer())
            raise
        if response.status == UNAUTHORIZED and target.injector.forget(injected):
            return began._replace(renewable=True)
        return began

    def _streamed_body(
        self, call: GovernedCall, request: web.BaseRequest, headers: HeaderPairs
    ) -> tuple[HeaderPairs, AsyncIterator[bytes]]:
        declared = request.content_length
        if declared is not None:
            headers = (*headers, ("content-length", str(declared)))
        return headers, self._watched(bounded_body(request, call.action.arguments.body_max_bytes))

    async def _watched(self, pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """A body that is sent on as it comes, as long as it may; raises `Refusal` when it may no longer.

        Whoever sends it is ended with it: it waits for the caller's next piece, or for the service to take the last one.
        """
        sending = current_task()

        def stop(ended: Refusal) -> None:
            self._stopped = ended
            if sending is not None:
                sending.cancel()

        guard = StreamGuard(self._services, self._trace, (self._reach.stream_max_seconds, "too_slow"), stop)
        try:
            async for piece in pieces:
                guard.check()
                yield piece
        finally:
            guard.close()

    def _failed(self, failed: UpstreamError) -> e.DispatchFailed:
        """How an exchange ended. Raises the refusal of a body that ended early, whose beginning had left by then."""
        ended = self._stopped or failed.refused
        if ended is not None:
            self._trace.sent = failed.sent
            raise ended
        return dispatch_failed(failed)

    def _began(self, call: GovernedCall, response: UpstreamResponse, injected: Injected) -> e.AnswerBegan:
        """Raises `Refusal` for a coded answer and for a secret in its headers."""
        self._response, self._pieces = response, None
        self._detector = detector = LeakDetector(injected.spellings)
        detector.check_whole(b"\n".join([value for _, value in response.raw_headers]))
        return answer_began(response.status, response.lowered(), call.plan.headers)

    async def _drop(self, command: c.DropAnswer) -> e.Event:
        response, self._response, self._pieces = self._response, None, None
        if response is not None:
            await response.close(discard=True)
        return e.DONE

    def _answer_at_hand(self, command: c.ReadAnswer) -> e.Event | None:
        if self._response is None or self._detector is None:
            return e.DispatchFailed("failed", "upstream_failed", "there is no answer to read")
        whole = self._response.whole(command.max_bytes)
        if whole is None:
            return None
        try:
            self._detector.check_whole(whole)
        except Refusal:
            return e.AnswerRead(b"", complete=True, leaked=True)
        self._response = None
        return e.AnswerRead(whole, complete=True, leaked=False)

    async def _read_answer(self, command: c.ReadAnswer) -> e.Event:
        if self._response is None or self._detector is None:
            return e.DispatchFailed("failed", "upstream_failed", "there is no answer to read")
        self._pieces, detector = self._response.content, self._detector
        pieces = self._pieces
        found: list[bytes] = []
        size = 0
        try:
            async for piece in pieces:
                found.append(detector.feed(piece))
                size += len(piece)
                if size > command.max_bytes:
                    return e.AnswerRead(b"".join(found), complete=False, leaked=False)
        except UpstreamError as failed:
            return self._failed(failed)
        except Refusal:
            return e.AnswerRead(b"", complete=True, leaked=True)
        found.append(detector.finish())
        await self._close_response(discard=False)
        return e.AnswerRead(b"".join(found), complete=True, leaked=False)

    def _rewrite(self, command: c.RewriteAnswer) -> e.Event:
        return rewritten(self._services, self._reach, command)

    async def _pause(self, command: c.Pause) -> e.Event:
        self._services.metrics.dispatch_retry.inc()
        await sleep(command.seconds)
        return e.DONE

    # -- streamed answers -------------------------------------------------------------------------------------------

    async def stream(self, flow: e.Flow[Finished]) -> AsyncIterator[bytes]:
        """The body of an answer whose head the flow has let go; ends only as the flow says.

        Raises `StreamCut` where the answer is to end without its terminator.
        """
        command = flow.send(e.DONE)
        if not isinstance(command, c.RelayAnswer):
            raise StreamCut("the flow began a stream and relays nothing")
        digest, length, cut = hashlib.sha256(), 0, None
        longest = (self._reach.stream_max_seconds, "upstream_timeout")
        guard = StreamGuard(self._services, self._trace, longest, self._stop_answer, self._caller_left)
        try:
            async for piece in self._relayed(command, guard):
                digest.update(piece)
                length += len(piece)
                yield piece
        except (UpstreamError, Refusal) as failed:
            cut = (self._stopped or failed).detail
        except (GeneratorExit, CancelledError):
            self._record_end(flow, e.AnswerRelayed(length, digest.hexdigest(), why_left()))
            raise
        finally:
            guard.close()
        if not await self._end(flow, e.AnswerRelayed(length, digest.hexdigest(), cut)):
            raise StreamCut(cut or "the outcome could not be recorded")

    async def abandon(self, flow: e.Flow[Finished]) -> None:
        """End a stream that nobody began to read."""
        if isinstance(flow.send(e.DONE), c.RelayAnswer):
            await self._end(flow, e.AnswerRelayed(0, hashlib.sha256().hexdigest(), GONE))

    def _stop_answer(self, ended: Refusal) -> None:
        self._stopped = ended
        if self._response is not None:
            self._response.stop()

    async def _relayed(self, command: c.RelayAnswer, guard: StreamGuard) -> AsyncIterator[bytes]:
        detector, pieces = self._detector, self._pieces
        if pieces is None and self._response is not None:
            pieces = self._response.content
        if detector is None or pieces is None:
            raise refusal("upstream_failed", "there is no answer to relay")
        length = len(command.prefix)
        if command.prefix:
            yield command.prefix
        async for piece in pieces:
            length += len(piece)
            if command.max_bytes and length > command.max_bytes:
                raise refusal("upstream_failed", "the answer is larger than this action allows")
            guard.check()
            allowed = detector.feed(piece)
            if allowed:
                yield allowed
        rest = detector.finish()
        if rest:
            yield rest

    async def _end(self, flow: e.Flow[Finished], relayed: e.AnswerRelayed) -> bool:
        """Let the flow record the end; whether the answer may end properly."""
        try:
            await self._close_response(discard=relayed.cut is not None)
        except CancelledError:
            self._record_end(flow, relayed)
            raise
        try:
            command = await self.run(flow, relayed)
            complete = isinstance(command, c.EndStream) and command.complete
            await self.run(flow, e.DONE)
        except Refusal:
            return False
        return complete

    async def _close_response(self, *, discard: bool) -> None:
        if self._response is not None:
            await self._response.close(discard=discard)

    def _give_up(self, flow: e.Flow[Finished]) -> None:
        """The call is cancelled: if anything of it may have left, what is known of its end is recorded behind its back."""
        trace = self._trace
        if not trace.settled and (trace.intended or self._sending):
            self.given_up = refusal("upstream_failed" if trace.mode == "read" else "outcome_unknown", GIVEN_UP)
            self._record_end(flow, self.given_up)

    def _record_end(self, flow: e.Flow[Finished], told: e.Event | Refusal) -> None:
        """Tell the flow how it ends and record what it says of that, without waiting: whoever waited is cancelled."""
        with suppress(Refusal, StopIteration):
            command = flow.throw(told) if isinstance(told, Refusal) else flow.send(told)
            for _ in range(ENDING_STEPS_MAX):
                if isinstance(command, c.AppendRecord):
                    self._services.outcomes.record(command.draft, self._effects(command))
                command = flow.send(e.DONE)

    @property
    def is_clear(self) -> bool:
        """Whether nothing is held that `close` would give up."""
        return self._response is None

    async def close(self) -> None:
        """Give up whatever is still held; an exchange that did not end is discarded."""
        await self._close_response(discard=True)


_GIVEN_BACK = frozenset({c.BeginStream, c.EndStream})
"""Commands that end a run: whoever drives performs them."""

_AT_ONCE: dict[type[Any], Callable[[CallDriver, Any], e.Event | None]] = {
    c.ReadBody: CallDriver._body_at_hand,
    c.VerifyToken: CallDriver._verify_known,
    c.ReadAnswer: CallDriver._answer_at_hand,
    c.RedeemTicket: CallDriver._redeem,
    c.ReadSwitches: CallDriver._switches,
    c.RewriteAnswer: CallDriver._rewrite,
}
"""What needs no waiting, as a rule; None says that this time it does, and `_PERFORM` has the way."""

_PERFORM: dict[type[Any], Callable[[CallDriver, Any], Awaitable[e.Event]]] = {
    c.ReadBody: CallDriver._read_body,
    c.VerifyToken: CallDriver._verify,
    c.LookUpClaim: CallDriver._claim,
    c.LoadAnswer: CallDriver._load_answer,
    c.LoadUsedApproval: CallDriver._load_used,
    c.AskPolicy: CallDriver._ask,
    c.OpenOrAttach: CallDriver._open,
    c.AwaitApproval: CallDriver._await_approval,
    c.AppendRecord: CallDriver._append,
    c.AppendIntent: CallDriver._append_intent,
    c.Dispatch: CallDriver._dispatch,
    c.DropAnswer: CallDriver._drop,
    c.ReadAnswer: CallDriver._read_answer,
    c.Pause: CallDriver._pause,
}
