"""A call typed in words, as the question that the gate would put for it.

Guarantees: the question comes from the same steps as a real call's (action, schema, rendering, resource), so what is
simulated is what would be asked; tenant and workspace are never overridden. Leaves deciding, and who may ask for whom, to
whoever calls.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final, NamedTuple

import orjson

from bundles.canonical import JsonValue
from bundles.manifest import ConnectorManifest
from gateway.connectors.arguments import SchemaSet
from gateway.connectors.classify import ActionTable
from gateway.connectors.outbound import header_policy
from gateway.edge.headers import Prefer
from gateway.edge.identity import Subject
from gateway.edge.problem import refusal
from gateway.flow.describe import policy_input, subject_facts
from gateway.flow.prepare import prepare_api
from gateway.flow.values import ANY, ApiRequest, InstancePlan, Trace
from pdp.documents import encode_input

SUBJECT_MEMBERS: Final = frozenset({"id", "type", "environment", "roles", "acr", "amr", "auth_time", "on_behalf_of"})
NAME_MAX_CHARACTERS: Final = 256
NAMES_MAX_COUNT: Final = 64
_LISTS: Final = frozenset({"roles", "amr"})


class TypedCall(NamedTuple):
    """A call as somebody types it."""

    instance: str
    action: str
    arguments: Mapping[str, JsonValue]
    ticket: str | None = None
    run: str | None = None


def overridden(subject: Subject, given: Mapping[str, JsonValue]) -> Subject:
    """`subject` with the members that are given. Raises `arguments_invalid`.

    **Security**: whether the caller may ask for somebody else is the caller's to check first.
    """
    changes: dict[str, Any] = {}
    for name, value in given.items():
        if name not in SUBJECT_MEMBERS or not _fits(name, value):
            message = "text, or a list of texts for roles and amr; tenant and workspace are the caller's own"
            raise refusal("arguments_invalid", message, errors=[{"pointer": f"/subject/{name}", "message": message}])
        changes[name] = tuple(value) if isinstance(value, list) else value
    return replace(subject, **changes)


def _fits(name: str, value: JsonValue) -> bool:
    if name in _LISTS:
        return isinstance(value, list) and len(value) <= NAMES_MAX_COUNT and all(map(_is_name, value))
    if name == "auth_time":
        return isinstance(value, int) and not isinstance(value, bool) and value >= 0
    return _is_name(value)


def _is_name(value: JsonValue) -> bool:
    return isinstance(value, str) and 0 < len(value) <= NAME_MAX_CHARACTERS


def typed_question(
    plan: InstancePlan, subject: Subject, typed: TypedCall, *, call_id: str, now: float
) -> dict[str, JsonValue]:
    """The input document of a call that is not made. Raises `Refusal` as the call would be refused before policy."""
    connector = plan.manifest.connector
    name = typed.action if typed.action.startswith(f"{connector}.") else f"{connector}.{typed.action}"
    request = ApiRequest(
        call_id=call_id,
        plan=plan,
        subject=subject,
        action=name,
        arguments=typed.arguments,
        idempotency_key=None,
        ticket=typed.ticket,
        run=typed.run,
        stated_reason="",
        prefer=Prefer(None, False),
        received_unix=now,
    )
    call = prepare_api(request, Trace(call_id, connector, plan.name))
    document: dict[str, JsonValue] = orjson.loads(encode_input(policy_input(call, now=now)))
    return document


def is_about(document: Mapping[str, Any], subject: Subject) -> bool:
    """Whether a question's subject is exactly `subject`, fact for fact."""
    facts = subject_facts(subject)
    given = document.get("subject")
    if not isinstance(given, dict) or not isinstance(given.get("properties"), dict):
        return False
    own = {name: value for name, value in facts._asdict().items() if value is not None and name not in ("type", "id")}
    own = {name: list(value) if isinstance(value, tuple) else value for name, value in own.items()}
    return (given.get("type"), given.get("id")) == (facts.type, facts.id) and own == given["properties"]


def tenant_of(document: Mapping[str, Any]) -> tuple[object, object]:
    """The tenant and workspace a question claims for its subject."""
    subject = document.get("subject")
    facts = subject.get("properties") if isinstance(subject, dict) else None
    return (facts.get("tenant"), facts.get("workspace")) if isinstance(facts, dict) else (None, None)


def plan_of(manifest: ConnectorManifest, instance: str) -> InstancePlan:
    """A manifest as an instance that everybody may use and nobody can reach, for questions without a gate."""
    return InstancePlan(
        name=instance,
        manifest=manifest,
        table=ActionTable(manifest),
        schemas=SchemaSet(manifest),
        headers=header_policy(manifest),
        tenants=frozenset({ANY}),
        workspaces=frozenset({ANY}),
        environments=frozenset({ANY}),
        base_url="",
        wants_form=False,
        has_token_overrides=False,
    )
