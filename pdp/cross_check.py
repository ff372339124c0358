"""A decision of the embedded engine beside what another engine says to the same question under the same bundle.

Guarantees: both are read by the same rules, and equal only when effect, obligations and every reason are; no decision of the
other engine counts as a denial, which is what the gate would make of it. Leaves asking, and what a difference leads to, to
the gateway.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson

from pdp.decided import NO_ANSWER, REFUSED_BY
from pdp.documents import Decision, Effect, Reason, encode_input, parse_decision
from pdp.errors import DecisionRefused
from pdp.replay import Kind, difference_document, kind_of
from pdp.simulate import decision_document

if TYPE_CHECKING:
    from bundles.canonical import JsonValue
    from pdp.decided import Decided
    from pdp.documents import PolicyInput


class Rulebook(NamedTuple):
    """What reading a decision depends on besides the decision."""

    chains: Mapping[str, JsonValue]
    cacheable: bool


class CrossDifference(NamedTuple):
    """Two engines, one bundle, one question, two decisions. Digests name them; ``data`` is JSON without arguments.

    ``kind`` says how the other decision stands to ours: ``tightening`` means that ours let more out.
    """

    tenant: str
    workspace: str
    call: str
    bundle: str
    kind: Kind
    input_digest: str
    ours: str
    theirs: str
    data: bytes


def cross_difference(
    question: PolicyInput, decided: Decided, document: bytes | None, rulebook: Rulebook
) -> CrossDifference | None:
    """What differs between our decision of a question and the other engine's ``document`` (``None``: it has no decision), if anything."""
    before = decision_document(decided.decision)
    after = decision_document(_read(document, rulebook))
    ours, theirs = _digest(before), _digest(after)
    if ours == theirs:
        return None
    kind = kind_of(before, after)
    if kind is Kind.SAME:
        kind = Kind.REASONS  # the same codes under other words
    told = {
        **difference_document(orjson.loads(encode_input(question)), before, after),
        "difference": kind.value,
        "decision": decided.decision_id,
        "bundle": decided.bundle_digest,
        "engine": decided.engine,
        "input_digest": decided.input_digest,
        "digests": {"ours": ours, "theirs": theirs},
    }
    return CrossDifference(
        question.subject.tenant,
        question.subject.workspace,
        question.call,
        decided.bundle_digest,
        kind,
        decided.input_digest,
        ours,
        theirs,
        orjson.dumps(told),
    )


def _read(document: bytes | None, rulebook: Rulebook) -> Decision:
    if document is None:
        return Decision(Effect.DENY, (Reason("engine_failed", NO_ANSWER, "the other engine has no decision"),))
    try:
        return parse_decision(document, chains=rulebook.chains, cacheable=rulebook.cacheable)
    except DecisionRefused as refused:
        return Decision(Effect.DENY, (Reason(refused.reason_code, REFUSED_BY, refused.detail),))


def _digest(decision: Mapping[str, Any]) -> str:
    """Of all that is compared: not of the words about an answer that is no decision, which name what was met first."""
    reasons = [{**each, "message": ""} if each["rule"] == REFUSED_BY else each for each in decision["reasons"]]
    decision = {**decision, "reasons": reasons}
    return "sha256:" + hashlib.sha256(orjson.dumps(decision, option=orjson.OPT_SORT_KEYS)).hexdigest()
