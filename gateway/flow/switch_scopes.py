"""Which kill switches cover a call: the tenant, the connector, the action, the subject and whom it acts for."""

from __future__ import annotations

from gateway.edge.identity import Subject


def covering_scopes(subject: Subject, connector: str, action: str) -> frozenset[str]:
    """Every scope whose switch stops a call of `subject` to `action`."""
    root = f"tenant/{subject.tenant}"
    scopes = {root, f"{root}/connector/{connector}", f"{root}/action/{action}", f"{root}/subject/{subject.id}"}
    if subject.on_behalf_of is not None:
        scopes.add(f"{root}/subject/{subject.on_behalf_of}")
    return frozenset(scopes)
