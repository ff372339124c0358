"""Performs the commands of a call's flow with asyncio; decides nothing.

Guarantees: every command is performed once and answered with its event; errors of the parts below become refusals with
stable codes; a streamed answer ends properly only when the flow says so. Runs inside the connection's own task.
"""

from __future__ import annotations

import hashlib
from asyncio import create_task, sleep
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from time import monotonic, time
from typing import Any

from aiohttp import web

from gateway.approvals.model import ApprovalRefused
from gateway.approvals.service import ApprovalService
from gateway.connectors.classify import ActionTable
from gateway.connectors.credentials import CredentialInjector, Injected
from gateway.connectors.leaks import LeakDetector
from gateway.connectors.outbound import check_answer_coding, inject, strip_response_headers
from gateway.connectors.rewrite import Rewriter
from gateway.connectors.tickets import TicketBook, upload_segments
from gateway.edge.body import read_body, stream_body
from gateway.edge.identity import IdentityVerifier
from gateway.edge.jwks import JwksStore, identify
from gateway.edge.problem import CODES, refusal
from gateway.egress.addresses import AddressClass
from gateway.egress.dialer import UpstreamPools
from gateway.egress.errors import UpstreamError, UpstreamTimeout
from gateway.egress.exchange import UpstreamResponse, UpstreamTimeouts
from gateway.errors import Refusal
from gateway.flow import commands as c
from gateway.flow import events as e
from gateway.flow.switches import SwitchBoard
from gateway.flow.values import Finished, GovernedCall, Trace
from gateway.ledger.outcomes_driver import OutcomeKeeper
from gateway.ledger.record import RecordMalformed
from gateway.ledger.writer import LedgerUnavailable, LedgerWriter
from gateway.operations.metrics import Metrics
from gateway.store.port import Store, StoreConflict, StoreUnavailable
from gateway.watching import Asked, DecisionWatch
from pdp.errors import EngineFailed, PdpError
from pdp.prepared import PolicyPlane

GIVING_UP_STEPS_MAX = 8
UNAUTHORIZED = 401
GUARD_SECONDS = 1.0
LONGEST_LIFE = "the stream reached its longest life"
KILLED = "a kill switch ended the stream"
_BODIED = frozenset({"POST", "PUT", "PATCH"})


@dataclass(frozen=True, slots=True)
class Target:
    """How one instance is reached: its credential, the addresses it may have, the rules for its answers."""

    base_url: str
    injector: CredentialInjector
    credential: str
    allowed: frozenset[AddressClass]
    rewriter: Rewriter
    table: ActionTable


@dataclass(frozen=True, slots=True)
class Services:
    """The parts a call needs. They outlive configurations; `targets` and `verifier` come with one."""

    store: Store
    writer: LedgerWriter
    approvals: ApprovalService
    policy: PolicyPlane
    pools: UpstreamPools
    tickets: TicketBook
    switches: SwitchBoard
    metrics: Metrics
    outcomes: OutcomeKeeper
    clock: Callable[[], float] = time
    watch: DecisionWatch = field(default_factory=DecisionWatch)


@dataclass(frozen=True, slots=True)
class Reach:
    """What one configuration lets calls reach, and whose tokens it takes."""

    verifier: IdentityVerifier
    keys: JwksStore
    targets: dict[str, Target]
    timeouts: UpstreamTimeouts
    stream_max_seconds: float


class StreamCut(ConnectionError):
    """The answer ends here without its terminator."""


class CallDriver:
    """Drives one flow for one request. `request` is None where there is nobody to read a body from."""

    __slots__ = ("_asked", "_detector", "_pieces", "_reach", "_request", "_response", "_services", "_stopped", "_trace")

    def __init__(self, services: Services, reach: Reach, trace: Trace, request: web.BaseRequest | None) -> None:
        self._services = services
        self._reach = reach
        self._trace = trace
        self._request = request
        self._response: UpstreamResponse | None = None
        self._pieces: AsyncIterator[bytes] | None = None
        self._detector: LeakDetector | None = None
        self._stopped = ""
        self._asked: Asked | None = None

    async def run(self, flow: e.Flow[Finished], event: e.Event | None = None) -> Finished | c.BeginStream | c.EndStream:
        """Drive until the flow ends, or wants to begin or end a stream. Raises `Refusal`."""
        error: Exception | None = None
        while True:
            try:
                command: c.Command = flow.send(event) if error is None else flow.throw(error)  # type: ignore[arg-type]
            except StopIteration as stop:
                finished: Finished = stop.value
                return finished
            except StoreConflict as conflict:
                code = conflict.code if conflict.code in CODES else "stale_state"
                raise refusal(code, conflict.detail) from conflict
            if isinstance(command, c.BeginStream | c.EndStream):
                return command
            try:
                at_once = _AT_ONCE.get(type(command))
                if at_once is not None:
                    event, error = at_once(self, command), None
                else:
                    event, error = await _PERFORM[type(command)](self, command), None
            except (Refusal, StoreConflict) as refused:
                error = refused
            except (LedgerUnavailable, RecordMalformed, StoreUnavailable) as failed:
                self._trace.fault = failed.detail
                error = refusal("ledger_unavailable")
            except ApprovalRefused as refused_approval:
                error = _approval_refusal(refused_approval)
            except PdpError as failed_policy:
                error = self._policy_refusal(failed_policy)

    def _policy_refusal(self, failed: PdpError) -> Refusal:
        if isinstance(failed, EngineFailed):
            self._services.metrics.engine_errors.inc()
        code = failed.code if failed.code in _POLICY_CODES else "engine_failed"
        return refusal(code, failed.detail if code == "malformed_request" else "")

    # -- request -------------------------------------------------------------------------------------------------

    async def _read_body(self, command: c.ReadBody) -> e.Event:
        if self._request is None:
            return e.BodyRead(b"")
        return e.BodyRead(await read_body(self._request, command.max_bytes))

    async def _verify(self, command: c.VerifyToken) -> e.Event:
        return e.Identified(
            await identify(self._reach.verifier, self._reach.keys, command.token, self._services.clock())
        )

    def _redeem(self, command: c.RedeemTicket) -> e.Event:
        claim = self._services.tickets.redeem(
            command.ticket,
            instance=command.instance,
            action=command.action,
            path=command.path,
            now=self._services.clock(),
        )
        return e.Identified(claim.subject)

    # -- controls and policy ----------------------------------------------------------------------------------------

    def _switches(self, command: c.ReadSwitches) -> e.Event:
        return e.SwitchesRead(self._services.switches.of(command.tenant))

    async def _claim(self, command: c.LookUpClaim) -> e.Event:
        return e.ClaimRead(await self._services.store.claim(command.log, command.scope))

    async def _load_answer(self, command: c.LoadAnswer) -> e.Event:
        return e.AnswerLoaded(await self._services.store.answer(command.log, command.call_id))

    async def _ask(self, command: c.AskPolicy) -> e.Event:
        decided = await self._services.policy.decide(command.policy_input)
        self._services.metrics.observe_decision(decided.engine, decided.seconds, decided.cached)
        if self._services.watch.active:
            self._asked = self._services.watch.asked(command.policy_input, decided)
        return e.PolicyAnswered(decided)

    # -- approvals and records --------------------------------------------------------------------------------------

    async def _open(self, command: c.OpenOrAttach) -> e.Event:
        approval = await self._services.approvals.open_or_attach(command.held)
        self._services.metrics.approvals_created.inc()
        return e.ApprovalRead(approval, self._services.clock())

    async def _await_approval(self, command: c.AwaitApproval) -> e.Event:
        pending = self._services.metrics.approvals_pending
        pending.inc()
        try:
            approval = await self._services.approvals.wait(command.log, command.approval_id, command.seconds)
        finally:
            pending.dec()
        return e.ApprovalRead(approval, self._services.clock(), self._caller_connected())

    def _caller_connected(self) -> bool:
        return self._request is None or self._request.transport is not None

    async def _append(self, command: c.AppendRecord) -> e.Event:
        started, effects = monotonic(), command.effects
        if self._asked is not None:
            effects, self._asked = (*effects, *self._services.watch.kept(self._asked, command.draft)), None
        ledger = self._services.outcomes if command.after_side_effect else self._services.writer
        appended = await ledger.append(command.draft, effects=effects)
        self._services.metrics.observe_append(monotonic() - started)
        return e.RecordAppended(appended.seq)

    async def _append_intent(self, command: c.AppendIntent) -> e.Event:
        effects = command.effects
        if command.approval is not None:
            call = str(command.draft.ids["call"])
            effects = (*effects, self._services.approvals.consumption(command.approval, command.action_digest, call))
        return await self._append(c.AppendRecord(command.draft, effects))

    # -- the upstream -----------------------------------------------------------------------------------------------

    async def _dispatch(self, command: c.Dispatch) -> e.Event:
        call, outbound = command.call, command.outbound
        target = self._reach.targets[call.plan.name]
        url = f"{target.base_url}{outbound.path}"
        if outbound.raw_query:
            url = f"{url}?{outbound.raw_query}"
        started = monotonic()
        try:
            injected = await target.injector.headers()
            headers = inject(list(outbound.headers), injected.headers)
            body = self._outbound_body(call, headers)
            pool = self._services.pools.pool(call.subject.tenant, call.plan.name, target.credential, target.allowed)
            response = await pool.request(outbound.method, url, headers, body, self._reach.timeouts)
        except UpstreamError as failed:
            return _failed(failed)
        except Refusal as refused:
            return e.DispatchFailed("not_sent", refused.code, refused.detail)
        self._services.metrics.observe_stage("dispatch", monotonic() - started)
        began = await self._began(call, response, injected)
        if response.status == UNAUTHORIZED and target.injector.forget(injected):
            return began._replace(renewable=True)
        return began

    def _outbound_body(self, call: GovernedCall, headers: list[tuple[str, str]]) -> bytes | AsyncIterator[bytes] | None:
        outbound = call.outbound
        if not outbound.streamed or self._request is None:
            return outbound.body or (b"" if outbound.method in _BODIED else None)
        declared = self._request.content_length
        if declared is not None:
            headers.append(("content-length", str(declared)))
        return _bounded(stream_body(self._request), call.action.arguments.body_max_bytes)

    async def _began(self, call: GovernedCall, response: UpstreamResponse, injected: Injected) -> e.AnswerBegan:
        self._response, self._pieces = response, response.content
        self._detector = LeakDetector(injected.spellings)
        received = [(name.lower(), value) for name, value in response.headers]
        try:
            check_answer_coding(received)
            self._detector.check([value for _, value in received])
        except Refusal:
            self._trace.sent = True
            await self._drop(c.DropAnswer())
            raise
        length, media_type = None, ""
        for name, value in received:
            if name == "content-length" and value.isdecimal():
                length = int(value)
            elif name == "content-type":
                media_type = value.partition(";")[0].strip().lower()
        headers = tuple(strip_response_headers(received, call.plan.headers))
        return e.AnswerBegan(response.status, headers, length, media_type)

    async def _drop(self, command: c.DropAnswer) -> e.Event:
        response, self._response, self._pieces = self._response, None, None
        if response is not None:
            await response.close(discard=True)
        return e.DONE

    async def _read_answer(self, command: c.ReadAnswer) -> e.Event:
        pieces, detector = self._pieces, self._detector
        if pieces is None or detector is None or self._response is None:
            return e.DispatchFailed("failed", "upstream_failed", "there is no answer to read")
        try:
            whole = await self._response.whole(command.max_bytes)
            if whole is not None:
                return e.AnswerRead(detector.feed(whole) + detector.finish(), complete=True, leaked=False)
        except Refusal:
            return e.AnswerRead(b"", complete=True, leaked=True)
        return await self._read_pieces(command, pieces, detector)

    async def _read_pieces(
        self, command: c.ReadAnswer, pieces: AsyncIterator[bytes], detector: LeakDetector
    ) -> e.Event:
        found: list[bytes] = []
        size = 0
        try:
            async for piece in pieces:
                found.append(detector.feed(piece))
                size += len(piece)
                if size > command.max_bytes:
                    return e.AnswerRead(b"".join(found), complete=False, leaked=False)
        except UpstreamError as failed:
            return _failed(failed)
        except Refusal:
            return e.AnswerRead(b"", complete=True, leaked=True)
        found.append(detector.finish())
        await self._close_response(discard=False)
        return e.AnswerRead(b"".join(found), complete=True, leaked=False)

    def _rewrite(self, command: c.RewriteAnswer) -> e.Event:
        call = command.call
        rewriter = self._reach.targets[call.plan.name].rewriter
        headers = tuple(rewriter.headers(command.headers))
        body = command.body
        if body:
            content_type = next((value for name, value in headers if name == "content-type"), None)
            if rewriter.applies_to(content_type):
                body = rewriter.body(body, self._ticket_issuer(call))
        return e.AnswerRewritten(headers, body)

    def _ticket_issuer(self, call: GovernedCall) -> Callable[[str, str], str]:
        def issue(instance: str, path: str) -> str:
            actions = self._reach.targets[instance].table.taking_tickets(upload_segments(path))
            now = self._services.clock()
            return self._services.tickets.issue(
                call.subject, instance=instance, actions=actions, path=path, call=call.call_id, now=now
            )

        return issue

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
        guard = create_task(self._guard(), name="stream-guard")
        try:
            async for piece in self._relayed(command):
                digest.update(piece)
                length += len(piece)
                yield piece
        except (UpstreamError, Refusal) as failed:
            cut = self._stopped or failed.detail
        except GeneratorExit:
            await self._end(flow, e.AnswerRelayed(length, digest.hexdigest(), "the caller closed the connection"))
            raise
        finally:
            guard.cancel()
        if not await self._end(flow, e.AnswerRelayed(length, digest.hexdigest(), cut)):
            raise StreamCut(cut or "the outcome could not be recorded")

    async def abandon(self, flow: e.Flow[Finished]) -> None:
        """End a stream that nobody began to read."""
        if isinstance(flow.send(e.DONE), c.RelayAnswer):
            nothing = hashlib.sha256().hexdigest()
            await self._end(flow, e.AnswerRelayed(0, nothing, "the caller closed the connection"))

    async def _relayed(self, command: c.RelayAnswer) -> AsyncIterator[bytes]:
        detector, pieces = self._detector, self._pieces
        if detector is None or pieces is None:
            raise refusal("upstream_failed", "there is no answer to relay")
        deadline = monotonic() + self._reach.stream_max_seconds
        length = len(command.prefix)
        if command.prefix:
            yield command.prefix
        subject = self._trace.subject
        async for piece in pieces:
            length += len(piece)
            if command.max_bytes and length > command.max_bytes:
                raise refusal("upstream_failed", "the answer is larger than this action allows")
            if monotonic() > deadline:
                raise refusal("upstream_timeout", LONGEST_LIFE)
            if subject is not None and self._services.switches.covers(subject, self._trace):
                raise refusal("killed", KILLED)
            allowed = detector.feed(piece)
            if allowed:
                yield allowed
        rest = detector.finish()
        if rest:
            yield rest

    async def _guard(self) -> None:
        """End a stream on which nothing comes: what is checked with each piece is checked each second as well.

        **Security**: page 12 rule 12: within 5 s, `POLL_SECONDS` of the switches included.
        """
        deadline = monotonic() + self._reach.stream_max_seconds
        subject, switches = self._trace.subject, self._services.switches
        while not self._stopped:
            await sleep(GUARD_SECONDS)
            if monotonic() > deadline:
                self._stopped = LONGEST_LIFE
            elif subject is not None and switches.covers(subject, self._trace):
                self._stopped = KILLED
        if self._response is not None:
            self._response.stop()

    async def _end(self, flow: e.Flow[Finished], relayed: e.AnswerRelayed) -> bool:
        """Let the flow record the end; whether the answer may end properly."""
        await self._close_response(discard=relayed.cut is not None)
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

    def give_up(self, flow: e.Flow[Finished]) -> None:
        """The call is cancelled: if its intent is durable, what is known of its end is recorded behind its back."""
        if not self._trace.intended or self._trace.settled:
            return
        event: e.Event | None = None
        with suppress(Refusal, StopIteration):
            for _ in range(GIVING_UP_STEPS_MAX):
                command = flow.throw(refusal("outcome_unknown")) if event is None else flow.send(event)
                if isinstance(command, c.AppendRecord):
                    self._services.outcomes.record(command.draft, command.effects)
                event = e.DONE

    async def close(self) -> None:
        """Give up whatever is still held; an exchange that did not end is discarded."""
        await self._close_response(discard=True)


async def _bounded(pieces: AsyncIterator[bytes], max_bytes: int) -> AsyncIterator[bytes]:
    size = 0
    async for piece in pieces:
        size += len(piece)
        if size > max_bytes:
            raise refusal("body_too_large", f"the body of this action is at most {max_bytes} bytes")
        yield piece


def _failed(failed: UpstreamError) -> e.DispatchFailed:
    if failed.refused is not None:
        raise failed.refused
    kind = "timeout" if isinstance(failed, UpstreamTimeout) else "failed"
    return e.DispatchFailed(kind if failed.sent else "not_sent", failed.code, failed.detail)  # type: ignore[arg-type]


def _approval_refusal(refused: ApprovalRefused) -> Refusal:
    if refused.code == "not_supported":
        reason = {"code": "not_supported", "rule": "", "message": refused.detail}
        return refusal("denied", refused.detail, reasons=[reason])
    return refusal(refused.code, refused.detail)


_POLICY_CODES = frozenset({"engine_failed", "policy_unavailable", "policy_stale", "malformed_request"})

_AT_ONCE: dict[type[Any], Callable[[CallDriver, Any], e.Event]] = {
    c.RedeemTicket: CallDriver._redeem,
    c.ReadSwitches: CallDriver._switches,
    c.RewriteAnswer: CallDriver._rewrite,
}
_PERFORM: dict[type[Any], Callable[[CallDriver, Any], Awaitable[e.Event]]] = {
    c.ReadBody: CallDriver._read_body,
    c.VerifyToken: CallDriver._verify,
    c.LookUpClaim: CallDriver._claim,
    c.LoadAnswer: CallDriver._load_answer,
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
