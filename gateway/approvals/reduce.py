"""How an approval changes: pure functions from an approval and an event to the next approval.

Guarantees: one way, never back; a vote counts only after every check has passed; nothing here reads a clock. Leaves to
`service` and the store to commit the result by compare-and-set, so that of two racing changes one is refused.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from gateway.approvals.digest import DIGEST_VERSION, action_digest, chain_digest
from gateway.approvals.model import (
    OPEN_STATES,
    REASON_MAX_CHARACTERS,
    STEPS_MAX,
    Approval,
    ApprovalRefused,
    ApprovalState,
    Ballot,
    HeldCall,
    Person,
    Step,
    StepState,
    Vote,
)

_STEP_MEMBERS: Final = frozenset({"id", "role", "quorum"})


def instantiate_chain(name: str, chain_json: str) -> tuple[Step, ...]:
    """The steps of a chain, the first one pending. Only one step with one role and a quorum of 1 is supported now;
    anything else is refused, never shortened. Errors: `ApprovalRefused` `not_supported`."""
    chain = json.loads(chain_json)
    steps = (
        chain.get("steps") if isinstance(chain, Mapping) and set(chain) <= {"steps", "name", "description"} else None
    )
    if not isinstance(steps, list) or len(steps) != STEPS_MAX:
        raise ApprovalRefused("not_supported", f"chain {name}: exactly {STEPS_MAX} step is supported")
    step = steps[0]
    if not isinstance(step, dict) or not set(step) <= _STEP_MEMBERS:
        raise ApprovalRefused("not_supported", f"chain {name}: parallel and conditional steps are not supported")
    role, quorum, step_id = step.get("role"), step.get("quorum", 1), step.get("id", "approve")
    if not isinstance(role, str) or not role or not isinstance(step_id, str) or not step_id:
        raise ApprovalRefused("not_supported", f"chain {name}: a step needs an id and a role")
    if type(quorum) is not int or quorum != 1:
        raise ApprovalRefused("not_supported", f"chain {name}: only a quorum of 1 is supported")
    return (Step(id=step_id, state=StepState.PENDING, roles=(role,), quorum=1),)


def open_approval(held: HeldCall, *, approval_id: str, salt: str, attach_key: str, now: int) -> Approval:
    """A new pending approval of a held call. Errors: `ApprovalRefused` `not_supported`."""
    if held.on_approval != "grant":
        raise ApprovalRefused("not_supported", f"on_approval {held.on_approval!r} is not supported")
    if held.decide_within_seconds < 1 or held.use_within_seconds < 1:
        raise ApprovalRefused("not_supported", "both clocks need at least one second")
    return Approval(
        id=approval_id,
        version=1,
        state=ApprovalState.PENDING,
        action_digest=action_digest(held.fields, salt),
        salt=salt,
        attach_key=attach_key,
        held=held,
        steps=instantiate_chain(held.chain_name, held.chain_json),
        chain_digest=chain_digest(held.chain_name, held.chain_json),
        created=now,
        decide_by=now + held.decide_within_seconds * 1000,
        digest_version=DIGEST_VERSION,
    )


def as_of(approval: Approval, now: int) -> Approval:
    """The approval as it stands at `now`: an open one whose clock has run out is expired. No time-out approves.

    One whose digest has an earlier form is superseded: no call has that digest any more, and the same call sent again
    opens another.
    """
    if approval.state not in OPEN_STATES:
        return approval
    if now >= approval.deadline:
        return replace(approval, state=ApprovalState.EXPIRED, version=approval.version + 1, ended=approval.deadline)
    if approval.digest_version != DIGEST_VERSION:
        return _ended(approval, ApprovalState.SUPERSEDED, approval.created)
    return approval


def cast_vote(approval: Approval, ballot: Ballot, voter: Person, now: int) -> Approval:
    """The approval after one more vote.

    Errors: `ApprovalRefused` with `not_found` (another tenant or workspace), `stale_state` (ended, or the voter saw
    another digest), `denied` (no person, acts for somebody, is or acts for the requester), `vote_refused` (lacks the
    step's role, voted already), `malformed_request` (unknown decision, reason too long).

    **Security**: people are keyed by (issuer, id); whoever shares an *id* with the requester is excluded whatever the
    issuer, since two issuers may know one person by one name.
    """
    if (voter.tenant, voter.workspace) != approval.log:
        raise ApprovalRefused("not_found", "no such approval")
    _check_person(approval, voter)
    current = as_of(approval, now)
    if current.state is not ApprovalState.PENDING:
        raise ApprovalRefused("stale_state", f"the approval is {current.state.value}")
    if not hmac.compare_digest(ballot.action_digest.encode("utf-8", "replace"), approval.action_digest.encode("ascii")):
        raise ApprovalRefused("stale_state", "the vote names another action digest than the approval's")
    index, step = _pending_step(current)
    _check_ballot(ballot)
    if not set(step.roles) & set(voter.roles):
        raise ApprovalRefused("vote_refused", f"step {step.id} needs one of the roles {', '.join(step.roles)}")
    if any((vote.issuer, vote.voter) == (voter.issuer, voter.id) for each in current.steps for vote in each.votes):
        raise ApprovalRefused("vote_refused", "one person has one vote")
    vote = Vote(voter=voter.id, issuer=voter.issuer, decision=ballot.decision, reason=ballot.reason, at=now)
    return _with_step(current, index, replace(step, votes=(*step.votes, vote)), now)


def consume(approval: Approval, digest: str, now: int, call: str = "") -> Approval:
    """The approval used up by `call`, whose digest must be exactly the approval's.

    Errors: `ApprovalRefused` `stale_state`; always for an access request, which releases no call.
    """
    if approval.held.kind != "call":
        raise ApprovalRefused("stale_state", "an access request releases no call")
    current = as_of(approval, now)
    if current.state is not ApprovalState.APPROVED:
        raise ApprovalRefused("stale_state", f"the approval is {current.state.value}")
    if not hmac.compare_digest(digest.encode("utf-8", "replace"), approval.action_digest.encode("ascii")):
        raise ApprovalRefused("stale_state", "the approval is for another call")
    return replace(_ended(current, ApprovalState.CONSUMED, now), used_by=call)


def withdraw(approval: Approval, who: Person, now: int) -> Approval:
    """The approval withdrawn by its requester. Errors: `ApprovalRefused` `not_found`, `denied`, `stale_state`."""
    if (who.tenant, who.workspace) != approval.log:
        raise ApprovalRefused("not_found", "no such approval")
    fields = approval.held.fields
    if who.issuer != approval.held.issuer or who.id not in {fields.subject, fields.on_behalf_of}:
        raise ApprovalRefused("denied", "only the requester may withdraw")
    current = as_of(approval, now)
    if current.state not in OPEN_STATES:
        raise ApprovalRefused("stale_state", f"the approval is {current.state.value}")
    return _ended(current, ApprovalState.WITHDRAWN, now)


def cancel(approval: Approval, who: Person, now: int) -> Approval:
    """A pending access request taken back by whoever opened it. Errors: `ApprovalRefused` `not_found` (also for a held
    call, and for everybody else), `stale_state`."""
    if not is_requester(approval, who) or approval.held.kind != "access_request":
        raise ApprovalRefused("not_found", "no such access request")
    current = as_of(approval, now)
    if current.state is not ApprovalState.PENDING:
        raise ApprovalRefused("stale_state", f"the access request is {current.state.value}")
    return _ended(current, ApprovalState.WITHDRAWN, now)


def is_requester(approval: Approval, who: Person) -> bool:
    """Whether this very caller, of this tenant, workspace and issuer, opened the approval."""
    asked = approval.held.fields.subject
    return (who.tenant, who.workspace) == approval.log and (who.issuer, who.id) == (approval.held.issuer, asked)


def _check_person(approval: Approval, voter: Person) -> None:
    if (
        voter.actors or voter.on_behalf_of is not None
    ):  # first: whoever acts for a person is no person to the token's reader
        detail = (
            "nobody votes for somebody else: this token acts on behalf of another; vote with the person's own token"
        )
        raise ApprovalRefused("denied", detail)
    if not voter.people:
        raise ApprovalRefused("denied", "only people vote, and this issuer's subjects are not people")
    fields = approval.held.fields
    excluded = {fields.subject, fields.on_behalf_of, *approval.held.actors}
    if voter.id in excluded:
        raise ApprovalRefused("denied", "the requester and whoever acts for the requester do not vote")


def _check_ballot(ballot: Ballot) -> None:
    if ballot.decision not in ("approve", "deny"):
        raise ApprovalRefused("malformed_request", "decision is approve or deny")
    if len(ballot.reason) > REASON_MAX_CHARACTERS:
        raise ApprovalRefused("malformed_request", f"a reason has at most {REASON_MAX_CHARACTERS} characters")


def _pending_step(approval: Approval) -> tuple[int, Step]:
    for index, step in enumerate(approval.steps):
        if step.state is StepState.PENDING:
            return index, step
    raise ApprovalRefused("stale_state", "no step is waiting for a vote")


def _with_step(approval: Approval, index: int, step: Step, now: int) -> Approval:
    steps = list(approval.steps)
    if any(vote.decision == "deny" for vote in step.votes):
        steps[index] = replace(step, state=StepState.DENIED)
        return _ended(replace(approval, steps=tuple(steps)), ApprovalState.DENIED, now)
    if len(step.votes) < step.quorum:
        steps[index] = step
        return replace(approval, steps=tuple(steps), version=approval.version + 1)
    steps[index] = replace(step, state=StepState.APPROVED)
    following = next((at for at in range(index + 1, len(steps)) if steps[at].state is StepState.WAITING), None)
    if following is not None:
        steps[following] = replace(steps[following], state=StepState.PENDING)
        return replace(approval, steps=tuple(steps), version=approval.version + 1)
    return replace(
        approval,
        steps=tuple(steps),
        state=ApprovalState.APPROVED,
        version=approval.version + 1,
        use_by=now + approval.held.use_within_seconds * 1000,
    )


def _ended(approval: Approval, state: ApprovalState, now: int) -> Approval:
    return replace(approval, state=state, version=approval.version + 1, ended=now)
