"""Kept questions put to another bundle, one after the other.

Guarantees: a question that is not what was written, or cannot be put again, is counted as unreadable and never as equal.
Takes as long as deciding takes: call it in a thread.
"""

from __future__ import annotations

from collections.abc import Iterable

from gateway.approvals.render import rfc3339
from gateway.store.port import KeptInput
from pdp.aside import AsidePolicy
from pdp.documents import encode_document
from pdp.errors import PdpError
from pdp.replay import Report, read_recorded
from pdp.simulate import decision_document


def decide_again(policy: AsidePolicy, kept: Iterable[KeptInput], report: Report) -> None:
    """Decide every kept question with `policy` and tell `report` how that stands to what was decided then."""
    for each in kept:
        try:
            recorded = read_recorded(each.about, each.document)
            encoded = encode_document(recorded.document)
        except PdpError:
            report.add_unreadable()
            continue
        report.add(each.call, rfc3339(each.at), recorded, decision_document(policy.decide(encoded)))
