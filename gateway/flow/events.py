"""What the world answered to a command of the flow."""

from __future__ import annotations

from collections.abc import Generator
from typing import Literal, TypeAlias, TypeVar

from gateway.approvals.model import Approval
from gateway.edge.headers import HeaderPairs
from gateway.edge.identity import Subject
from gateway.errors import GateMisuse
from gateway.flow.commands import Command
from gateway.flow.values import InstancePlan
from gateway.store.port import KeyClaim, StoredAnswer, SwitchRow
from pdp.decided import Decided
from pdp.value import Value


class BodyRead(Value, frozen=True):
    """The request body, whole."""

    body: bytes


class Identified(Value, frozen=True):
    """Who asks."""

    subject: Subject


class Moved(Value, frozen=True):
    """Another configuration is in force than the one that the call began under, with this plan for its instance, if any.

    What is sent from now on goes by the new one.
    """

    plan: InstancePlan | None


class SwitchesRead(Value, frozen=True):
    """The switches that are set. `stands`: the bundle that was named is in force and may decide."""

    switches: tuple[SwitchRow, ...]
    stands: bool = True
    moved: Moved | None = None


class ClaimRead(Value, frozen=True):
    """What is known of an idempotency key, if anything."""

    claim: KeyClaim | None


class AnswerLoaded(Value, frozen=True):
    """A stored answer, if it is still kept."""

    answer: StoredAnswer | None


class UsedApprovalLoaded(Value, frozen=True):
    """The approval that a call used up, if it used one."""

    approval: Approval | None


class PolicyAnswered(Value, frozen=True):
    """A decision."""

    decided: Decided


class ApprovalRead(Value, frozen=True):
    """An approval as it stands, when that was, and whether the caller is still there."""

    approval: Approval
    at_unix: float
    caller_connected: bool = True
    moved: Moved | None = None


class RecordAppended(Value, frozen=True):
    """A record is durable."""

    seq: int


class AnswerBegan(Value, frozen=True):
    """The upstream's status line and headers are here; hop-by-hop headers and cookies are already gone.

    `renewable`: the service refused a fetched credential, and another one will be fetched for the next attempt.
    """

    status: int
    headers: HeaderPairs
    length: int | None
    media_type: str
    renewable: bool = False


class DispatchFailed(Value, frozen=True):
    """No proper answer. `not_sent`: the service cannot have seen the call. Otherwise it may have acted."""

    kind: Literal["not_sent", "failed", "timeout"]
    code: str
    detail: str


class AnswerRead(Value, frozen=True):
    """The answer's body, or its first bytes when it is longer than asked for (`complete` is false).

    `leaked`: an injected secret stands in it.
    """

    body: bytes
    complete: bool
    leaked: bool


class AnswerRewritten(Value, frozen=True):
    """The answer as the caller may see it."""

    headers: HeaderPairs
    body: bytes


class AnswerRelayed(Value, frozen=True):
    """How much was passed on, its SHA-256 (hex), and why it was cut, if it was."""

    length: int
    sha256: str
    cut: str | None


class Done(Value, frozen=True):
    """Nothing to say."""


DONE = Done()

Event = (
    BodyRead
    | Identified
    | SwitchesRead
    | ClaimRead
    | AnswerLoaded
    | UsedApprovalLoaded
    | PolicyAnswered
    | ApprovalRead
    | RecordAppended
    | AnswerBegan
    | DispatchFailed
    | AnswerRead
    | AnswerRewritten
    | AnswerRelayed
    | Done
)

Result = TypeVar("Result")
Expected = TypeVar("Expected")

Flow: TypeAlias = Generator[Command, Event, Result]


def expect(event: Event, kind: type[Expected]) -> Expected:
    """`event` as the kind the command promises; a driver that answers otherwise is misused."""
    if not isinstance(event, kind):
        raise GateMisuse(f"the driver answered {type(event).__name__} where {kind.__name__} is due")
    return event
