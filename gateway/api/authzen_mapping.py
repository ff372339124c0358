"""AuthZEN's words and ours: requests of the Authorization API 1.0 become input documents, decisions become its answers.

Guarantees: what the gate knows for itself (tenant, workspace, environment, clocks, the signed facts of a known action,
the verified facts of the caller) always wins over what the request states; fields that nobody defined are ignored, as
the specification demands; whatever is missing or of another type is a `MalformedQuestion`. Leaves asking, recording and
HTTP to `gateway.api.authzen`.

**Security**: a decision is about exactly the call it names. So the arguments of a connector's action are checked like
those of a real call, the resource must be the one they name, and nobody can state an approval, a fact or a clock.
**Source**: OpenID AuthZEN Authorization API 1.0, sections on the information model, the two evaluation APIs and metadata.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

import orjson

from bundles.canonical import JsonValue
from gateway.edge.identity import Subject
from gateway.errors import GateError
from pdp.documents import (
    ActionFacts,
    Decision,
    Effect,
    PolicyInput,
    ResourceFacts,
    SubjectFacts,
    encode_input,
)

EVALUATIONS_MAX: Final = 100
TEXT_MAX_CHARACTERS: Final = 1024
CONNECTOR: Final = "authzen"
"""Whose policy speaks (`policies.authzen`) for an action that no connector of the bundle has."""
ARGUMENTS: Final = "arguments"
ACCESS_REQUESTS: Final = "urn:openid:authzen:capability:access-request"

Semantic = Literal["execute_all", "deny_on_first_deny", "permit_on_first_permit"]

_SEMANTICS: Final[dict[str, Semantic]] = {
    "execute_all": "execute_all",
    "deny_on_first_deny": "deny_on_first_deny",
    "permit_on_first_permit": "permit_on_first_permit",
}
_SCOPE: Final = ("tenant", "workspace", "environment")
_VERIFIED: Final = frozenset({*_SCOPE, "roles", "acr", "amr", "auth_time", "on_behalf_of", "autonomy"})
OWN_CONTEXT: Final = frozenset({"time", "clock", "call", "approval", "facts", "budget", "run", "request", "ticket"})
"""What policy is told by the gate alone; of these only `ticket` and the id of an approval are read where stated."""


class MalformedQuestion(GateError):
    """A request, or one evaluation of it, is not what the specification or the action's schema asks for."""

    def __init__(self, detail: str, *, status: int = 400) -> None:
        super().__init__(detail)
        self.detail = detail
        self.status = status


@dataclass(frozen=True, slots=True)
class Entity:
    """A subject or a resource as the request states it."""

    type: str
    id: str
    properties: Mapping[str, JsonValue]


@dataclass(frozen=True, slots=True)
class Question:
    """One evaluation: who does what to which, under which circumstances."""

    subject: Entity
    action: str
    action_properties: Mapping[str, JsonValue]
    resource: Entity
    context: Mapping[str, JsonValue]

    @property
    def arguments(self) -> dict[str, JsonValue]:
        """The arguments of the call in question; AuthZEN has no place of its own for them."""
        stated = self.action_properties.get(ARGUMENTS, {})
        if not isinstance(stated, dict):
            raise MalformedQuestion(f"action.properties.{ARGUMENTS} is no object")
        return stated


@dataclass(frozen=True, slots=True)
class Asked:
    """A whole request. `several` says that its answer is a list, in the order of `questions`."""

    questions: tuple[Question | MalformedQuestion, ...]
    semantic: Semantic = "execute_all"
    several: bool = False


@dataclass(frozen=True, slots=True)
class KnownAction:
    """What the signed manifest and the configuration say of a connector's action that is asked about."""

    facts: ActionFacts
    connector: str
    instance: str
    resource_type: str = ""
    resource_id: str = ""


def parse_evaluation(document: JsonValue) -> Asked:
    """The request of the Access Evaluation API. Raises `MalformedQuestion`."""
    return Asked((parse_question(document),))


def parse_question(document: JsonValue) -> Question:
    """The one question that a body holds. Raises `MalformedQuestion`."""
    return _question(_object(document, "the body"), {})


def parse_evaluations(document: JsonValue) -> Asked:
    """The request of the Access Evaluations API, defaults filled in. Raises `MalformedQuestion`.

    An evaluation that lacks something is refused alone, in its place; a fault outside of the list refuses all.
    """
    whole = _object(document, "the body")
    listed = whole.get("evaluations", [])
    if not isinstance(listed, list):
        raise MalformedQuestion("evaluations is no array")
    if len(listed) > EVALUATIONS_MAX:
        raise MalformedQuestion(f"at most {EVALUATIONS_MAX} evaluations are taken at once")
    semantic = _semantic(whole)
    if not listed:
        return Asked((_question(whole, {}),))
    _check_defaults(whole)
    return Asked(tuple(_in_place(item, number, whole) for number, item in enumerate(listed)), semantic, several=True)


def is_about_caller(question: Question, caller: Subject) -> bool:
    """Whether the caller asks what it may do itself."""
    return question.subject.id == caller.id and question.subject.type == caller.type


def input_document(
    question: Question,
    caller: Subject,
    known: KnownAction | None,
    *,
    now: float,
    evaluation_id: str,
    approval: Mapping[str, JsonValue] | None = None,
) -> dict[str, Any]:
    """The input document (version 1) of a question, with the facts of an approval that was found to apply to it.

    Raises `MalformedQuestion`, `InputRefused`.
    """
    _check_scope(question.subject, caller)
    own = is_about_caller(question, caller)
    asked = PolicyInput(
        subject=_subject_facts(question.subject, caller, own),
        action=_action_facts(question, known),
        resource=_resource_facts(question, known),
        args=question.arguments,
        time_unix=now,
        call=evaluation_id,
        ticket=_ticket(question.context),
        approval=approval,
    )
    document: dict[str, Any] = orjson.loads(encode_input(asked))
    stated = dict(question.subject.properties)
    if own:
        stated = {name: value for name, value in stated.items() if name not in _VERIFIED}
    action = {name: value for name, value in question.action_properties.items() if name != ARGUMENTS}
    context = {name: value for name, value in question.context.items() if name not in OWN_CONTEXT}
    document["subject"]["properties"] = {**stated, **document["subject"]["properties"]}
    document["action"]["properties"] = {**action, **document["action"]["properties"]}
    document["resource"]["properties"] = {**question.resource.properties, **document["resource"]["properties"]}
    document["context"] = {**context, **document["context"]}
    return document


def decision_answer(decision: Decision, evaluation_id: str) -> dict[str, JsonValue]:
    """The answer to one question: only ALLOW is `true`; what else the policy asks for stands in the context."""
    context: dict[str, JsonValue] = {
        "evaluation_id": evaluation_id,
        "effect": decision.effect.value,
        "reasons": [{"code": reason.code, "message": reason.message} for reason in decision.reasons],
    }
    if decision.effect is Effect.ALLOW:
        return {"decision": True, "context": context}
    context["reason"] = decision.reasons[0].code if decision.reasons else "denied"
    if decision.effect is Effect.REQUIRE_HITL and decision.approval is not None:
        context["reason"] = "approval_required"
        context["approval"] = {
            "chains": list(decision.approval.chains),
            "decide_within_seconds": decision.approval.decide_within_seconds,
            "use_within_seconds": decision.approval.use_within_seconds,
        }
    return {"decision": False, "context": context}


def refused_answer(code: str, detail: str, status: int) -> dict[str, JsonValue]:
    """The answer to a question that could not be put: closed, with the reason in its context."""
    return {"decision": False, "context": {"reason": code, "error": {"status": status, "message": detail}}}


def settles(semantic: Semantic, permitted: bool) -> bool:
    """Whether no further evaluation is wanted after this one."""
    return (semantic == "deny_on_first_deny" and not permitted) or (semantic == "permit_on_first_permit" and permitted)


def metadata(base_url: str) -> dict[str, JsonValue]:
    """The metadata document of the decision point at `base_url`; APIs that are not named are not offered."""
    return {
        "policy_decision_point": base_url,
        "access_evaluation_endpoint": f"{base_url}/access/v1/evaluation",
        "access_evaluations_endpoint": f"{base_url}/access/v1/evaluations",
        "access_request_endpoint": f"{base_url}/access/v1/requests",
        "capabilities": [ACCESS_REQUESTS],
    }


def _semantic(whole: Mapping[str, JsonValue]) -> Semantic:
    options = _object(whole.get("options", {}), "options")
    wanted = options.get("evaluations_semantic", "execute_all")
    semantic = _SEMANTICS.get(wanted) if isinstance(wanted, str) else None
    if semantic is None:
        raise MalformedQuestion(f"options.evaluations_semantic is none of {', '.join(_SEMANTICS)}")
    return semantic


def _check_defaults(whole: Mapping[str, JsonValue]) -> None:
    if "subject" in whole:
        _entity(whole, "subject")
    if "action" in whole:
        _action(whole)
    if "resource" in whole:
        _entity(whole, "resource")
    if "context" in whole:
        _object(whole["context"], "context")


def _in_place(item: JsonValue, number: int, defaults: Mapping[str, JsonValue]) -> Question | MalformedQuestion:
    if not isinstance(item, dict):
        raise MalformedQuestion(f"evaluations[{number}] is no object")
    try:
        return _question(item, defaults)
    except MalformedQuestion as fault:
        return fault


def _question(stated: Mapping[str, JsonValue], defaults: Mapping[str, JsonValue]) -> Question:
    """A member of `stated` replaces the whole default of its name."""
    names = ("subject", "action", "resource", "context")
    merged = {name: source[name] for source in (defaults, stated) for name in names if name in source}
    action, properties = _action(merged)
    return Question(
        _entity(merged, "subject"),
        action,
        properties,
        _entity(merged, "resource"),
        _object(merged.get("context", {}), "context"),
    )


def _entity(source: Mapping[str, JsonValue], name: str) -> Entity:
    stated = _object(_present(source, name, name), name)
    kind = _text(stated, "type", f"{name}.type")
    return Entity(kind, _text(stated, "id", f"{name}.id"), _properties(stated, name))


def _action(source: Mapping[str, JsonValue]) -> tuple[str, Mapping[str, JsonValue]]:
    stated = _object(_present(source, "action", "action"), "action")
    return _text(stated, "name", "action.name"), _properties(stated, "action")


def _properties(stated: Mapping[str, JsonValue], name: str) -> Mapping[str, JsonValue]:
    return _object(stated.get("properties", {}), f"{name}.properties")


def _present(source: Mapping[str, JsonValue], name: str, path: str) -> JsonValue:
    if name not in source:
        raise MalformedQuestion(f"{path} is missing")
    return source[name]


def _object(value: JsonValue, path: str) -> dict[str, JsonValue]:
    if not isinstance(value, dict):
        raise MalformedQuestion(f"{path} is no object")
    return value


def _text(source: Mapping[str, JsonValue], name: str, path: str) -> str:
    value = _present(source, name, path)
    if not isinstance(value, str) or not value or len(value) > TEXT_MAX_CHARACTERS:
        raise MalformedQuestion(f"{path} is no text of 1 to {TEXT_MAX_CHARACTERS} characters")
    return value


def _check_scope(subject: Entity, caller: Subject) -> None:
    """**Security**: nobody learns what another tenant's policy input would decide."""
    for name in _SCOPE:
        stated = subject.properties.get(name)
        if stated is not None and stated != getattr(caller, name):
            raise MalformedQuestion(f"subject.properties.{name} is not the caller's own", status=403)


def _subject_facts(subject: Entity, caller: Subject, own: bool) -> SubjectFacts:
    if own:
        return SubjectFacts(
            caller.type,
            caller.id,
            caller.tenant,
            caller.workspace,
            caller.environment,
            caller.roles,
            caller.acr,
            caller.amr,
            caller.auth_time,
            caller.on_behalf_of,
        )
    stated = subject.properties
    auth_time = stated.get("auth_time")
    if auth_time is not None and (isinstance(auth_time, bool) or not isinstance(auth_time, int)):
        raise MalformedQuestion("subject.properties.auth_time is no integer")
    return SubjectFacts(
        subject.type,
        subject.id,
        caller.tenant,
        caller.workspace,
        caller.environment,
        _texts(stated, "roles"),
        _optional_text(stated, "acr"),
        _texts(stated, "amr"),
        auth_time,
        _optional_text(stated, "on_behalf_of"),
    )


def _texts(stated: Mapping[str, JsonValue], name: str) -> tuple[str, ...]:
    values = stated.get(name, [])
    if not isinstance(values, list):
        raise MalformedQuestion(f"subject.properties.{name} is no array of texts")
    found = tuple(value for value in values if isinstance(value, str))
    if len(found) != len(values):
        raise MalformedQuestion(f"subject.properties.{name} is no array of texts")
    return found


def _optional_text(stated: Mapping[str, JsonValue], name: str) -> str | None:
    value = stated.get(name)
    if value is not None and not isinstance(value, str):
        raise MalformedQuestion(f"subject.properties.{name} is no text")
    return value


def _action_facts(question: Question, known: KnownAction | None) -> ActionFacts:
    """An action that nobody described is taken for the most dangerous kind."""
    if known is None:
        return ActionFacts(question.action, "write", "high", reversible=False, idempotent=False)
    return known.facts


def _resource_facts(question: Question, known: KnownAction | None) -> ResourceFacts:
    """The resource of a known action is what its arguments name, as in a real call; one stated beside it must agree."""
    stated = question.resource
    if known is None:
        known = KnownAction(_action_facts(question, None), CONNECTOR, CONNECTOR, stated.type, stated.id)
    for name, own in (("connector", known.connector), ("instance", known.instance)):
        if stated.properties.get(name, own) != own:
            raise MalformedQuestion(f"resource.properties.{name} is not {own}, which has this action")
    if known.resource_type and stated.type != known.resource_type:
        raise MalformedQuestion(f"resource.type is not {known.resource_type}, which this action touches")
    if known.resource_id and stated.id != known.resource_id:
        raise MalformedQuestion("resource.id is not the one that the arguments name")
    return ResourceFacts(known.resource_type, known.resource_id, known.connector, known.instance)


def _ticket(context: Mapping[str, JsonValue]) -> str | None:
    ticket = context.get("ticket")
    if ticket is None:
        return None
    if not isinstance(ticket, str) or not ticket or len(ticket) > TEXT_MAX_CHARACTERS:
        raise MalformedQuestion("context.ticket is no text")
    return ticket
