"""What the flow asks of the world, one value per request; `gateway.flow.driver` performs them.

Guarantees: commands are frozen and say everything that is needed. A command that cannot be performed makes the driver
throw the typed error into the flow; every other end is an event of `gateway.flow.events`.
"""

from __future__ import annotations

from gateway.approvals.model import Approval, HeldCall
from gateway.edge.headers import HeaderPairs
from gateway.flow.values import GovernedCall, InstancePlan, Outbound
from gateway.ledger.record import LogId, RecordDraft
from gateway.store.port import StoreEffect
from pdp.documents import PolicyInput
from pdp.value import Value


class ReadBody(Value, frozen=True):
    """Read the whole request body, at most `max_bytes`. → BodyRead"""

    max_bytes: int


class VerifyToken(Value, frozen=True):
    """Verify a token, fetching unknown keys once. → Identified"""

    token: str


class RedeemTicket(Value, frozen=True):
    """Use an upload ticket up. → Identified"""

    ticket: str
    instance: str
    action: str
    path: str


class ReadSwitches(Value, frozen=True):
    """The kill switches that are set for a tenant now. → SwitchesRead

    `decided_by`: the digest of the bundle that let the call so far; whether it still decides is then said as well.
    `plan`: what the call was prepared by; if that is no longer in force, it is said what is.
    """

    tenant: str
    decided_by: str = ""
    plan: InstancePlan | None = None


class LookUpClaim(Value, frozen=True):
    """What is known of an idempotency key. → ClaimRead"""

    log: LogId
    scope: str


class LoadAnswer(Value, frozen=True):
    """The stored answer of an earlier call. → AnswerLoaded"""

    log: LogId
    call_id: str


class LoadUsedApproval(Value, frozen=True):
    """The approval that an earlier call used up. → UsedApprovalLoaded"""

    log: LogId
    call_id: str


class AskPolicy(Value, frozen=True):
    """Ask the bundle in force. → PolicyAnswered"""

    policy_input: PolicyInput


class OpenOrAttach(Value, frozen=True):
    """Open an approval for a held call or attach to the open one of the same call. → ApprovalRead"""

    held: HeldCall


class AwaitApproval(Value, frozen=True):
    """Wait until an approval is no longer pending, at most `seconds`. → ApprovalRead

    `plan`: as in `ReadSwitches`.
    """

    log: LogId
    approval_id: str
    seconds: float
    plan: InstancePlan | None = None


class AppendRecord(Value, frozen=True):
    """Make a record and its effects durable. → RecordAppended

    `after_side_effect`: it says how something ended that has already begun, so it is never given up: if it cannot be made
    durable now, the flow hears so and the driver goes on trying.
    """

    draft: RecordDraft
    effects: tuple[StoreEffect, ...] = ()
    after_side_effect: bool = False


class AppendIntent(Value, frozen=True):
    """Make an intent durable, using up the approval it stands on. → RecordAppended"""

    draft: RecordDraft
    effects: tuple[StoreEffect, ...]
    approval: Approval | None
    action_digest: str


class Dispatch(Value, frozen=True):
    """Send the call to its instance. → AnswerBegan | DispatchFailed"""

    call: GovernedCall
    outbound: Outbound


class DropAnswer(Value, frozen=True):
    """Discard the answer that has begun, and its connection. → Done"""


class ReadAnswer(Value, frozen=True):
    """Read the answer that has begun, at most `max_bytes`. → AnswerRead | DispatchFailed"""

    max_bytes: int


class RewriteAnswer(Value, frozen=True):
    """Put the gate's addresses (and upload tickets) where the answer names the upstream. → AnswerRewritten"""

    call: GovernedCall
    headers: HeaderPairs
    body: bytes


class BeginStream(Value, frozen=True):
    """Send status line and headers to the caller. → Done"""

    status: int
    headers: HeaderPairs


class RelayAnswer(Value, frozen=True):
    """Pass the rest of the answer on, after what was read of it, without its terminator. → AnswerRelayed"""

    prefix: bytes
    max_bytes: int


class EndStream(Value, frozen=True):
    """End the caller's answer: properly, or cut without its terminator. → Done"""

    complete: bool


class Pause(Value, frozen=True):
    """Wait before a retry. → Done"""

    seconds: float


Command = (
    ReadBody
    | VerifyToken
    | RedeemTicket
    | ReadSwitches
    | LookUpClaim
    | LoadAnswer
    | LoadUsedApproval
    | AskPolicy
    | OpenOrAttach
    | AwaitApproval
    | AppendRecord
    | AppendIntent
    | Dispatch
    | DropAnswer
    | ReadAnswer
    | RewriteAnswer
    | BeginStream
    | RelayAnswer
    | EndStream
    | Pause
)
