"""Questions that were answered already, put to a second bundle, and where its answers differ.

Guarantees: nothing that happens here can change an answer: it comes after it, in a thread of its own; a question that
cannot be put again counts as failed and never as equal. Leaves queueing, counting and storing to the gateway.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

import orjson

from pdp.errors import InputRefused
from pdp.input_document import encode_input
from pdp.replay import Kind, difference_document, kind_of
from pdp.simulate import decision_document

if TYPE_CHECKING:
    from pdp.aside import AsidePolicy
    from pdp.decided import Decided
    from pdp.vocabulary import PolicyInput


class Answered(NamedTuple):
    """A question and the decision it got."""

    question: PolicyInput
    decided: Decided


class Difference(NamedTuple):
    """What the second bundle would have decided otherwise; ``data`` is JSON without arguments."""

    tenant: str
    workspace: str
    call: str
    kind: Kind
    data: bytes


class Compared(NamedTuple):
    """What came of a batch: how many questions of each tenant were compared, how many failed, and the differences."""

    compared: int
    failed: int
    differences: tuple[Difference, ...]


def compare(policy: AsidePolicy, batch: Iterable[Answered], bundle_digest: str) -> Compared:
    """Put every question of a batch to ``policy``. Takes as long as that takes: call it in a thread."""
    compared = failed = 0
    differences: list[Difference] = []
    for question, decided in batch:
        try:
            encoded = encode_input(question)
        except InputRefused:
            failed += 1
            continue
        before, after = decision_document(decided.decision), decision_document(policy.decide(encoded))
        compared += 1
        kind = kind_of(before, after)
        if kind is Kind.SAME:
            continue
        told = {
            **difference_document(orjson.loads(encoded), before, after),
            "decision": decided.decision_id,
            "bundle": decided.bundle_digest,
            "shadow": bundle_digest,
        }
        subject = question.subject
        differences.append(Difference(subject.tenant, subject.workspace, question.call, kind, orjson.dumps(told)))
    return Compared(compared, failed, tuple(differences))
