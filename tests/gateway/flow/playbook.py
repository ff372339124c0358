"""A playbook drives a flow without a socket: what it must ask for, and what the world answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bundles.manifest import ConnectorManifest, load_manifest
from gateway.approvals.digest import action_digest, chain_digest
from gateway.approvals.model import Approval, ApprovalState, HeldCall, Step, StepState
from gateway.connectors.arguments import SchemaSet
from gateway.connectors.classify import ActionTable
from gateway.connectors.outbound import header_policy
from gateway.edge.headers import Prefer, RequestHead, prefer
from gateway.edge.identity import Subject
from gateway.edge.url import canonical_path
from gateway.errors import Refusal
from gateway.flow import commands as c
from gateway.flow import events as e
from gateway.flow.values import Finished, FlowContext, FlowLimits, InstancePlan, ProxyRequest, Trace
from pdp.decided import Decided
from pdp.documents import ApprovalObligation, Decision, Effect, Reason

NOW = 1_700_000_000.0
CHAINS: dict[str, Any] = {"one": {"steps": [{"id": "first", "role": "approver", "quorum": 1}]}}
KEY = b"k" * 32

MANIFEST: dict[str, Any] = {
    "connector": "desk",
    "version": "1.0.0",
    "base_path": "/api",
    "caller_token": ["bearer"],
    "credential_places": ["bearer"],
    "auth": {"kind": "none"},
    "hold_budget_seconds": 7,
    "retry": {"max_attempts": 3, "base_delay_ms": 10},
    "actions": [
        {"name": "item.list", "match": {"method": "GET", "path": "/items"}, "mode": "read", "idempotent": True},
        {
            "name": "item.update",
            "match": {"method": "PATCH", "path": "/items/{id}"},
            "mode": "write",
            "resource": {"type": "item", "id": "{id}"},
            "arguments": {
                "body": "json",
                "schema": {
                    "type": "object",
                    "properties": {"id": {"type": "string"}, "note": {"type": "string"}},
                    "required": ["note"],
                },
            },
        },
        {
            "name": "item.put",
            "match": {"method": "PUT", "path": "/items/{id}"},
            "mode": "write",
            "idempotent": True,
            "arguments": {"body": "json", "schema": {"type": "object", "properties": {"note": {"type": "string"}}}},
        },
        {
            "name": "item.watch",
            "match": {"method": "GET", "path": "/watch"},
            "mode": "read",
            "idempotent": True,
            "stream_response": True,
        },
        {"name": "file.send", "match": {"method": "POST", "path": "/files"}, "mode": "write"},
    ],
}


def manifest(changes: Mapping[str, Any] | None = None) -> ConnectorManifest:
    """The playbook's connector."""
    return load_manifest({**MANIFEST, **(changes or {})})


def plan(changes: Mapping[str, Any] | None = None, *, tenants: tuple[str, ...] = ("*",)) -> InstancePlan:
    """One instance of it."""
    loaded = manifest(changes)
    return InstancePlan(
        name="desk",
        manifest=loaded,
        table=ActionTable(loaded),
        schemas=SchemaSet(loaded),
        headers=header_policy(loaded),
        tenants=frozenset(tenants),
        workspaces=frozenset({"*"}),
        environments=frozenset({"*"}),
        base_url="http://desk.example",
        wants_form=False,
        has_token_overrides=False,
    )


SUBJECT = Subject(
    id="bot",
    type="agent",
    issuer="urn:test",
    tenant="acme",
    workspace="ops",
    environment="prod",
    roles=("triage",),
    acr=None,
    amr=(),
    auth_time=None,
    on_behalf_of=None,
    actors=(),
    people=False,
    expires_at=int(NOW) + 600,
)


def request(
    method: str,
    target: str,
    *,
    headers: tuple[tuple[str, str], ...] = (),
    has_body: bool = False,
    on: InstancePlan | None = None,
) -> ProxyRequest:
    """A request below the instance; `target` is the path after ``/c/desk``."""
    sent = (("authorization", "Bearer t"), *headers)
    if has_body:
        sent = (*sent, ("content-type", "application/json"))
    canonical = canonical_path(target)
    head = RequestHead(method, canonical, sent)
    preferred: Prefer = prefer(sent)
    return ProxyRequest("call-1", on or plan(), head, canonical.path, canonical.segments, preferred, NOW, has_body)


def context(**limits: int) -> FlowContext:
    """What the flow may look up."""
    return FlowContext(FlowLimits(**{"hold_max_seconds": 600, **limits}), lambda tenant: KEY, lambda: CHAINS)


def decided(effect: Effect = Effect.ALLOW, *, chains: tuple[str, ...] = ("one",)) -> Decided:
    """A decision of the bundle."""
    approval = ApprovalObligation(chains) if effect is Effect.REQUIRE_HITL else None
    reasons = (Reason("because", "policies.desk.rule", "words"),)
    return Decided(Decision(effect, reasons, approval), "rev", "sha256:b", 3, "wasm", "dec-1", "sha256:i", 0.0001)


def approval(held: HeldCall, state: ApprovalState = ApprovalState.PENDING) -> Approval:
    """An approval as the service would have made it for `held`."""
    salt = "00" * 16
    step = Step("first", StepState.PENDING, ("approver",), 1)
    return Approval(
        id="app-1",
        version=1,
        state=state,
        action_digest=action_digest(held.fields, salt),
        salt=salt,
        attach_key="a",
        held=held,
        steps=(step,),
        chain_digest=chain_digest(held.chain_name, held.chain_json),
        created=int(NOW * 1000),
        decide_by=int(NOW * 1000) + 1000,
    )


IDENTIFIED = e.Identified(SUBJECT)
NO_SWITCH = e.SwitchesRead(())
RECORDED = e.RecordAppended(1)
BEGAN = e.AnswerBegan(200, (("content-type", "application/json"),), 2, "application/json")
READ = e.AnswerRead(b"{}", complete=True, leaked=False)
REWRITTEN = e.AnswerRewritten((("content-type", "application/json"),), b"{}")

Answer = e.Event | Exception


class Played:
    """How a flow went: its commands in order, and its end."""

    def __init__(self, trace: Trace) -> None:
        self.trace = trace
        self.commands: list[c.Command] = []
        self.finished: Finished | None = None
        self.refused: Refusal | None = None

    @property
    def names(self) -> list[str]:
        """The names of the commands; records with their kind."""
        return [
            f"{type(command).__name__}:{command.draft.kind}"
            if isinstance(command, c.AppendRecord | c.AppendIntent)
            else type(command).__name__
            for command in self.commands
        ]

    def all_of(self, kind: type[Any]) -> list[Any]:
        """Every command of one kind."""
        return [command for command in self.commands if isinstance(command, kind)]


def play(flow: e.Flow[Finished], trace: Trace, answers: list[Answer]) -> Played:
    """Drive `flow` with `answers` in order. Fails when the flow asks for more, or for less, than there is."""
    played = Played(trace)
    left = list(answers)
    event: e.Event | None = None
    error: Exception | None = None
    while True:
        try:
            command = flow.send(event) if error is None else flow.throw(error)  # type: ignore[arg-type]
        except StopIteration as stop:
            played.finished = stop.value
            break
        except Refusal as refused:
            played.refused = refused
            break
        played.commands.append(command)
        if not left:
            raise AssertionError(f"the flow asks for {command} beyond the script")
        answer = left.pop(0)
        event, error = (None, answer) if isinstance(answer, Exception) else (answer, None)
    if left:
        raise AssertionError(f"the flow never asked for {left}; it asked {played.names}")
    return played
