"""The question put to policy and the answer accepted from it (contract version 1), under one name.

Guarantees that what reaches an engine was serialised here, from checked values, and that what counts as a decision has
exactly the documented shape. Leaves asking to the engines and enforcing to the gateway.
"""

from __future__ import annotations

from pdp.decision_document import parse_decision
from pdp.input_document import encode_document, encode_input
from pdp.vocabulary import (
    ActionFacts,
    ApprovalObligation,
    Decision,
    Effect,
    PolicyInput,
    Reason,
    ResourceFacts,
    SubjectFacts,
)

__all__ = [
    "ActionFacts",
    "ApprovalObligation",
    "Decision",
    "Effect",
    "PolicyInput",
    "Reason",
    "ResourceFacts",
    "SubjectFacts",
    "encode_document",
    "encode_input",
    "parse_decision",
]
