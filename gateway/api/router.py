"""The gate's listener: which path is answered by whom.

Guarantees: every request ends in an `Answer` or a `Refusal`; nothing below /v1 is answered before its caller is known
and the bundle has allowed it, but health and the description of the interface. An operation that is refused to a known
caller is recorded, and every one of a known caller is counted and logged under its tenant. What is wrong with the
ledger or the store stands in the log, never in an answer.
"""

from __future__ import annotations

from dataclasses import dataclass
from time import monotonic

from aiohttp import web

from gateway.api import approvals, authzen, opa_intake, replay, shadow, simulate, switches
from gateway.api.calls import CallsApi
from gateway.api.exchange import ApiExchange, answer
from gateway.api.management import authorize, caller
from gateway.api.openapi import description
from gateway.api.operations import CONNECTOR
from gateway.edge.answer import Answer
from gateway.edge.body import admit_host, request_head
from gateway.edge.headers import RequestHead, check_head
from gateway.edge.problem import refusal
from gateway.errors import Refusal
from gateway.flow.describe import early_refusal
from gateway.flow.values import Trace
from gateway.ledger.record import RecordMalformed
from gateway.ledger.writer import LedgerUnavailable
from gateway.operations.enforcement import InForce, enforcement
from gateway.proxying import CODE_OK, INSTANCE_PREFIX, CallRunner, new_call_id
from gateway.running import Running
from gateway.store.port import StoreUnavailable


@dataclass(frozen=True, slots=True)
class Router:
    """Handles every request of the gate's listener."""

    running: Running
    runner: CallRunner
    calls: CallsApi

    async def handle(self, request: web.BaseRequest) -> Answer:
        """Answer one request. Raises `Refusal`."""
        limits = self.running.assembly.config.document.limits
        try:
            head = request_head(
                request,
                uri_max_bytes=limits.uri_max_bytes,
                separators_below=INSTANCE_PREFIX,
                names=switches.SUBJECT_SWITCH,
            )
            admit_host(request, head.headers, self.running.gate_hosts)
            path = head.target.path
            if path.startswith(INSTANCE_PREFIX):
                return await self.runner.proxy(request, head)
            if path.startswith("/v1/"):
                return await self._api(request, head)
            if path.startswith(authzen.PREFIX):
                return authzen.in_its_words(await self._api(request, head), head)
            return await self._other(head)
        except Refusal as refused:
            self.running.services.metrics.unauthenticated.labels(refused.code).inc()
            return Answer.problem(refused)

    async def _other(self, head: RequestHead) -> Answer:
        check_head(head)
        path = head.target.path
        if authzen.is_metadata(path):
            return authzen.answer_metadata(self.running, head)
        if path not in ("/health/live", "/health/ready", "/openapi.json"):
            raise refusal("not_found")
        if head.method not in ("GET", "HEAD"):
            raise refusal("method_not_allowed", "only GET is allowed here")
        if path == "/health/live":
            return answer({"live": True})
        if path == "/openapi.json":
            return answer(description())
        missing = self.missing()
        return answer({"ready": not missing, "missing": missing}, status=503 if missing else 200)

    def missing(self) -> list[str]:
        """What readiness lacks: `policy` (no bundle), `freshness` (one that may not decide now), `ledger`, `closing`."""
        missing = []
        policy = self.running.services.policy
        if policy.current() is None:
            missing.append("policy")
        elif not policy.may_decide():
            missing.append("freshness")
        if not self.running.services.writer.healthy:
            missing.append("ledger")
        if self.running.closing:
            missing.append("closing")
        return missing

    async def _api(self, request: web.BaseRequest, head: RequestHead) -> Answer:
        trace = Trace(new_call_id(), CONNECTOR, CONNECTOR)
        started = monotonic()
        try:
            check_head(opa_intake.without_coding(head))
            trace.subject = await caller(self.running, head)
            limit = self.running.assembly.limits.body_max_bytes
            exchange = ApiExchange(request, head, head.target.segments[1:], trace.subject, trace, limit)
            done = await self._operation(exchange)
        except Refusal as refused:
            return await self._refused(refused, trace, started)
        except (LedgerUnavailable, StoreUnavailable, RecordMalformed) as failed:
            trace.fault = failed.detail
            return await self._refused(refusal("ledger_unavailable"), trace, started)
        if not trace.settled:
            self.runner.settled(trace, CODE_OK, done.status, monotonic() - started)
        return done

    async def _refused(self, refused: Refusal, trace: Trace, started: float) -> Answer:
        """Record (where the caller is known), count and log a refusal; it stands whether or not it can be recorded."""
        if trace.subject is not None:
            try:
                await self.running.services.writer.append(early_refusal(trace, trace.subject, refused.code))
            except (LedgerUnavailable, RecordMalformed) as failed:
                trace.fault = trace.fault or failed.detail
        self.runner.settled(trace, refused.code, refused.status, monotonic() - started)
        return Answer.problem(refused, trace.call_id)

    async def _operation(self, exchange: ApiExchange) -> Answer:
        if exchange.head.target.path.startswith(authzen.PREFIX):
            return await authzen.handle(self.running, exchange)
        noun = exchange.parts[0] if exchange.parts else ""
        if noun == "calls":
            return await self.calls.handle(exchange)
        if noun == "approvals":
            return await approvals.handle(self.running, exchange)
        if noun == "switches":
            return await switches.handle(self.running, exchange)
        if exchange.parts == ("simulate",):
            return await simulate.handle(self.running, exchange)
        if exchange.parts == ("replay",):
            return await replay.handle(self.running, exchange)
        if exchange.parts == ("shadow",):
            return await shadow.handle(self.running, exchange)
        if noun == "opa":
            return await opa_intake.handle(self.running, exchange)
        if exchange.parts == ("enforcement",):
            return await self._enforcement(exchange)
        raise refusal("not_found")

    async def _enforcement(self, exchange: ApiExchange) -> Answer:
        if exchange.head.method != "GET":
            raise refusal("method_not_allowed", "only GET is allowed here")
        await authorize(self.running, exchange, "enforcement.read")
        assembly, services = self.running.assembly, self.running.services
        active, cross_check = services.policy.current(), self.running.cross_check
        document = enforcement(
            InForce(self.running.bundles(), active.engine if active is not None else None),
            assembly.plans,
            services.switches.of(exchange.subject.tenant),
            exchange.subject,
            cross_check.document() if cross_check is not None else None,
        )
        return answer(document)
