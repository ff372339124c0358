"""``/v1/approvals``: the queue, one approval, votes, withdrawal."""

from __future__ import annotations

from typing import get_args

from gateway.api.exchange import ApiExchange, answer, text
from gateway.api.management import authorize
from gateway.approvals.model import (
    REASON_MAX_CHARACTERS,
    Approval,
    ApprovalRefused,
    ApprovalState,
    Ballot,
    VoteDecision,
)
from gateway.approvals.render import approval_document
from gateway.edge.answer import Answer
from gateway.edge.problem import refusal
from gateway.running import Running

LIST_DEFAULT_ITEMS = 50
ID_MAX_CHARACTERS = 64


def _document(running: Running, approval: Approval) -> dict[str, object]:
    return dict(approval_document(approval, int(running.services.clock() * 1000)))


async def handle(running: Running, exchange: ApiExchange) -> Answer:
    """Answer a request below ``/v1/approvals``."""
    method, parts = exchange.head.method, exchange.parts[1:]
    if parts and len(parts[0]) <= ID_MAX_CHARACTERS:
        exchange.trace.approval_id = parts[0]
    try:
        if not parts:
            _only(method, "GET")
            return await _list(running, exchange)
        if len(parts) == 1:
            _only(method, "GET")
            await authorize(running, exchange, "approval.read", resource_id=parts[0])
            return answer(_document(running, await running.services.approvals.get(exchange.log, parts[0])))
        if len(parts) == 2 and parts[1] == "votes":
            _only(method, "POST")
            return await _vote(running, exchange, parts[0])
        if len(parts) == 2 and parts[1] == "withdraw":
            _only(method, "POST")
            await authorize(running, exchange, "approval.withdraw", resource_id=parts[0])
            withdrawn = await running.services.approvals.withdraw(exchange.log, parts[0], exchange.subject)
            return answer(_document(running, withdrawn))
    except ApprovalRefused as refused:
        raise refusal(refused.code, refused.detail) from refused
    raise refusal("not_found")


def _only(method: str, allowed: str) -> None:
    if method != allowed:
        raise refusal("method_not_allowed", f"only {allowed} is allowed here")


async def _list(running: Running, exchange: ApiExchange) -> Answer:
    await authorize(running, exchange, "approval.read")
    wanted = exchange.query("state")
    try:
        state = ApprovalState(wanted) if wanted else None
    except ValueError as error:
        raise refusal("malformed_request", "there is no such state") from error
    page = await running.services.approvals.list(exchange.log, state, exchange.query("cursor"), LIST_DEFAULT_ITEMS)
    return answer({"items": [_document(running, item) for item in page.items], "next": page.next})


async def _vote(running: Running, exchange: ApiExchange, approval_id: str) -> Answer:
    await authorize(running, exchange, "approval.vote", resource_id=approval_id)
    document = await exchange.document(frozenset({"decision", "reason", "action_digest"}))
    decision = text(document, "decision", required=True)
    if decision not in get_args(VoteDecision):
        raise refusal("arguments_invalid", "approve or deny", errors=[{"pointer": "/decision"}])
    ballot = Ballot(
        decision,  # type: ignore[arg-type]
        text(document, "reason", max_characters=REASON_MAX_CHARACTERS),
        text(document, "action_digest", required=True, max_characters=128),
    )
    voted = await running.services.approvals.vote(exchange.log, approval_id, ballot, exchange.subject)
    running.services.metrics.votes.labels(decision).inc()
    return answer(_document(running, voted))
