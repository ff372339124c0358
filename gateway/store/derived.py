"""The status of a call that was never saved as a row, read off its records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from gateway.ledger.record import LogId
from gateway.store.port import CallRow, CallState

_STATES: Final[Mapping[str, CallState]] = {
    "intent": "dispatching",
    "response_began": "dispatching",
    "outcome": "done",
    "call": "done",
    "refusal": "refused",
}


def call_of_records(log: LogId, call_id: str, records: Sequence[Mapping[str, Any]]) -> CallRow | None:
    """The call that these records (in order) tell of, or None without any.

    An ending record says `status` and `code` in `action`; code `outcome_unknown` makes the state `unknown`."""
    told = [record for record in records if record["kind"] in _STATES]
    if not told:
        return None
    first, last = told[0], told[-1]
    action, decision = last["action"], last["decision"] or first["decision"] or {}
    code, status = action.get("code"), action.get("status")
    state: CallState = "unknown" if code == "outcome_unknown" else _STATES[last["kind"]]
    return CallRow(
        log=log,
        id=call_id,
        subject=_text(first["subject"].get("id")),
        issuer=_text(first["subject"].get("issuer")),
        instance=_text(first["action"].get("instance")),
        action=_text(first["action"].get("name")),
        state=state,
        effect=_text(decision.get("effect")),
        code=code if isinstance(code, str) else None,
        decision=_text(decision.get("id")),
        approval=_text(first["ids"].get("approval")) or None,
        status=status if isinstance(status, int) else None,
        created=int(first["wall"]),
        on_behalf_of=_text(first["subject"].get("on_behalf_of")) or None,
        environment=_text(first["subject"].get("environment")),
    )


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
