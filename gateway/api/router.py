"""The gate's listener: which path is answered by whom.

Guarantees: every request ends in an `Answer` or a `Refusal`; nothing below /v1 is answered before its caller is known
and the bundle has allowed it, but health and the description of the interface.
"""

from __future__ import annotations

from dataclasses import dataclass

from aiohttp import web

from gateway.api import approvals, switches
from gateway.api.calls import CallsApi
from gateway.api.exchange import ApiExchange, answer
from gateway.api.management import authorize, caller
from gateway.api.openapi import description
from gateway.edge.answer import Answer
from gateway.edge.body import request_head
from gateway.edge.headers import RequestHead, check_head
from gateway.edge.problem import refusal
from gateway.errors import Refusal
from gateway.operations.enforcement import InForce, enforcement
from gateway.proxying import INSTANCE_PREFIX, CallRunner, new_call_id
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
            head = request_head(request, uri_max_bytes=limits.uri_max_bytes)
            path = head.target.path
            if path.startswith(INSTANCE_PREFIX):
                return await self.runner.proxy(request, head)
            if path.startswith("/v1/"):
                return await self._api(request, head)
            return await self._other(head)
        except Refusal as refused:
            self.running.services.metrics.unauthenticated.labels(refused.code).inc()
            return Answer.problem(refused)

    async def _other(self, head: RequestHead) -> Answer:
        check_head(head)
        path = head.target.path
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
        """What readiness lacks: `policy`, `freshness`, `ledger`, `closing`; empty when ready."""
        missing = []
        if self.running.services.policy.current() is None:
            missing.append("policy")
        elif self.running.freshness is not None and self.running.freshness().remaining_seconds <= 0:
            missing.append("freshness")
        if not self.running.services.writer.healthy:
            missing.append("ledger")
        if self.running.closing:
            missing.append("closing")
        return missing

    async def _api(self, request: web.BaseRequest, head: RequestHead) -> Answer:
        call_id = new_call_id()
        try:
            check_head(head)
            subject = await caller(self.running, head)
            limit = self.running.assembly.limits.body_max_bytes
            exchange = ApiExchange(request, head, head.target.segments[1:], subject, call_id, limit)
            return await self._operation(exchange)
        except Refusal as refused:
            self.running.services.metrics.count_call(("", "tidegate", "tidegate", "", refused.code))
            return Answer.problem(refused, call_id)
        except StoreUnavailable as failed:
            return Answer.problem(refusal("ledger_unavailable", failed.detail), call_id)

    async def _operation(self, exchange: ApiExchange) -> Answer:
        noun = exchange.parts[0] if exchange.parts else ""
        if noun == "calls":
            return await self.calls.handle(exchange)
        if noun == "approvals":
            return await approvals.handle(self.running, exchange)
        if noun == "switches":
            return await switches.handle(self.running, exchange)
        if exchange.parts == ("enforcement",):
            return await self._enforcement(exchange)
        raise refusal("not_found")

    async def _enforcement(self, exchange: ApiExchange) -> Answer:
        if exchange.head.method != "GET":
            raise refusal("method_not_allowed", "only GET is allowed here")
        await authorize(self.running, exchange.subject, "enforcement.read", exchange.call_id)
        assembly, services = self.running.assembly, self.running.services
        active = services.policy.current()
        document = enforcement(
            InForce(
                active.bundle if active is not None else None,
                active.engine if active is not None else None,
                self.running.freshness() if self.running.freshness is not None else None,
            ),
            assembly.plans,
            services.switches.of(exchange.subject.tenant),
            assembly.config.document,
            exchange.subject,
        )
        return answer(document)
