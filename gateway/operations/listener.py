"""``/metrics`` on its own listener, so that who scrapes need not reach the gate."""

from __future__ import annotations

from dataclasses import dataclass

from aiohttp import web

from gateway.edge.answer import Answer
from gateway.edge.body import admit_host, request_head
from gateway.edge.problem import refusal
from gateway.ledger.writer import LedgerWriter
from gateway.operations.metrics import MEDIA_TYPE, Metrics


@dataclass(frozen=True, slots=True)
class MetricsListener:
    """Answers scrapes that name one of `hosts`, or the very address they came to."""

    metrics: Metrics
    writer: LedgerWriter
    hosts: frozenset[str]

    async def handle(self, request: web.BaseRequest) -> Answer:
        """All metrics in OpenMetrics text. Raises `malformed_request` for an unknown host, `not_found` for any other path."""
        admit_host(request, request_head(request).headers, self.hosts)
        if request.path != "/metrics":
            raise refusal("not_found")
        if request.method != "GET":
            raise refusal("method_not_allowed", "only GET is allowed here")
        self.metrics.ledger_unflushed.set(self.writer.unflushed)
        return Answer(200, (("Content-Type", MEDIA_TYPE),), self.metrics.exposition())
