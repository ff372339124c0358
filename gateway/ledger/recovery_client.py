"""After a start: what was begun and never ended.

Guarantees: every intent without outcome that the store holds, and every streamed answer without its end, gets an `outcome`
record with code `outcome_unknown`, its idempotency key says `unknown`, and so does its status row: nothing is sent again
by itself. Run it once, after the writer and the reads are open and before the gate listens; with several processes on
one file only while no other runs. Leaves resolving to a person.
"""

from __future__ import annotations

from typing import Final

from gateway.ledger.record import RecordDraft
from gateway.ledger.writer import LedgerWriter
from gateway.store.port import MarkUnknown, OpenIntent, Store

INTENTS_PER_ROUND: Final = 200


async def recover_open_intents(store: Store, writer: LedgerWriter) -> int:
    """Mark all open intents UNKNOWN; how many. Errors: `LedgerUnavailable`, `StoreUnavailable`."""
    count = 0
    while found := await store.open_intents(INTENTS_PER_ROUND):
        for intent in found:
            await writer.append(await _unknown_outcome(store, intent), effects=(MarkUnknown(intent.log, intent.call),))
            count += 1
    return count


async def _unknown_outcome(store: Store, intent: OpenIntent) -> RecordDraft:
    row = await store.call(intent.log, intent.call)
    action: dict[str, object] = {"code": "outcome_unknown", "status": None}
    subject: dict[str, object] = {}
    ids: dict[str, object] = {"call": intent.call}
    if row is not None:
        action |= {"name": row.action, "instance": row.instance}
        subject |= {"id": row.subject, "issuer": row.issuer}
        if row.approval is not None:
            ids["approval"] = row.approval
    return RecordDraft(
        log=intent.log,
        kind="outcome",
        ids=ids,
        subject=subject,
        action=action,
        decision=None,
        policy={},
        digests={},
        actor="gate:recovery",
    )
