"""What the flow of a call works on: frozen values, no behaviour beyond look-up.

Guarantees: a `GovernedCall` holds everything that is decided, recorded, bound by an approval and sent. Leaves making one
to `gateway.flow.prepare`, carrying it through to `gateway.flow.call`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from bundles.canonical import JsonValue
from bundles.manifest import Action, ConnectorManifest
from gateway.connectors.arguments import SchemaSet
from gateway.connectors.classify import ActionTable
from gateway.connectors.outbound import HeaderPolicy
from gateway.edge.headers import HeaderPairs, Prefer, RequestHead
from gateway.edge.identity import Subject
from gateway.ledger.record import LogId
from pdp.decided import Decided
from pdp.value import Value

Channel = Literal["proxy", "api"]


@dataclass(frozen=True, slots=True)
class FlowLimits:
    """The limits that the flow itself keeps."""

    hold_max_seconds: int
    body_max_bytes: int = 1 << 20
    response_buffer_max_bytes: int = 8 << 20
    stored_answer_max_bytes: int = 1 << 20
    stored_answer_keep_seconds: int = 86_400


@dataclass(frozen=True, slots=True)
class InstancePlan:
    """One configured instance with its compiled manifest; ANY in a set of names admits every name."""

    name: str
    manifest: ConnectorManifest
    table: ActionTable
    schemas: SchemaSet
    headers: HeaderPolicy
    tenants: frozenset[str]
    workspaces: frozenset[str]
    environments: frozenset[str]
    base_url: str
    wants_form: bool
    has_token_overrides: bool

    def admits(self, subject: Subject) -> bool:
        """Whether this subject's tenant, workspace and environment may use the instance (security rule 9)."""
        return (
            _within(subject.tenant, self.tenants)
            and _within(subject.workspace, self.workspaces)
            and _within(subject.environment, self.environments)
        )


ANY = "*"


def _within(name: str, names: frozenset[str]) -> bool:
    return ANY in names or name in names


class ProxyRequest(Value, frozen=True):
    """A request on ``/c/{instance}/…``: head, and the path below the instance as it came and decoded."""

    call_id: str
    plan: InstancePlan
    head: RequestHead
    path: str
    segments: tuple[str, ...]
    prefer: Prefer
    received_unix: float
    has_body: bool


class ApiRequest(Value, frozen=True):
    """A governed call in our own words (``POST /v1/calls``), its caller already identified."""

    call_id: str
    plan: InstancePlan
    subject: Subject
    action: str
    arguments: Mapping[str, JsonValue]
    idempotency_key: str | None
    ticket: str | None
    run: str | None
    stated_reason: str
    prefer: Prefer
    received_unix: float


class Outbound(Value, frozen=True):
    """What is sent: path and query as octets, headers by the manifest's allow-list, credentials not yet injected.

    `body` is None for a streamed body, which the driver passes on unread; then `streamed` is true.
    """

    method: str
    path: str
    raw_query: str
    headers: HeaderPairs
    body: bytes | None
    streamed: bool = False

    @property
    def reference(self) -> str:
        """Path and query as they stand in the request line."""
        return f"{self.path}?{self.raw_query}" if self.raw_query else self.path


class GovernedCall(Value, frozen=True):
    """A call that is identified, classified and whole: what policy sees, what is recorded, what is sent."""

    call_id: str
    plan: InstancePlan
    subject: Subject
    action: Action
    args: Mapping[str, JsonValue]
    resource_type: str
    resource_id: str
    outbound: Outbound
    content_type: str | None
    idempotency_key: str | None
    ticket: str | None
    run: str | None
    stated_reason: str
    prefer: Prefer
    received_unix: float
    channel: Channel
    query: tuple[tuple[str, str], ...]

    @property
    def log(self) -> LogId:
        """The ledger this call is recorded in."""
        return (self.subject.tenant, self.subject.workspace)


class FlowContext(Value, frozen=True):
    """What the flow may look up in memory: limits, the HMAC key of a tenant, the chains of the bundle in force."""

    limits: FlowLimits
    tenant_key: Callable[[str], bytes]
    chains: Callable[[], dict[str, JsonValue]]


@dataclass(slots=True)
class Trace:
    """What is known of a call so far, for its log line, its metrics and the record of a refusal.

    The flow writes it, the driver reads it. `settled` says that a record of how the call ended exists, `sent` that an
    upstream may have seen the call, `streamed` that a record may say its answer began. `issued_by` is the call whose answer
    carried the upload ticket that was shown, `released_unix` when a call that was held went on. `fault` is what is wrong
    inside the gate: for the log, never for the caller.
    """

    call_id: str
    connector: str
    instance: str
    subject: Subject | None = None
    action: str = ""
    mode: str = ""
    decided: Decided | None = None
    approval_id: str | None = None
    retries: int = 0
    sent: bool = False
    intended: bool = False
    settled: bool = False
    streamed: bool = False
    issued_by: str = ""
    released_unix: float = 0.0
    fault: str = ""

    @property
    def effect(self) -> str:
        """The decision's effect, or empty when none was made."""
        return str(self.decided.decision.effect) if self.decided is not None else ""


class Finished(Value, frozen=True):
    """How a call ended for its caller. `streamed` answers are already sent; then `body` is empty."""

    status: int
    headers: HeaderPairs
    body: bytes
    code: str = ""
    effect: str = ""
    streamed: bool = False
    state: str = "done"
