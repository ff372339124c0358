"""The names of the gate's own operations, each an action of the connector `tidegate` (security rule 10)."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, Literal

Mode = Literal["read", "write"]

CONNECTOR: Final = "tidegate"
OPERATIONS: Final[Mapping[str, Mode]] = MappingProxyType(
    {
        "access.evaluate": "read",
        "access.subject": "read",
        "access_request.cancel": "write",
        "access_request.create": "write",
        "access_request.show": "read",
        "approval.read": "read",
        "approval.vote": "write",
        "approval.withdraw": "write",
        "call.create": "write",
        "call.read": "read",
        "enforcement.read": "read",
        "opa.log": "write",
        "opa.status": "write",
        "replay.run": "read",
        "shadow.read": "read",
        "simulate.rules": "read",
        "simulate.run": "read",
        "simulate.subject": "read",
        "switch.clear": "write",
        "switch.read": "read",
        "switch.set": "write",
    }
)
"""What `gateway.api.management.authorize` is asked (noun, dot, verb), and the mode that policy is told: `write` for what changes
something or puts what the caller says into the ledger."""


def action_name(operation: str) -> str:
    """An operation's name as policy, records, log lines and metrics have it."""
    return f"{CONNECTOR}.{operation}"
