"""The kill switches that are set, in memory.

Guarantees: a change made by this process counts from the moment it is durable; one made by another is seen within
`POLL_SECONDS`. Leaves setting and clearing to `gateway.api.switches`, the rule what a switch covers to `covering_scopes`.
"""

from __future__ import annotations

from typing import Final

from gateway.edge.identity import Subject
from gateway.flow.switch_scopes import covering_scopes
from gateway.flow.values import Trace
from gateway.store.port import Store, SwitchRow

POLL_SECONDS: Final = 2.0


class SwitchBoard:
    """Switches by tenant."""

    def __init__(self) -> None:
        self._by_tenant: dict[str, tuple[SwitchRow, ...]] = {}

    def of(self, tenant: str) -> tuple[SwitchRow, ...]:
        """The switches set for a tenant."""
        return self._by_tenant.get(tenant, ())

    def covers(self, subject: Subject, trace: Trace) -> bool:
        """Whether a switch now stops what the subject does."""
        switches = self._by_tenant.get(subject.tenant)
        if not switches:
            return False
        scopes = covering_scopes(subject, trace.connector, trace.action)
        return any(switch.scope in scopes for switch in switches)

    async def refresh(self, store: Store) -> None:
        """Read all switches anew. Raises `StoreUnavailable`."""
        fresh: dict[str, tuple[SwitchRow, ...]] = {}
        for row in await store.switches():
            fresh[row.tenant] = (*fresh.get(row.tenant, ()), row)
        self._by_tenant = fresh
