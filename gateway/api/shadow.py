"""``GET /v1/shadow``: what the shadow bundle, or OPA, would have decided differently about the caller's tenant and workspace.

Guarantees: only the caller's own log is read; no argument of a call is shown. The list is newest first; ``?kind=`` asks
for one kind.
"""

from __future__ import annotations

import re
from typing import Final

import orjson

from bundles.canonical import JsonValue
from gateway.api.exchange import ApiExchange, answer
from gateway.api.management import authorize
from gateway.approvals.render import rfc3339
from gateway.cross_checking import KIND
from gateway.edge.answer import Answer
from gateway.edge.problem import refusal
from gateway.running import Running
from gateway.shadowing import ShadowStatus
from gateway.store.port import DifferenceRow
from pdp.replay import Kind

PAGE_ITEMS: Final = 100
KINDS: Final = frozenset({Kind.LOOSENING.value, Kind.TIGHTENING.value, Kind.CHANGED.value, KIND})
_CURSOR = re.compile(r"[1-9][0-9]{0,17}")


async def handle(running: Running, exchange: ApiExchange) -> Answer:
    """Answer a request to ``/v1/shadow``."""
    if exchange.head.method != "GET":
        raise refusal("method_not_allowed", "only GET is allowed here")
    await authorize(running, exchange, "shadow.read")
    kind, cursor = exchange.query("kind"), exchange.query("cursor")
    if kind is not None and kind not in KINDS:
        raise refusal("malformed_request", f"kind is one of {', '.join(sorted(KINDS))}")
    if cursor is not None and not _CURSOR.fullmatch(cursor):
        raise refusal("malformed_request", "the cursor is none of this list")
    store = running.services.store
    before = int(cursor) if cursor is not None else None
    rows = await store.differences(exchange.log, kind, PAGE_ITEMS + 1, before)
    page = rows[:PAGE_ITEMS]
    document: dict[str, JsonValue] = {
        "items": [_item(row) for row in page],
        "next": str(page[-1].position) if len(rows) > PAGE_ITEMS else None,
        "counts": dict(await store.difference_counts(exchange.log)),
    }
    if running.shadow is not None:
        document |= _status(running.shadow.status(exchange.subject.tenant))
    if running.cross_check is not None:
        document["cross_check"] = running.cross_check.document()
    return answer(document)


def _item(row: DifferenceRow) -> JsonValue:
    told: dict[str, JsonValue] = orjson.loads(row.data)
    return {"call": row.call, "at": rfc3339(row.at), **told, "kind": row.kind}


def _status(status: ShadowStatus) -> dict[str, JsonValue]:
    """The shadow bundle, why there is none, and what was left out since the gate started."""
    bundle = status.bundle
    shown: JsonValue = None
    if bundle is not None:
        shown = {"name": bundle.name, "revision": bundle.revision, "sequence": bundle.sequence, "digest": bundle.digest}
    error: JsonValue = None
    if status.error_code is not None:
        error = {"code": status.error_code, "detail": status.error_detail}
    return {"shadow": shown, "error": error, "offered": status.counts.offered, "dropped": status.counts.dropped}
