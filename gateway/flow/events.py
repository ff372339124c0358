"""What the world answered to a command of the flow."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Literal, TypeAlias, TypeVar

from gateway.approvals.model import Approval
from gateway.edge.headers import HeaderPairs
from gateway.edge.identity import Subject
from gateway.errors import GateMisuse
from gateway.flow.commands import Command
from gateway.store.port import KeyClaim, StoredAnswer, SwitchRow
from pdp.decided import Decided


@dataclass(frozen=True, slots=True)
class BodyRead:
    """The request body, whole."""

    body: bytes


@dataclass(frozen=True, slots=True)
class Identified:
    """Who asks."""

    subject: Subject


@dataclass(frozen=True, slots=True)
class SwitchesRead:
    """The switches that are set."""

    switches: tuple[SwitchRow, ...]


@dataclass(frozen=True, slots=True)
class ClaimRead:
    """What is known of an idempotency key, if anything."""

    claim: KeyClaim | None


@dataclass(frozen=True, slots=True)
class AnswerLoaded:
    """A stored answer, if it is still kept."""

    answer: StoredAnswer | None


@dataclass(frozen=True, slots=True)
class PolicyAnswered:
    """A decision."""

    decided: Decided


@dataclass(frozen=True, slots=True)
class ApprovalRead:
    """An approval as it stands, when that was, and whether the caller is still there."""

    approval: Approval
    at_unix: float
    caller_connected: bool = True


@dataclass(frozen=True, slots=True)
class RecordAppended:
    """A record is durable."""

    seq: int


@dataclass(frozen=True, slots=True)
class AnswerBegan:
    """The upstream's status line and headers are here; hop-by-hop headers and cookies are already gone."""

    status: int
    headers: HeaderPairs
    length: int | None
    media_type: str


@dataclass(frozen=True, slots=True)
class DispatchFailed:
    """No proper answer. `not_sent`: the service cannot have seen the call. Otherwise it may have acted."""

    kind: Literal["not_sent", "failed", "timeout"]
    code: str
    detail: str


@dataclass(frozen=True, slots=True)
class AnswerRead:
    """The answer's body, or its first bytes when it is longer than asked for (`complete` is false).

    `leaked`: an injected secret stands in it.
    """

    body: bytes
    complete: bool
    leaked: bool


@dataclass(frozen=True, slots=True)
class AnswerRewritten:
    """The answer as the caller may see it."""

    headers: HeaderPairs
    body: bytes


@dataclass(frozen=True, slots=True)
class AnswerRelayed:
    """How much was passed on, its SHA-256 (hex), and why it was cut, if it was."""

    length: int
    sha256: str
    cut: str | None


@dataclass(frozen=True, slots=True)
class Done:
    """Nothing to say."""


DONE = Done()

Event = (
    BodyRead
    | Identified
    | SwitchesRead
    | ClaimRead
    | AnswerLoaded
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
