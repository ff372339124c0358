"""What the ledger says about an approval: opened, voted, ended.

Guarantees: arguments, reasons given by people and the salt are not in the record, only digests of them.
"""

from __future__ import annotations

from gateway.approvals.model import Approval, Ballot, HeldCall, Person
from gateway.ledger.record import RecordDraft, keyed_digest


def approval_record(approval: Approval, *, actor: str = "gate") -> RecordDraft:
    """The record of an approval that was opened or ended in its present state."""
    held = approval.held
    action: dict[str, object] = {
        "name": held.fields.action,
        "instance": held.fields.instance,
        "state": approval.state.value,
    }
    if held.kind != "call":
        action["kind"] = held.kind
    return RecordDraft(
        log=approval.log,
        kind="approval",
        ids={"call": held.call, "approval": approval.id},
        subject={"id": held.fields.subject, "issuer": held.issuer, "on_behalf_of": held.fields.on_behalf_of},
        action=action,
        decision={"id": held.decision_id, "effect": "REQUIRE_HITL"},
        policy={
            "bundle": held.bundle_digest,
            "revision": held.bundle_revision,
            "rules": [each.rule for each in held.reasons],
        },
        digests={"action": approval.action_digest, "chain": approval.chain_digest},
        actor=actor,
    )


def attached_record(approval: Approval, held: HeldCall) -> RecordDraft:
    """The record of a request that was handed in again, `held`, and found the open approval of the same question."""
    drafted = approval_record(approval, actor=held.fields.subject)
    action = {
        "name": held.fields.action,
        "instance": held.fields.instance,
        "kind": held.kind,
        "state": approval.state.value,
        "attached": True,
    }
    return drafted._replace(
        ids={"call": held.call, "approval": approval.id},
        action=action,
        decision={"id": held.decision_id, "effect": "REQUIRE_HITL"},
    )


def vote_record(approval: Approval, voter: Person, ballot: Ballot, tenant_key: bytes) -> RecordDraft:
    """The record of a vote; `approval` is as it stands after it. The reason is guessable, so its digest is keyed."""
    held = approval.held
    return RecordDraft(
        log=approval.log,
        kind="vote",
        ids={"call": held.call, "approval": approval.id},
        subject={"id": voter.id, "issuer": voter.issuer},
        action={"name": "tidegate.approval.vote", "decision": ballot.decision, "state": approval.state.value},
        decision=None,
        policy={"bundle": held.bundle_digest, "revision": held.bundle_revision},
        digests={
            "action": approval.action_digest,
            "chain": approval.chain_digest,
            "reason": keyed_digest(b"vote-reason\x00" + ballot.reason.encode("utf-8", "surrogatepass"), tenant_key),
        },
        actor=voter.id,
    )
