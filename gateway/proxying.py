"""From a request on the gate's listener to its answer: routes, the driver of each call, headers, log line, metrics.

Guarantees: every request is answered once and counted once; every answer of a call names it (`Tidegate-Call`); a
refusal is a problem document. Leaves what a call may do to `gateway.flow.call`, operations of /v1 to `gateway.api`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from time import monotonic

from aiohttp import web

from gateway.approvals.render import rfc3339
from gateway.edge.answer import Answer
from gateway.edge.body import has_body, request_head
from gateway.edge.headers import NO_PREFERENCE, HeaderPairs, Prefer, RequestHead, prefer
from gateway.edge.problem import refusal
from gateway.errors import Refusal
from gateway.flow import commands as c
from gateway.flow.call import absent_flow, api_flow, proxy_flow
from gateway.flow.driver import CallDriver
from gateway.flow.events import Flow
from gateway.flow.services import Services
from gateway.flow.values import ApiRequest, Finished, FlowContext, ProxyRequest, Trace
from gateway.operations.log import EVENT_CALL, EVENT_REFUSED, LineLog
from gateway.operations.sampling import LineSampler
from gateway.running import Running
from pdp.fresh_ids import TimedIds

INSTANCE_PREFIX = "/c/"
INSTANCE_MAX_CHARACTERS = 64
CODE_OK = "ok"
ACCEPTED = 202

new_call_id = TimedIds()
"""A call's id: a UUID of version 7 in hexadecimal. It names the call and lets nobody do anything."""


class CallRunner:
    """Runs calls of one gate, over whatever configuration is in force when each begins."""

    def __init__(self, running: Running, log: LineLog) -> None:
        self._running = running
        self._log = log
        self._places = running.services.places
        self._in_force = running.reach
        self._refusals = LineSampler()

    @property
    def services(self) -> Services:
        """The parts that calls use."""
        return self._running.services

    async def proxy(self, request: web.BaseRequest, head: RequestHead) -> Answer:
        """Answer a request below ``/c/``. A streamed answer keeps its call counted in until its body is closed."""
        self._begin()
        streams = False
        try:
            answer = await self._answered(*self._proxied(request, head))
            streams = isinstance(answer.body, _StreamBody)
            return answer
        finally:
            if not streams:
                self.end()

    def _proxied(self, request: web.BaseRequest, head: RequestHead) -> tuple[CallDriver, Flow[Finished], Trace, Prefer]:
        """What drives a request below ``/c/``."""
        assembly, services = self._running.assembly, self._running.services
        name, _, _ = head.target.path.removeprefix(INSTANCE_PREFIX).partition("/")
        plan = assembly.plans.get(name)
        if plan is None:
            trace = Trace(new_call_id(), "", name[:INSTANCE_MAX_CHARACTERS])
            driver = CallDriver(services, assembly.reach, trace, request, self._in_force)
            return driver, absent_flow(head, trace), trace, NO_PREFERENCE
        trace = Trace(new_call_id(), plan.manifest.connector, name)
        prefix = len(INSTANCE_PREFIX) + len(name)
        proxied = ProxyRequest(
            trace.call_id,
            plan,
            head,
            head.target.path[prefix:] or "/",
            head.target.segments[2:],
            prefer(head.headers),
            services.clock(),
            has_body(request),
        )
        driver = CallDriver(services, assembly.reach, trace, request, self._in_force)
        return driver, proxy_flow(proxied, trace, self._context()), trace, proxied.prefer

    async def governed(self, request: web.BaseRequest, api: ApiRequest) -> tuple[Finished | Refusal, Trace]:
        """Run a call of ``POST /v1/calls``; its end, refused or not."""
        self._begin()
        trace = Trace(api.call_id, api.plan.manifest.connector, api.plan.name)
        return await self._held(api_flow(api, trace, self._context()), trace, request, ACCEPTED), trace

    async def asked(self, flow_in: Callable[[FlowContext], Flow[Finished]], trace: Trace) -> Finished | Refusal:
        """Run a call that somebody else carries out, nothing of it read or sent here; its end, refused or not."""
        try:
            self._begin()
        except Refusal as refused:
            self.settled(trace, refused.code, refused.status, 0.0)
            return refused
        return await self._held(flow_in(self._context()), trace, None)

    async def _held(
        self, flow: Flow[Finished], trace: Trace, request: web.BaseRequest | None, held_status: int | None = None
    ) -> Finished | Refusal:
        """Run a call that was counted in, its answer held whole; its end. `held_status` is what its caller gets when people
        have to approve it first, if that is not the refusal's own."""
        driver = CallDriver(self.services, self._running.assembly.reach, trace, request, self._in_force)
        started = monotonic()
        outcome: Finished | Refusal
        try:
            end = await driver.run(flow)
            outcome = end if isinstance(end, Finished) else refusal("upstream_failed", "the answer cannot be held")
        except Refusal as refused:
            outcome = refused
        except BaseException:
            self._given_up(driver, trace, started)
            raise
        finally:
            self.end()
            await driver.close()
        code = outcome.code if isinstance(outcome, Refusal) else CODE_OK
        status = held_status if held_status is not None and code == "approval_required" else outcome.status
        self.settled(trace, code, status, monotonic() - started)
        return outcome

    def _begin(self) -> None:
        """Count a call in. Raises `throttled` when `limits.calls_max` are being worked on already."""
        places = self._places
        places.take(self._running.assembly.config.document.limits.calls_max)
        self.services.metrics.count_in_flight(places.taken)

    def end(self) -> None:
        """Count a call out."""
        self._places.give_back()
        self.services.metrics.count_in_flight(self._places.taken)

    def _context(self) -> FlowContext:
        running = self._running
        return FlowContext(running.assembly.limits, running.tenant_keys.record_key, running.chains)

    async def _answered(self, driver: CallDriver, flow: Flow[Finished], trace: Trace, preferred: Prefer) -> Answer:
        started = monotonic()
        try:
            end = await driver.run(flow)
        except Refusal as refused:
            await driver.close()
            answered = self._refused(refused, trace, preferred)
            self.settled(trace, refused.code, answered.status, monotonic() - started)
            return answered
        except BaseException:
            self._given_up(driver, trace, started)
            await driver.close()
            raise
        headers = call_headers(trace)
        if isinstance(end, c.BeginStream):
            body = _StreamBody(driver, flow, trace, self, (started, end.status))
            return Answer(end.status, (*end.headers, *headers), body)
        if isinstance(end, c.EndStream):
            raise refusal("upstream_failed", "a stream ended before it began")
        if not driver.is_clear:
            await driver.close()
        self.settled(trace, CODE_OK, end.status, monotonic() - started)
        return Answer(end.status, (*end.headers, *headers), end.body)

    def _refused(self, refused: Refusal, trace: Trace, preferred: Prefer) -> Answer:
        headers = call_headers(trace)
        if refused.code == "approval_required":
            applied = self.applied(preferred)
            if preferred.respond_async:
                accepted = Refusal(refused.code, ACCEPTED, refused.title, refused.detail, refused.extra)
                location = ("Location", f"/v1/calls/{trace.call_id}")
                return Answer.problem(accepted, trace.call_id, (*headers, location, *applied))
            headers = (*headers, *applied)
        return Answer.problem(refused, trace.call_id, headers)

    def applied(self, preferred: Prefer) -> HeaderPairs:
        """Which preference the answer about a held call followed. Source: RFC 7240 §3."""
        if preferred.respond_async:
            return (("Preference-Applied", "respond-async"),)
        if preferred.wait_seconds is None:
            return ()
        waited = min(preferred.wait_seconds, self._running.assembly.limits.hold_max_seconds)
        return (("Preference-Applied", f"wait={waited}"),)

    def _given_up(self, driver: CallDriver, trace: Trace, started: float) -> None:
        """Nobody hears the answer any more; what was sent still counts."""
        refused = driver.given_up
        if refused is not None:
            self.settled(trace, refused.code, refused.status, monotonic() - started)

    def settled(self, trace: Trace, code: str, status: int, seconds: float) -> None:
        """Count and log the end of a call; of callers that nobody identified a sample is logged."""
        services, subject = self._running.services, trace.subject
        metrics = services.metrics
        metrics.observe_stage("total", seconds)
        if subject is None:
            metrics.unauthenticated.labels(code).inc()
            left_out = self._refusals.left_out(code, monotonic())
            if left_out is not None:
                line = _line(EVENT_REFUSED, trace, code, status, (seconds, services.clock()))
                self._log.write({**line, "left_out": left_out} if left_out else line)
            return
        metrics.count_call((subject.tenant, trace.connector, trace.action, trace.effect, code))
        if code == "outcome_unknown":
            metrics.dispatch_unknown.inc()
        self._log.write(_line(EVENT_CALL, trace, code, status, (seconds, services.clock())))


def _line(event: str, trace: Trace, code: str, status: int, times: tuple[float, float]) -> dict[str, object]:
    """The line of a call that took some `times` seconds and ended at the other, in Unix seconds."""
    seconds, now = times
    subject, decided = trace.subject, trace.decided
    line: dict[str, object] = {
        "event": event,
        "time": rfc3339(int(now * 1000)),
        "call": trace.call_id,
        "instance": trace.instance,
        "connector": trace.connector,
        "action": trace.action,
        "mode": trace.mode,
        "tenant": subject.tenant if subject else None,
        "workspace": subject.workspace if subject else None,
        "subject": subject.id if subject else None,
        "effect": trace.effect,
        "decision": decided.decision_id if decided else None,
        "reasons": [reason.code for reason in decided.decision.reasons] if decided else [],
        "bundle": decided.bundle_revision if decided else None,
        "approval": trace.approval_id,
        "retries": trace.retries,
        "status": status,
        "code": code,
        "seconds": round(seconds, 6),
    }
    if decided is not None and decided.cached:
        line["cached"] = True
    if trace.fault:
        line["fault"] = trace.fault
    return line


def call_headers(trace: Trace) -> HeaderPairs:
    """What the gate says about a call in every answer."""
    headers: HeaderPairs = (("Tidegate-Call", trace.call_id),)
    decided = trace.decided
    if decided is not None:
        headers = (
            *headers,
            ("Tidegate-Decision", decided.decision_id),
            ("Tidegate-Effect", str(decided.decision.effect)),
            ("Tidegate-Bundle", decided.bundle_revision),
        )
    if trace.approval_id is not None:
        headers = (*headers, ("Tidegate-Approval", trace.approval_id))
    return headers


class _StreamBody:
    """A streamed answer; closing it, read or not, brings its flow to its end."""

    def __init__(
        self, driver: CallDriver, flow: Flow[Finished], trace: Trace, runner: CallRunner, began: tuple[float, int]
    ) -> None:
        self._driver = driver
        self._flow = flow
        self._trace = trace
        self._runner = runner
        self._started, self._status = began
        self._pieces = driver.stream(flow)
        self._touched = False
        self._ended = False
        self._code = CODE_OK

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        self._touched = True
        try:
            return await self._pieces.__anext__()
        except StopAsyncIteration:
            raise
        except BaseException:
            self._code = "upstream_failed"
            raise

    async def aclose(self) -> None:
        """Finish: record what was passed on, free the connection, count the call."""
        if self._ended:
            return
        self._ended = True
        try:
            if self._touched:
                closing = getattr(self._pieces, "aclose", None)
                if closing is not None:
                    await closing()
            else:
                await self._driver.abandon(self._flow)
            await self._driver.close()
            self._runner.settled(self._trace, self._code, self._status, monotonic() - self._started)
        finally:
            self._runner.end()


__all__ = ["CallRunner", "call_headers", "new_call_id", "request_head"]
