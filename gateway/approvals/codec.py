"""An approval as bytes, for the store.

Guarantees: `decode_approval(encode_approval(a)) == a`; bytes that are no approval raise `CodecError`, they never give a
half one. Leaves encryption to the store.
"""

from __future__ import annotations

from typing import Any

import orjson

from gateway.approvals.model import Approval, ApprovalState, CallFields, HeldCall, Reason, Step, StepState, Vote
from gateway.errors import GateUnavailable


class CodecError(GateUnavailable):
    """Stored bytes are not what was stored."""


def encode_approval(approval: Approval) -> bytes:
    """The stored form of an approval."""
    return orjson.dumps(approval)


def decode_approval(data: bytes) -> Approval:
    """The approval of `encode_approval`'s bytes. Errors: `CodecError`."""
    try:
        members: dict[str, Any] = orjson.loads(data)
        held = dict(members.pop("held"))
        bound = dict(held.pop("fields"))
        if "issuer" not in bound:  # the first form had it beside them
            bound["issuer"] = held.pop("issuer")
        fields = CallFields(**bound)
        reasons = tuple(Reason(**each) for each in held.pop("reasons"))
        actors = tuple(held.pop("actors"))
        steps = tuple(_step(each) for each in members.pop("steps"))
        state = ApprovalState(members.pop("state"))
        return Approval(
            held=HeldCall(fields=fields, reasons=reasons, actors=actors, **held), steps=steps, state=state, **members
        )
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise CodecError(f"a stored approval cannot be read: {type(error).__name__}") from error


def _step(members: dict[str, Any]) -> Step:
    rest = dict(members)
    votes = tuple(Vote(**each) for each in rest.pop("votes"))
    roles = tuple(rest.pop("roles"))
    state = StepState(rest.pop("state"))
    return Step(votes=votes, roles=roles, state=state, **rest)
