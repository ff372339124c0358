"""What the flow asks of the world, one value per request; `gateway.flow.driver` performs them.

Guarantees: commands are frozen and say everything that is needed. A command that cannot be performed makes the driver
throw the typed error into the flow; every other end is an event of `gateway.flow.events`.
"""

from __future__ import annotations

from typing import NamedTuple

from gateway.approvals.model import Approval, HeldCall
from gateway.edge.headers import HeaderPairs
from gateway.flow.values import GovernedCall, Outbound
from gateway.ledger.record import LogId, RecordDraft
from gateway.store.port import StoreEffect
from pdp.documents import PolicyInput


class ReadBody(NamedTuple):
    """Read the whole request body, at most `max_bytes`. → BodyRead"""

    max_bytes: int


class VerifyToken(NamedTuple):
    """Verify a token, fetching unknown keys once. → Identified"""

    token: str


class RedeemTicket(NamedTuple):
    """Use an upload ticket up. → Identified"""

    ticket: str
    instance: str
    action: str
    path: str


class ReadSwitches(NamedTuple):
    """The kill switches that are set for a tenant now. → SwitchesRead

    `decided_by`: the digest of the bundle that let the call so far; whether it still decides is then said as well.
    """

    tenant: str
    decided_by: str = ""


class LookUpClaim(NamedTuple):
    """What is known of an idempotency key. → ClaimRead"""

    log: LogId
    scope: str


class LoadAnswer(NamedTuple):
    """The stored answer of an earlier call. → AnswerLoaded"""

    log: LogId
    call_id: str


class AskPolicy(NamedTuple):
    """Ask the bundle in force. → PolicyAnswered"""

    policy_input: PolicyInput


class OpenOrAttach(NamedTuple):
    """Open an approval for a held call or attach to the open one of the same call. → ApprovalRead"""

    held: HeldCall


class AwaitApproval(NamedTuple):
    """Wait until an approval is no longer pending, at most `seconds`. → ApprovalRead"""

    log: LogId
    approval_id: str
    seconds: float


class AppendRecord(NamedTuple):
    """Make a record and its effects durable. → RecordAppended

    `after_side_effect`: it says how something ended that has already begun, so it is never given up: if it cannot be made
    durable now, the flow hears so and the driver goes on trying.
    """

    draft: RecordDraft
    effects: tuple[StoreEffect, ...] = ()
    after_side_effect: bool = False


class AppendIntent(NamedTuple):
    """Make an intent durable, using up the approval it stands on. → RecordAppended"""

    draft: RecordDraft
    effects: tuple[StoreEffect, ...]
    approval: Approval | None
    action_digest: str


class Dispatch(NamedTuple):
    """Send the call to its instance. → AnswerBegan | DispatchFailed"""

    call: GovernedCall
    outbound: Outbound


class DropAnswer(NamedTuple):
    """Discard the answer that has begun, and its connection. → Done"""


class ReadAnswer(NamedTuple):
    """Read the answer that has begun, at most `max_bytes`. → AnswerRead | DispatchFailed"""

    max_bytes: int


class RewriteAnswer(NamedTuple):
    """Put the gate's addresses (and upload tickets) where the answer names the upstream. → AnswerRewritten"""

    call: GovernedCall
    headers: HeaderPairs
    body: bytes


class BeginStream(NamedTuple):
    """Send status line and headers to the caller. → Done"""

    status: int
    headers: HeaderPairs


class RelayAnswer(NamedTuple):
    """Pass the rest of the answer on, after what was read of it, without its terminator. → AnswerRelayed"""

    prefix: bytes
    max_bytes: int


class EndStream(NamedTuple):
    """End the caller's answer: properly, or cut without its terminator. → Done"""

    complete: bool


class Pause(NamedTuple):
    """Wait before a retry. → Done"""

    seconds: float


Command = (
    ReadBody
    | VerifyToken
    | RedeemTicket
    | ReadSwitches
    | LookUpClaim
    | LoadAnswer
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
