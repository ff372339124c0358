"""A decision without an action: what a question must look like, and how its answer is shown.

Guarantees: a simulated question has the members of contract version 1 and no others, so that a misspelt fact is refused
and not silently absent; what is shown is what a call with the same facts would have got. Leaves asking to whoever holds
a policy, and who may ask to the gateway.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from typing import TYPE_CHECKING, Any, Final

from pdp.errors import InputRefused
from pdp.facts import missing_facts
from pdp.input_document import INPUT_VERSION

if TYPE_CHECKING:
    from bundles.canonical import JsonValue
    from pdp.decided import Decided
    from pdp.vocabulary import Decision

_MEMBERS: Final = frozenset({"v", "subject", "action", "resource", "args", "context"})
_PARTS: Final[Mapping[str, tuple[str, ...]]] = {
    "subject": ("type", "id", "properties"),
    "action": ("name", "properties"),
    "resource": ("type", "id", "properties"),
}
_CONTEXT: Final = frozenset(
    {"time", "clock", "call", "ticket", "run", "approval", "facts", "budget", "request", "labels"}
)
_TEXTS: Final = frozenset({"type", "id", "name"})


def check_question(document: object) -> dict[str, JsonValue]:
    """The document as a question; raises ``InputRefused`` naming the first member that is wrong.

    Facts inside ``properties``, ``args`` and ``context`` may be missing: what a policy makes of that is the answer.
    """
    if not isinstance(document, dict):
        raise InputRefused("the input document is not an object")
    if document.get("v") != INPUT_VERSION or isinstance(document.get("v"), bool):
        raise InputRefused(f"v is not {INPUT_VERSION}, the version of the contract")
    _check_members(document, _MEMBERS, required=_MEMBERS - {"context"}, where="the input document")
    for part, members in _PARTS.items():
        value = document[part]
        if not isinstance(value, dict):
            raise InputRefused(f"{part} is not an object")
        _check_members(value, frozenset(members), required=frozenset(members), where=part)
        for name in members:
            wanted: type = str if name in _TEXTS else dict
            if not isinstance(value[name], wanted):
                raise InputRefused(f"{part}.{name} is not {'text' if wanted is str else 'an object'}")
    args, context = document["args"], document.get("context", {})
    if not isinstance(args, dict):
        raise InputRefused("args is not an object")
    if not isinstance(context, dict):
        raise InputRefused("context is not an object")
    _check_members(context, _CONTEXT, required=frozenset(), where="context")
    return document


def _check_members(
    value: Mapping[str, JsonValue], known: frozenset[str], *, required: frozenset[str], where: str
) -> None:
    unknown, absent = value.keys() - known, required - value.keys()
    if unknown:
        raise InputRefused(f"{where} has an unknown member {min(unknown)[:64]!r}")
    if absent:
        raise InputRefused(f"{where} lacks {min(absent)!r}")


def decision_document(decision: Decision, *, rules: bool = True) -> dict[str, JsonValue]:
    """A decision as ``docs/policy-input.md`` shows it: effect, reasons, obligations; without ``rules`` no reason names its rule."""
    reasons: list[JsonValue] = [
        {"code": reason.code, "message": reason.message, **({"rule": reason.rule} if rules else {})}
        for reason in decision.reasons
    ]
    return {"effect": decision.effect.value, "reasons": reasons, "obligations": obligations_of(decision)}


def obligations_of(decision: Decision) -> dict[str, JsonValue]:
    """Everything a decision asks for beyond its effect, by name; what it does not ask for is left out."""
    obligations: dict[str, Any] = {}
    for name, value in decision._asdict().items():
        if name not in ("effect", "reasons") and value:
            obligations[name] = _plain(value)
    return obligations


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        value = asdict(value)
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items() if item is not None}
    if isinstance(value, tuple | list | frozenset):
        return [_plain(item) for item in value]
    return value


def simulation_document(
    decided: Decided, document: Mapping[str, Any], rego: Mapping[str, bytes], *, rules: bool = True
) -> dict[str, JsonValue]:
    """One simulated answer: ``{decision, rules, engine, bundle, missing_facts, …}``.

    Without ``rules`` the names of rules and of facts stay out, for whoever may ask and not read policy.
    """
    bundle: dict[str, JsonValue] = {
        "revision": decided.bundle_revision,
        "digest": decided.bundle_digest,
        "sequence": decided.bundle_sequence,
    }
    held: list[JsonValue] = [{"rule": r.rule, "code": r.code} for r in decided.decision.reasons if r.rule]
    missing: list[JsonValue] = [*missing_facts(rego, document)]
    return {
        "decision": decision_document(decided.decision, rules=rules),
        "rules": held if rules else None,
        "engine": decided.engine,
        "bundle": bundle,
        "missing_facts": missing if rules else None,
        "input_digest": decided.input_digest,
    }
