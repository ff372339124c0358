"""How an approval looks outside, as ``docs/approving.md`` shows it, from the same bytes that the digest binds.

Guarantees: exactly the promised members; times are RFC 3339 in UTC; nothing is shortened. The caller's stated reason is
shown last among the reasons, marked as untrusted. Leaves escaping of control characters to whoever prints it.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final

from bundles.canonical import JsonValue
from gateway.approvals.model import Approval, Step
from gateway.approvals.reduce import as_of

STATED_REASON_CODE: Final = "stated_reason_untrusted"


def rfc3339(wall: int) -> str:
    """Wall milliseconds as RFC 3339 in UTC."""
    return f"{_second(wall // 1000)}.{wall % 1000:03d}Z"


@lru_cache(maxsize=64)
def _second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()[:19]


def approval_document(approval: Approval, now: int) -> dict[str, JsonValue]:
    """The JSON object of an approval as it stands at `now` (wall ms); `kind` is there for what is no call."""
    current = as_of(approval, now)
    held = current.held
    fields = held.fields
    reasons: list[JsonValue] = [
        {"code": each.code, "rule": each.rule, "message": each.message} for each in held.reasons
    ]
    if held.stated_reason:
        reasons.append({"code": STATED_REASON_CODE, "rule": "", "message": held.stated_reason})
    document: dict[str, JsonValue] = {
        "id": current.id,
        "state": current.state.value,
        "action_digest": current.action_digest,
        "call": held.call,
        "tenant": fields.tenant,
        "workspace": fields.workspace,
        "instance": fields.instance,
        "action": fields.action,
        "resource": json.loads(fields.resource_json),
        "arguments": json.loads(fields.args_json),
        "subject": json.loads(held.subject_json),
        "reasons": reasons,
        "created": rfc3339(current.created),
        "decide_by": rfc3339(current.decide_by),
        "use_by": None if current.use_by is None else rfc3339(current.use_by),
        "on_approval": held.on_approval,
        "chain": {"name": held.chain_name, "steps": [_step_document(step) for step in current.steps]},
    }
    if held.kind != "call":
        document["kind"] = held.kind
    return document


def approval_facts(approval: Approval) -> dict[str, JsonValue]:
    """What policy is told of an approval in `input.context.approval`."""
    votes: list[JsonValue] = [
        {"voter": vote.voter, "decision": vote.decision, "step": step.id}
        for step in approval.steps
        for vote in step.votes
    ]
    return {
        "id": approval.id,
        "state": approval.state.value,
        "chains": [approval.held.chain_name],
        "action_digest": approval.action_digest,
        "votes": votes,
    }


def _step_document(step: Step) -> JsonValue:
    votes: list[JsonValue] = [
        {"voter": vote.voter, "decision": vote.decision, "reason": vote.reason, "at": rfc3339(vote.at)}
        for vote in step.votes
    ]
    roles: list[JsonValue] = list(step.roles)
    return {"id": step.id, "state": step.state.value, "needs": {"roles": roles, "quorum": step.quorum}, "votes": votes}
