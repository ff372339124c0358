"""``/v1/calls``: a governed call in our own words, its status, its stored answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

import orjson

from gateway.api.exchange import ApiExchange, answer, text
from gateway.api.management import authorize
from gateway.approvals.model import ApprovalRefused, ApprovalState
from gateway.approvals.render import rfc3339
from gateway.edge.answer import Answer
from gateway.edge.headers import prefer
from gateway.edge.problem import refusal
from gateway.errors import Refusal
from gateway.flow.prepare import stated
from gateway.flow.values import ApiRequest, Finished, Trace
from gateway.proxying import ACCEPTED, CallRunner, call_headers
from gateway.running import Running
from gateway.store.port import CallRow, CallState

_MEMBERS = frozenset({"instance", "action", "arguments", "idempotency_key", "ticket", "run"})
_ENDED: Final[Mapping[ApprovalState, tuple[CallState, str | None]]] = {
    ApprovalState.APPROVED: ("approved", None),
    ApprovalState.DENIED: ("refused", "approval_denied"),
    ApprovalState.EXPIRED: ("refused", "approval_expired"),
    ApprovalState.WITHDRAWN: ("refused", "approval_denied"),
    ApprovalState.SUPERSEDED: ("refused", "stale_state"),
}
"""State and code of a held call once its approval is no longer pending."""


@dataclass(frozen=True, slots=True)
class CallsApi:
    """Handles ``/v1/calls`` with the runner of the gate's calls."""

    running: Running
    runner: CallRunner

    async def handle(self, exchange: ApiExchange) -> Answer:
        """Answer a request below ``/v1/calls``."""
        method, parts = exchange.head.method, exchange.parts[1:]
        if not parts:
            if method != "POST":
                raise refusal("method_not_allowed", "only POST is allowed here")
            return await self._create(exchange)
        if method != "GET":
            raise refusal("method_not_allowed", "only GET is allowed here")
        if len(parts) == 1 or (len(parts) == 2 and parts[1] == "response"):
            await authorize(self.running, exchange, "call.read", resource_id=parts[0])
            row = await self.running.services.store.call(exchange.log, parts[0])
            if row is None:
                raise refusal("not_found", "there is no such call")
            return await (self._status(exchange, row) if len(parts) == 1 else self._response(exchange, row))
        raise refusal("not_found")

    async def _create(self, exchange: ApiExchange) -> Answer:
        document = await exchange.document(_MEMBERS)
        arguments = document.get("arguments", {})
        if not isinstance(arguments, dict):
            raise refusal("arguments_invalid", "arguments is an object", errors=[{"pointer": "/arguments"}])
        instance = text(document, "instance", required=True, max_characters=64)
        action = text(document, "action", required=True, max_characters=128)
        await authorize(self.running, exchange, "call.create", resource_id=instance)
        plan = self.running.assembly.plans.get(instance)
        if plan is None:
            raise refusal("not_found", "there is no such instance")
        preferred, said = prefer(exchange.head.headers), stated(exchange.head.headers)
        request = ApiRequest(
            call_id=exchange.call_id,
            plan=plan,
            subject=exchange.subject,
            action=action
            if action.startswith(f"{plan.manifest.connector}.")
            else f"{plan.manifest.connector}.{action}",
            arguments=arguments,
            idempotency_key=text(document, "idempotency_key") or said.idempotency_key,
            ticket=text(document, "ticket") or said.ticket,
            run=text(document, "run") or said.run,
            stated_reason=said.stated_reason,
            prefer=preferred,
            received_unix=self.running.services.clock(),
        )
        ended, trace = await self.runner.governed(exchange.request, request)
        exchange.trace.settled = True  # the call has its own record, log line and metric
        headers = call_headers(trace)
        if isinstance(ended, Finished):
            return answer(_finished(request, trace, ended), headers=headers)
        if ended.code == "approval_required":
            location = ("Location", f"/v1/calls/{exchange.call_id}")
            more = (*headers, location, *self.runner.applied(preferred))
            return answer(_held(request, trace, ended), status=ACCEPTED, headers=more)
        return Answer.problem(ended, exchange.call_id, headers)

    async def _status(self, exchange: ApiExchange, row: CallRow) -> Answer:
        approval = {"id": row.approval, "url": f"/v1/approvals/{row.approval}"} if row.approval is not None else None
        ran = row
        if row.state == "held" and row.approval is not None:
            ran = await self._as_of_approval(exchange, row, row.approval)
        stored = None
        if ran.state == "done" and _is_own(exchange, ran):
            stored = await self.running.services.store.answer(exchange.log, ran.id)
        document = {
            "id": row.id,
            "state": ran.state,
            "effect": row.effect,
            "code": ran.code,
            "decision": row.decision,
            "approval": approval,
            "instance": row.instance,
            "action": row.action,
            "created": rfc3339(row.created),
            "status": ran.status,
            "response": _body(stored.body) if stored is not None else None,
        }
        return answer(document)

    async def _as_of_approval(self, exchange: ApiExchange, row: CallRow, approval_id: str) -> CallRow:
        """A held call as its approval now has it. Once that is used up, it is the call that used it that says how it
        went: the same call, sent again by its caller (`on_approval: grant`)."""
        services = self.running.services
        try:
            approval = await services.approvals.get(exchange.log, approval_id)
        except ApprovalRefused:
            return row
        if approval.state is not ApprovalState.CONSUMED:
            state, code = _ENDED.get(approval.state, (row.state, row.code))
            return replace(row, state=state, code=code)
        used = await services.store.call(exchange.log, approval.used_by) if approval.used_by else None
        return used if used is not None else replace(row, state="unknown", code=None)

    async def _response(self, exchange: ApiExchange, row: CallRow) -> Answer:
        if row.state == "held" and row.approval is not None:
            row = await self._as_of_approval(exchange, row, row.approval)
        if not _is_own(exchange, row):
            raise refusal("not_found", "there is no such answer")
        stored = await self.running.services.store.answer(exchange.log, row.id)
        if stored is None:
            raise refusal("not_found", "the answer of this call is not kept")
        return Answer(stored.status, stored.headers, stored.body)


def _is_own(exchange: ApiExchange, row: CallRow) -> bool:
    """Whether a call is the caller's own: an actor's for one person is not the same actor's for another.

    Answers are for nobody else, whoever may read how calls stand.
    """
    return (row.issuer, row.subject, row.on_behalf_of, row.environment) == exchange.subject.standing


def _base(request: ApiRequest, trace: Trace) -> dict[str, object]:
    return {
        "id": request.call_id,
        "effect": trace.effect,
        "decision": trace.decided.decision_id if trace.decided is not None else None,
        "instance": request.plan.name,
        "action": request.action,
        "created": rfc3339(int(request.received_unix * 1000)),
    }


def _finished(request: ApiRequest, trace: Trace, ended: Finished) -> dict[str, object]:
    approval = {"id": trace.approval_id, "url": f"/v1/approvals/{trace.approval_id}"} if trace.approval_id else None
    more = {"state": "done", "code": None, "approval": approval, "status": ended.status, "response": _body(ended.body)}
    return {**_base(request, trace), **more}


def _held(request: ApiRequest, trace: Trace, ended: Refusal) -> dict[str, object]:
    more = {
        "state": "held",
        "code": ended.code,
        "approval": ended.extra.get("approval"),
        "status": None,
        "response": None,
    }
    return {**_base(request, trace), **more, "reasons": ended.extra.get("reasons")}


def _body(raw: bytes) -> object:
    """The answer as JSON where it is JSON, as text otherwise."""
    if not raw:
        return None
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError:
        return raw.decode("utf-8", "replace")
