"""Recorded decisions beside those of another bundle: what is looser, what is stricter, by effect and by rule.

Guarantees: a difference is looser only when the new decision asks for strictly less than the recorded one, and every
looser one is counted and named apart from the stricter ones; what cannot be ordered is called changed. The same
decisions give the same report in any order of their sets. Leaves deciding to an engine, keeping to the store.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

import orjson

from pdp.errors import PdpError
from pdp.simulate import decision_document
from pdp.vocabulary import Effect

if TYPE_CHECKING:
    from bundles.canonical import JsonValue
    from pdp.decided import Decided

SHOWN_MAX_COUNT: Final = 1_000
"""Differences listed one by one, of each kind; all are counted."""
RULES_MAX_COUNT: Final = 200
_STRENGTH: Final = {effect.value: rank for rank, effect in enumerate(reversed(Effect))}
_MEMBERS: Final = frozenset({"decision", "engine", "revision", "digest", "sequence", "decision_id", "input_digest"})


class RecordedMalformed(PdpError):
    """A kept decision is not what was written."""

    code = "recorded_malformed"


class Kind(StrEnum):
    """How a new decision stands to the recorded one."""

    SAME = "same"
    LOOSENING = "loosening"
    TIGHTENING = "tightening"
    CHANGED = "changed"
    REASONS = "reasons"


@dataclass(frozen=True, slots=True)
class Recorded:
    """One question as it was asked, and what was decided then."""

    document: Mapping[str, Any]
    decision: Mapping[str, Any]
    bundle: Mapping[str, Any]
    input_digest: str


def about_decision(decided: Decided) -> bytes:
    """What is kept beside a question: the decision in full, and which policy gave it."""
    return orjson.dumps(
        {
            "decision": decision_document(decided.decision),
            "engine": decided.engine,
            "revision": decided.bundle_revision,
            "digest": decided.bundle_digest,
            "sequence": decided.bundle_sequence,
            "decision_id": decided.decision_id,
            "input_digest": decided.input_digest,
        }
    )


def read_recorded(about: bytes, document: bytes) -> Recorded:
    """A kept question and its decision again; raises ``RecordedMalformed``."""
    try:
        told, question = orjson.loads(about), orjson.loads(document)
    except orjson.JSONDecodeError as refused:
        raise RecordedMalformed("a kept decision is not JSON") from refused
    if not isinstance(told, dict) or told.keys() != _MEMBERS or not isinstance(question, dict):
        raise RecordedMalformed("a kept decision has not the members it was written with")
    decision = told["decision"]
    if not isinstance(decision, dict) or decision.get("effect") not in _STRENGTH:
        raise RecordedMalformed("a kept decision has no effect")
    bundle = {name: told[name] for name in ("revision", "digest", "sequence", "engine", "decision_id")}
    return Recorded(question, decision, bundle, str(told["input_digest"]))


def kind_of(before: Mapping[str, Any], after: Mapping[str, Any]) -> Kind:
    """How the decision ``after`` stands to ``before``; both as ``decision_document`` gives them."""
    was, now = _STRENGTH[before["effect"]], _STRENGTH[after["effect"]]
    if was != now:
        return Kind.LOOSENING if now < was else Kind.TIGHTENING
    if before["obligations"] != after["obligations"]:
        return _by_obligations(before["obligations"], after["obligations"])
    return Kind.SAME if _codes(before) == _codes(after) else Kind.REASONS


def _by_obligations(before: Mapping[str, Any], after: Mapping[str, Any]) -> Kind:
    """Fewer chains of approval with all else equal is looser, more is stricter; anything else cannot be ordered."""
    chains = [frozenset(each.get("approval", {}).get("chains", ())) for each in (before, after)]
    if _without_chains(before) != _without_chains(after) or chains[0] == chains[1]:
        return Kind.CHANGED
    if chains[1] < chains[0]:
        return Kind.LOOSENING
    return Kind.TIGHTENING if chains[1] > chains[0] else Kind.CHANGED


def _without_chains(obligations: Mapping[str, Any]) -> dict[str, Any]:
    approval = {name: value for name, value in obligations.get("approval", {}).items() if name != "chains"}
    return {**obligations, "approval": approval}


def _codes(decision: Mapping[str, Any]) -> list[tuple[str, str]]:
    return sorted((str(reason.get("rule", "")), str(reason.get("code", ""))) for reason in decision["reasons"])


def summary_of(decision: Mapping[str, Any]) -> dict[str, JsonValue]:
    """A decision as differences show it: effect, rules with their codes, obligations; no messages."""
    reasons: list[JsonValue] = [{"rule": rule, "code": code} for rule, code in _codes(decision)]
    obligations: JsonValue = decision["obligations"]
    return {"effect": decision["effect"], "reasons": reasons, "obligations": obligations}


def difference_document(
    recorded: Mapping[str, Any], before: Mapping[str, Any], after: Mapping[str, Any]
) -> dict[str, JsonValue]:
    """One difference about the question ``recorded``: whose call of what, then and now. Holds no arguments."""
    subject, action, resource = (_part(recorded, name) for name in ("subject", "action", "resource"))
    return {
        "kind": kind_of(before, after).value,
        "action": _text(action.get("name")),
        "instance": _text(_part(resource, "properties").get("instance")),
        "subject": _text(subject.get("id")),
        "environment": _text(_part(subject, "properties").get("environment")),
        "before": summary_of(before),
        "after": summary_of(after),
    }


def _part(document: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = document.get(name)
    return value if isinstance(value, dict) else {}


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


class Report:
    """Gathers a replay, one re-decided call after the other."""

    def __init__(self) -> None:
        self._kinds: Counter[str] = Counter({kind.value: 0 for kind in Kind})
        self._effects: Counter[tuple[str, str, str]] = Counter()
        self._gained: Counter[str] = Counter()
        self._lost: Counter[str] = Counter()
        self._listed: dict[Kind, list[JsonValue]] = {kind: [] for kind in Kind if kind is not Kind.SAME}
        self._unreadable = 0

    def add(self, call: str, at: str, recorded: Recorded, after: Mapping[str, Any]) -> Kind:
        """Take one call, what was recorded of it and what is decided now."""
        before = recorded.decision
        kind = kind_of(before, after)
        self._kinds[kind.value] += 1
        if kind is Kind.SAME:
            return kind
        self._effects[kind.value, str(before["effect"]), str(after["effect"])] += 1
        was, now = (frozenset(rule for rule, _ in _codes(each)) for each in (before, after))
        self._gained.update(now - was)
        self._lost.update(was - now)
        if len(self._listed[kind]) < SHOWN_MAX_COUNT:
            listed = {"call": call, "at": at, **difference_document(recorded.document, before, after)}
            self._listed[kind].append(listed)
        return kind

    def add_unreadable(self) -> None:
        """Count a kept question that could not be decided again."""
        self._unreadable += 1

    @property
    def loosened(self) -> int:
        """How many calls would be decided less strictly."""
        return self._kinds[Kind.LOOSENING.value]

    def document(self) -> dict[str, JsonValue]:
        """The report: counts, effects and rules, and the differences with looser and stricter ones apart."""
        rules = sorted(self._gained.keys() | self._lost.keys(), key=lambda rule: (-self._touched(rule), rule))
        return {
            "compared": sum(self._kinds.values()),
            "unreadable": self._unreadable,
            "counts": dict(sorted(self._kinds.items())),
            "by_effect": [
                {"kind": kind, "before": before, "after": after, "calls": count}
                for (kind, before, after), count in sorted(self._effects.items())
            ],
            "by_rule": [
                {"rule": rule, "holds_now": self._gained[rule], "held_before": self._lost[rule]}
                for rule in rules[:RULES_MAX_COUNT]
            ],
            **{kind.value: listed for kind, listed in self._listed.items()},
        }

    def _touched(self, rule: str) -> int:
        return self._gained[rule] + self._lost[rule]
