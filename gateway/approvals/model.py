"""What an approval is: frozen values, no behaviour.

Guarantees: an approval holds everything that its later stages need, frozen at the moment the call was held: the exact
call, the chain as instantiated, both clocks, the bundle and the rules that held. Leaves to `digest` how it is bound to
the call, to `reduce` how it changes, to `render` how it looks outside, and to `service` where it lives.

All times are wall milliseconds of the store's clock.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Literal, Protocol

from gateway.errors import GateError
from gateway.ledger.record import LogId

REASON_MAX_CHARACTERS: Final = 2000
STEPS_MAX: Final = 1


class ApprovalState(StrEnum):
    """`pending → approved → consumed`, or one of the other ends. One way, never back."""

    PENDING = "pending"
    APPROVED = "approved"
    CONSUMED = "consumed"
    DENIED = "denied"
    EXPIRED = "expired"
    WITHDRAWN = "withdrawn"
    SUPERSEDED = "superseded"


OPEN_STATES: Final = frozenset({ApprovalState.PENDING, ApprovalState.APPROVED})


class StepState(StrEnum):
    """How far one step is."""

    WAITING = "waiting"
    PENDING = "pending"
    APPROVED = "approved"
    DENIED = "denied"
    SKIPPED = "skipped"


class ApprovalRefused(GateError):
    """A request about an approval is refused; `code` is one of ``docs/error-codes.md`` (`not_found`, `denied`, `vote_refused`,
    `stale_state`, `not_supported`, `throttled`, `malformed_request`). Give it to `gateway.edge.problem.refusal(code,
    detail)`."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail


class Person(Protocol):
    """What a vote needs to know of its voter; `gateway.edge.identity.Subject` is one."""

    @property
    def id(self) -> str: ...
    @property
    def issuer(self) -> str: ...
    @property
    def tenant(self) -> str: ...
    @property
    def workspace(self) -> str: ...
    @property
    def roles(self) -> tuple[str, ...]: ...
    @property
    def on_behalf_of(self) -> str | None: ...
    @property
    def actors(self) -> tuple[str, ...]: ...
    @property
    def people(self) -> bool: ...


VoteDecision = Literal["approve", "deny"]
HeldKind = Literal["call", "access_request"]
"""What waits: a call of ours, or a question of AuthZEN whose approval only lets it be asked again."""


@dataclass(frozen=True, slots=True)
class Ballot:
    """A vote as it comes in: the decision, a reason for the record, and the digest that the voter saw."""

    decision: VoteDecision
    reason: str
    action_digest: str


@dataclass(frozen=True, slots=True)
class Vote:
    """A vote that counted. People are keyed by (issuer, voter)."""

    voter: str
    issuer: str
    decision: VoteDecision
    reason: str
    at: int


@dataclass(frozen=True, slots=True)
class Step:
    """One step of the chain: any of `roles` may vote, `quorum` approvals pass it, one denial ends it."""

    id: str
    state: StepState
    roles: tuple[str, ...]
    quorum: int
    votes: tuple[Vote, ...] = ()
    skipped_because: str = ""


@dataclass(frozen=True, slots=True)
class Reason:
    """Why the call was held: stable code, rule, and a sentence."""

    code: str
    rule: str
    message: str


@dataclass(frozen=True, slots=True)
class CallFields:
    """The exact call that is bound by `action_digest`. JSON members are canonical text
    (`args_json`, `resource_json`, `headers_json`) so that the value is immutable and rendered from the same bytes.

    **Security**: `issuer` is that of the subject's token: two issuers may know two callers by one name (security rule 7).
    """

    tenant: str
    workspace: str
    environment: str
    issuer: str
    subject: str
    on_behalf_of: str | None
    instance: str
    action: str
    resource_json: str
    args_json: str
    method: str
    path: str
    query: str
    content_type: str | None
    headers_json: str
    body_sha256: str
    target: str
    idempotency_key: str | None


@dataclass(frozen=True, slots=True)
class HeldCall:
    """A call that a decision holds, as the flow hands it to `ApprovalService.open_or_attach`; or, by `kind`, an access
    request, whose fields name no request at all (`gateway.api.access_request_mapping`).

    `subject_json` is the subject as shown to approvers
    (`{"type","id","issuer","roles","on_behalf_of"}`); `actors` are all current and nested actors: none of them may
    vote. `chain_json` is the chain of the bundle as JSON text. `stated_reason` is `Tidegate-Reason`: the caller's own
    words, untrusted.
    """

    fields: CallFields
    call: str
    subject_json: str
    actors: tuple[str, ...]
    reasons: tuple[Reason, ...]
    chain_name: str
    chain_json: str
    decide_within_seconds: int
    use_within_seconds: int
    on_approval: str
    bundle_digest: str
    bundle_revision: str
    decision_id: str
    stated_reason: str = ""
    kind: HeldKind = "call"

    @property
    def issuer(self) -> str:
        """The issuer of the subject's token."""
        return self.fields.issuer


@dataclass(frozen=True, slots=True)
class Approval:
    """One held call and what people said about it."""

    id: str
    version: int
    state: ApprovalState
    action_digest: str
    salt: str
    attach_key: str
    held: HeldCall
    steps: tuple[Step, ...]
    chain_digest: str
    created: int
    decide_by: int
    use_by: int | None = None
    ended: int | None = None
    used_by: str = ""
    """The call that used it up; empty until then."""
    digest_version: int = 1
    """The form of its digest; what was stored without one has the first."""

    @property
    def log(self) -> LogId:
        """The (tenant, workspace) that owns it."""
        return (self.held.fields.tenant, self.held.fields.workspace)

    @property
    def requester(self) -> str:
        """Who asked, as one key: issuer and subject."""
        return f"{self.held.issuer}\n{self.held.fields.subject}"

    @property
    def deadline(self) -> int:
        """When the current open state ends by itself; 0 once it has ended."""
        if self.state is ApprovalState.PENDING:
            return self.decide_by
        if self.state is ApprovalState.APPROVED and self.use_by is not None:
            return self.use_by
        return 0


@dataclass(frozen=True, slots=True)
class ApprovalPage:
    """One page of a list: newest first, and the cursor of the next page or None."""

    items: tuple[Approval, ...]
    next: str | None
