"""``/v1/switches``: kill switches of the caller's tenant."""

from __future__ import annotations

import difflib
import re

from gateway.api.exchange import ApiExchange, answer, text
from gateway.api.management import authorize
from gateway.approvals.render import rfc3339
from gateway.edge.answer import Answer
from gateway.edge.problem import refusal
from gateway.flow.describe import subject_record
from gateway.ledger.record import RecordDraft
from gateway.running import Running
from gateway.store.port import ClearSwitch, SetSwitch, StoreConflict, StoreEffect, SwitchRow

SUBJECT_SWITCH = re.compile(r"/v1/switches/tenant/[^/]+/subject/[^/]+")
"""The path of a subject's switch. The subject's id is one segment, percent-encoded whole, whatever stands in it."""
_SCOPE = re.compile(r"tenant/([^/]{1,256})(?:/(?:(?:connector|action)/[^/]{1,256}|subject/.{1,256}))?", re.DOTALL)
_PARTS = frozenset({2, 4})


async def handle(running: Running, exchange: ApiExchange) -> Answer:
    """Answer a request below ``/v1/switches``."""
    scope = "/".join(exchange.parts[1:])
    method = exchange.head.method
    if method == "GET":
        await authorize(running, exchange, "switch.read", resource_id=scope)
        rows = [row for row in running.services.switches.of(exchange.subject.tenant) if scope in ("", row.scope)]
        if scope and not rows:
            raise refusal("not_found", "this switch is not set")
        return (
            answer(_document(rows[0])) if scope else answer({"items": [_document(row) for row in rows], "next": None})
        )
    found = _SCOPE.fullmatch(scope)
    if found is None or found[1] != exchange.subject.tenant or len(exchange.parts) - 1 not in _PARTS:
        raise refusal("not_found", "a scope is tenant/T[/connector|/action|/subject/NAME] of your own tenant")
    if method == "PUT":
        await authorize(running, exchange, "switch.set", resource_id=scope)
        reason = text(await exchange.document(frozenset({"reason"})), "reason", required=True)
        now = int(running.services.clock() * 1000)
        row = SwitchRow(exchange.subject.tenant, scope, reason, exchange.subject.id, now)
        await _change(running, exchange, "set", SetSwitch(row))
        return answer({**_document(row), "warning": warning(scope, running.assembly.labels)})
    if method == "DELETE":
        await authorize(running, exchange, "switch.clear", resource_id=scope)
        await _change(running, exchange, "clear", ClearSwitch(exchange.subject.tenant, scope))
        return answer({"scope": scope, "set": False})
    raise refusal("method_not_allowed", "only GET, PUT and DELETE are allowed here")


def warning(scope: str, known: frozenset[str]) -> str | None:
    """What to say of a switch whose connector or action the bundle in force does not have; it is set all the same, since the bundle
    may come later. `known` are the names of connectors and actions."""
    kind, _, name = "/".join(scope.split("/")[2:]).partition("/")
    connectors = {label for label in known if any(other.startswith(f"{label}.") for other in known)}
    names = {"connector": connectors, "action": known - connectors}.get(kind)
    if names is None or name in names:
        return None
    close = difflib.get_close_matches(name, sorted(names), n=1)
    meant = f"; did you mean {close[0]}?" if close else ""
    return f"the bundle in force has no {kind} {name}, so this stops nothing now{meant}"


async def _change(running: Running, exchange: ApiExchange, verb: str, effect: StoreEffect) -> None:
    draft = RecordDraft(
        log=exchange.log,
        kind="switch",
        ids={"call": exchange.call_id},
        subject=subject_record(exchange.subject),
        action={"name": f"tidegate.switch.{verb}", "scope": "/".join(exchange.parts[1:])},
        decision=None,
        policy={},
        digests={},
        actor=exchange.subject.id,
    )
    try:
        await running.services.writer.append(draft, effects=(effect,))
    except StoreConflict as conflict:
        raise refusal(conflict.code, conflict.detail) from conflict
    await running.services.switches.refresh(running.services.store)


def _document(row: SwitchRow) -> dict[str, object]:
    return {"scope": row.scope, "set": True, "reason": row.reason, "set_by": row.set_by, "since": rfc3339(row.set_at)}
