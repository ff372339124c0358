"""`/v1/opa/logs` and `/v1/opa/status`: what a real OPA posts, into the ledger of whoever's token it uses.

Guarantees: an upload is answered with 204 only when all of its events are durable; one that is not may be posted again,
and then stands in the ledger twice under the same decision ids. Leaves the reading of uploads to `opa_events`.

**Source**: OPA's management API: `POST {service}/logs[/partition]`, `POST {service}/status[/partition]`, any 2xx is taken.
"""

from __future__ import annotations

import asyncio
from typing import Final

from gateway.api.exchange import ApiExchange
from gateway.api.management import authorize
from gateway.api.opa_events import decision_drafts, parse, status_draft, unpacked
from gateway.edge.answer import Answer
from gateway.edge.body import read_body
from gateway.edge.headers import RequestHead
from gateway.edge.identity import Subject
from gateway.edge.problem import refusal
from gateway.ledger.record import RecordDraft
from gateway.running import Running

PREFIX: Final = "/v1/opa/"
APPENDED_AT_ONCE: Final = 256
_OPERATIONS: Final = {"logs": "opa.log", "status": "opa.status"}


def without_coding(head: RequestHead) -> RequestHead:
    """The head as the general checks may see it: here, and only here, a body may be compressed, with gzip alone."""
    if not head.target.path.startswith(PREFIX) or _coding(head) != "gzip":
        return head
    return head._replace(headers=tuple(pair for pair in head.headers if pair[0] != "content-encoding"))


async def handle(running: Running, exchange: ApiExchange) -> Answer:
    """Answer a request below `/v1/opa`. Raises `Refusal`."""
    parts = exchange.parts[1:]
    operation = _OPERATIONS.get(parts[0]) if 1 <= len(parts) <= 2 else None
    if operation is None:
        raise refusal("not_found")
    if exchange.head.method != "POST":
        raise refusal("method_not_allowed", "only POST is allowed here")
    await authorize(running, exchange, operation, resource_id=parts[1] if len(parts) == 2 else "")
    raw = await read_body(exchange.request, exchange.body_max_bytes)
    key = running.tenant_keys.key(exchange.subject.tenant, "record-hmac")
    asked = (exchange.subject, exchange.call_id, key)
    drafts = await asyncio.to_thread(_drafts, raw, _coding(exchange.head), operation, asked)
    for first in range(0, len(drafts), APPENDED_AT_ONCE):
        together = drafts[first : first + APPENDED_AT_ONCE]
        await asyncio.gather(*(running.services.writer.append(draft) for draft in together))
    return Answer(204, (("Cache-Control", "no-store"), ("Tidegate-Call", exchange.call_id)))


def _drafts(raw: bytes, coding: str, operation: str, asked: tuple[Subject, str, bytes]) -> list[RecordDraft]:
    document = parse(unpacked(raw, coding))
    if operation == "opa.log":
        return decision_drafts(document, *asked)
    return [status_draft(document, *asked)]


def _coding(head: RequestHead) -> str:
    found = [value.strip().lower() for name, value in head.headers if name == "content-encoding"]
    return ",".join(found)
