"""The names of the gate's own operations, each an action of the connector `tidegate` (page 12, rule 10)."""

from __future__ import annotations

from typing import Final

CONNECTOR: Final = "tidegate"
OPERATIONS: Final = frozenset(
    {
        "access.evaluate",
        "access.subject",
        "access_request.cancel",
        "access_request.create",
        "access_request.show",
        "approval.read",
        "approval.vote",
        "approval.withdraw",
        "call.create",
        "call.read",
        "enforcement.read",
        "opa.log",
        "opa.status",
        "replay.run",
        "shadow.read",
        "simulate.rules",
        "simulate.run",
        "simulate.subject",
        "switch.clear",
        "switch.read",
        "switch.set",
    }
)
"""What `gateway.api.management.authorize` is asked: noun, dot, verb."""


def action_name(operation: str) -> str:
    """An operation's name as policy, records, log lines and metrics have it."""
    return f"{CONNECTOR}.{operation}"
