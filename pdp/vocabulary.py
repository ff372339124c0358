"""The words of a decision: facts that go in, effects, reasons and obligations that come out.

Guarantees that a value of these types is complete and cannot change. Checks nothing: what reaches an engine is checked
in ``pdp.input_document``, what an engine answers in ``pdp.decision_document``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from pdp.value import Value

if TYPE_CHECKING:
    from bundles.canonical import JsonValue


class Effect(StrEnum):
    """What a decision does to the call, strongest first."""

    DENY = "DENY"
    REQUIRE_STEP_UP = "REQUIRE_STEP_UP"
    REQUIRE_HITL = "REQUIRE_HITL"
    THROTTLE = "THROTTLE"
    ROUTE = "ROUTE"
    ALLOW = "ALLOW"


class Reason(Value, frozen=True, order=True):
    """Why: a stable code, the rule that held, and words for people."""

    code: str
    rule: str
    message: str


@dataclass(frozen=True, slots=True)
class ApprovalObligation:
    """Who must approve, how long there is to decide and to use it, and what happens on approval."""

    chains: tuple[str, ...]
    decide_within_seconds: int = 86_400
    use_within_seconds: int = 900
    on_approval: str = "grant"


class Decision(Value, frozen=True):
    """An accepted decision: an effect this version enforces, sorted reasons, and its obligations."""

    effect: Effect
    reasons: tuple[Reason, ...] = ()
    approval: ApprovalObligation | None = None
    cache_seconds: int = 0


class SubjectFacts(Value, frozen=True):
    """Who asks, as the verified token says."""

    type: str
    id: str
    tenant: str
    workspace: str
    environment: str
    roles: tuple[str, ...] = ()
    acr: str | None = None
    amr: tuple[str, ...] = ()
    auth_time: int | None = None
    on_behalf_of: str | None = None


class ActionFacts(Value, frozen=True):
    """What is asked for, as the signed connector manifest says."""

    name: str
    mode: str
    risk: str = "medium"
    reversible: bool = False
    idempotent: bool = False


class ResourceFacts(Value, frozen=True):
    """What it is done to, and where."""

    type: str
    id: str
    connector: str
    instance: str
    placement: str | None = None


class PolicyInput(Value, frozen=True):
    """One question. ``time_unix`` is in seconds (fractions are kept to milliseconds), ``zone`` an IANA name.

    Facts that are absent (``None``) are left out of the document, so that ``not input.context.ticket`` holds in Rego.
    """

    subject: SubjectFacts
    action: ActionFacts
    resource: ResourceFacts
    args: Mapping[str, JsonValue]
    time_unix: float
    call: str
    ticket: str | None = None
    run: Mapping[str, JsonValue] | None = None
    approval: Mapping[str, JsonValue] | None = None
    request: Mapping[str, JsonValue] | None = None
    zone: str = "UTC"
