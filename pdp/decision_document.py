"""The decision document, read as a closed world.

Guarantees that a ``Decision`` exists only for a document of exactly the documented shape whose effect and obligations
this version enforces; whatever else a policy answers is refused and the call denied. Reasons come out sorted, because
sets leave the embedded engine unordered and both engines must give the same record.

``decision_malformed``: unknown effect, unknown obligation, wrong type, an obligation missing that the effect needs, one
present that the effect contradicts, an unknown chain. ``not_supported``: well-formed, but not enforced yet.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

import orjson

from bundles.canonical import StrictJsonError, canonical_json, parse_strict
from pdp.errors import DecisionRefused
from pdp.vocabulary import ApprovalObligation, Decision, Effect, Reason

if TYPE_CHECKING:
    from bundles.canonical import JsonValue

DECISION_MAX_BYTES: Final = 1 << 20
DECISION_DEPTH_MAX: Final = 16
REASONS_MAX_COUNT: Final = 1_000
ENTRIES_MAX_COUNT: Final = 1_000
TEXT_MAX_CHARACTERS: Final = 8_192
DURATION_MAX_SECONDS: Final = 366 * 86_400

_DOCUMENT_KEYS: Final = frozenset(("effect", "reasons", "obligations"))
_REASON_KEYS: Final = frozenset(("code", "rule", "message"))
_EFFECTS: Final = {effect.value: effect for effect in Effect}
_ENFORCED: Final = frozenset((Effect.ALLOW, Effect.DENY, Effect.REQUIRE_HITL))
_NEEDED: Final = {
    Effect.REQUIRE_HITL: "approval",
    Effect.REQUIRE_STEP_UP: "step_up",
    Effect.THROTTLE: "throttle",
    Effect.ROUTE: "route",
}
_STRENGTH: Final = {effect: rank for rank, effect in enumerate(Effect)}
_AMOUNT: Final = re.compile(r"(?:0|[1-9][0-9]{0,17})(?:\.[0-9]{1,18})?")
_CURRENCY: Final = re.compile(r"[A-Z]{3}")


def parse_decision(raw: bytes, *, chains: Mapping[str, JsonValue], cacheable: bool = False) -> Decision:
    """Accept a decision document's bytes, or raise ``DecisionRefused``.

    ``chains`` are the approval chains of the bundle that decided; ``cacheable`` is what its manifest says.
    A denial keeps its own reasons even beside obligations that are not enforced yet: it needs none of them.
    """
    document = _document(raw)
    effect = _EFFECTS.get(_text(document["effect"], "effect"))
    if effect is None:
        raise _malformed("unknown effect")
    reasons = _reasons(document["reasons"])
    held = _obligations(document["obligations"])
    if held or effect in _NEEDED:
        _check_consistent(effect, held, chains, cacheable)
    if effect is Effect.DENY:
        return Decision(effect, reasons)
    if effect not in _ENFORCED:
        raise DecisionRefused("not_supported", f"the effect {effect.value} is not enforced by this version")
    for name in held:
        if name not in ("approval", "cache_seconds"):
            raise DecisionRefused("not_supported", f"the obligation {name} is not enforced by this version")
    approval, cache_seconds = held.get("approval"), held.get("cache_seconds", 0)
    if approval is not None:
        _check_enforceable(approval, chains)
    return Decision(effect, reasons, approval, cache_seconds)


def comparable(document: JsonValue) -> bytes:
    """One text for every order in which an engine may give the same decision: arrays that stand for sets are sorted.

    ``fallback`` is the one array whose order means something.
    """
    return canonical_json(_ordered(document, ""))


def _ordered(value: JsonValue, name: str) -> JsonValue:
    if isinstance(value, dict):
        return {key: _ordered(item, key) for key, item in value.items()}
    if isinstance(value, list):
        items = [_ordered(item, "") for item in value]
        return items if name == "fallback" else sorted(items, key=canonical_json)
    return value


def _malformed(detail: str) -> DecisionRefused:
    return DecisionRefused("decision_malformed", detail)


def _document(raw: bytes) -> dict[str, Any]:
    if len(raw) > DECISION_MAX_BYTES:
        raise _malformed(f"the decision has {len(raw)} bytes, {DECISION_MAX_BYTES} are allowed")
    try:
        document = orjson.loads(raw)
        # Bytes that orjson would write itself hold no key twice; anything else is read by the strict parser.
        if orjson.dumps(document) != raw:
            document = parse_strict(raw, max_bytes=DECISION_MAX_BYTES, max_depth=DECISION_DEPTH_MAX)
    except (ValueError, TypeError) as refused:
        code = refused.code if isinstance(refused, StrictJsonError) else "not_json"
        raise _malformed(f"the decision is not strict JSON: {code}") from refused
    if type(document) is not dict or document.keys() != _DOCUMENT_KEYS:
        raise _malformed("a decision has exactly effect, reasons and obligations")
    return document


def _text(value: object, what: str, *, empty: bool = False) -> str:
    if type(value) is not str:
        raise _malformed(f"{what} is not a string")
    if len(value) > TEXT_MAX_CHARACTERS or not (value or empty):
        raise _malformed(f"{what} is empty or longer than {TEXT_MAX_CHARACTERS} characters")
    return value


def _count(value: object, what: str, *, least: int = 1, most: int = DURATION_MAX_SECONDS) -> int:
    if type(value) is not int or not least <= value <= most:
        raise _malformed(f"{what} is not an integer from {least} to {most}")
    return value


def _list(value: object, what: str) -> list[Any]:
    if type(value) is not list or len(value) > ENTRIES_MAX_COUNT:
        raise _malformed(f"{what} is not a list of at most {ENTRIES_MAX_COUNT}")
    return value


def _texts(value: object, what: str) -> list[str]:
    texts = [_text(entry, what) for entry in _list(value, what)]
    if len(set(texts)) != len(texts):
        raise _malformed(f"{what} names something twice")
    return texts


def _members(
    value: object, what: str, needed: frozenset[str], optional: frozenset[str] = frozenset()
) -> dict[str, Any]:
    if type(value) is not dict or not needed <= value.keys() <= needed | optional:
        raise _malformed(f"{what} does not have exactly the documented members")
    return value


def _reasons(value: object) -> tuple[Reason, ...]:
    if type(value) is not list or len(value) > REASONS_MAX_COUNT:
        raise _malformed(f"reasons is not a list of at most {REASONS_MAX_COUNT}")
    reasons = []
    for entry in value:
        if type(entry) is not dict or entry.keys() != _REASON_KEYS:
            raise _malformed("a reason has exactly code, rule and message")
        reasons.append(
            Reason(
                _text(entry["code"], "a reason's code"),
                _text(entry["rule"], "a reason's rule"),
                _text(entry["message"], "a reason's message", empty=True),
            )
        )
    return tuple(sorted(reasons)) if len(reasons) > 1 else tuple(reasons)


def _obligations(value: object) -> dict[str, Any]:
    """The obligations that ask for something; each is checked in full, whether or not it is enforced."""
    if type(value) is not dict:
        raise _malformed("obligations is not an object")
    held: dict[str, Any] = {}
    for name, entry in value.items():
        check = _OBLIGATIONS.get(name)
        if check is None:
            raise _malformed(f"unknown obligation {name[:64]!r}")
        checked = check(entry)
        if checked:
            held[name] = checked
    return held


def _approval(value: object) -> ApprovalObligation:
    members = _members(
        value,
        "approval",
        frozenset(("chains",)),
        frozenset(("decide_within_seconds", "use_within_seconds", "on_approval")),
    )
    chains = _texts(members["chains"], "approval.chains")
    if not chains:
        raise _malformed("approval.chains is empty")
    on_approval = members.get("on_approval", "grant")
    if on_approval not in ("grant", "dispatch"):
        raise _malformed("approval.on_approval is neither grant nor dispatch")
    return ApprovalObligation(
        tuple(sorted(chains)),
        _count(members.get("decide_within_seconds", 86_400), "approval.decide_within_seconds"),
        _count(members.get("use_within_seconds", 900), "approval.use_within_seconds"),
        on_approval,
    )


def _step_up(value: object) -> object:
    members = _members(value, "step_up", frozenset(("acr_values", "max_age_seconds")))
    if not _texts(members["acr_values"], "step_up.acr_values"):
        raise _malformed("step_up.acr_values is empty")
    _count(members["max_age_seconds"], "step_up.max_age_seconds", least=0)
    return value


def _throttle(value: object) -> object:
    for entry in _list(value, "throttle"):
        members = _members(entry, "throttle", frozenset(("key", "limit", "window_seconds")))
        _text(members["key"], "throttle.key")
        _count(members["limit"], "throttle.limit", least=0, most=2**53 - 1)
        _count(members["window_seconds"], "throttle.window_seconds")
    return value


def _route(value: object) -> object:
    members = _members(value, "route", frozenset(("target",)), frozenset(("fallback",)))
    _text(members["target"], "route.target")
    _texts(members.get("fallback", []), "route.fallback")
    return value


def _budget(value: object) -> object:
    for entry in _list(value, "budget"):
        members = _members(entry, "budget", frozenset(("key", "amount", "currency")))
        _text(members["key"], "budget.key")
        if not _AMOUNT.fullmatch(_text(members["amount"], "budget.amount")):
            raise _malformed("budget.amount is not a decimal")
        if not _CURRENCY.fullmatch(_text(members["currency"], "budget.currency")):
            raise _malformed("budget.currency is not an ISO 4217 code")
    return value


def _redact(value: object) -> object:
    return _texts(value, "redact")


def _response(value: object) -> object:
    members = _members(value, "response", frozenset(), frozenset(("redact", "max_bytes")))
    asked: list[object] = list(_texts(members.get("redact", []), "response.redact"))
    if "max_bytes" in members:
        asked.append(_count(members["max_bytes"], "response.max_bytes", least=0, most=2**53 - 1))
    return asked


def _cache_seconds(value: object) -> int:
    return _count(value, "cache_seconds", least=0)


_OBLIGATIONS: Final[Mapping[str, Callable[[object], object]]] = {
    "approval": _approval,
    "step_up": _step_up,
    "throttle": _throttle,
    "route": _route,
    "budget": _budget,
    "redact": _redact,
    "response": _response,
    "cache_seconds": _cache_seconds,
}


def _check_consistent(
    effect: Effect, held: Mapping[str, Any], chains: Mapping[str, JsonValue], cacheable: bool
) -> None:
    needed = _NEEDED.get(effect)
    if needed is not None and needed not in held:
        raise _malformed(f"{effect.value} needs the obligation {needed}")
    for implied, name in _NEEDED.items():
        if name in held and _STRENGTH[effect] > _STRENGTH[implied]:
            raise _malformed(f"the obligation {name} contradicts the effect {effect.value}")
    if "approval" in held:
        for chain in held["approval"].chains:
            if chain not in chains:
                raise _malformed(f"the bundle has no chain {chain[:64]!r}")
    if "cache_seconds" in held and not cacheable:
        raise _malformed("cache_seconds is asked for by a bundle that may not be cached")


def _check_enforceable(approval: ApprovalObligation, chains: Mapping[str, JsonValue]) -> None:
    """One chain of one step that needs one vote, and a grant on approval: what this version can hold a call for."""
    if approval.on_approval != "grant":
        raise DecisionRefused("not_supported", "on_approval dispatch is not enforced by this version")
    if len(approval.chains) != 1:
        raise DecisionRefused("not_supported", "several chains at once are not enforced by this version")
    name = approval.chains[0]
    chain = chains[name]
    steps = chain.get("steps") if isinstance(chain, dict) else None
    if not isinstance(steps, list) or not steps or not all(isinstance(step, dict) for step in steps):
        raise _malformed(f"the chain {name[:64]!r} has no steps")
    step = steps[0]
    single = len(steps) == 1 and isinstance(step, dict) and step.keys() <= {"id", "role", "quorum"}
    if not single or not isinstance(step, dict):
        raise DecisionRefused("not_supported", f"the chain {name[:64]!r} has more than one plain step")
    if type(step.get("role")) is not str or not step["role"]:
        raise _malformed(f"the chain {name[:64]!r} has a step without a role")
    quorum = step.get("quorum", 1)
    if type(quorum) is not int or quorum < 1:
        raise _malformed(f"the chain {name[:64]!r} has a quorum that is no count")
    if quorum != 1:
        raise DecisionRefused("not_supported", f"the chain {name[:64]!r} needs several votes in one step")
