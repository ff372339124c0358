"""The listening side: one reading of each request, limits on everything, who asks, problem documents.

Other sub-packages use the names below; the server is imported from `gateway.edge.server`.
"""

from __future__ import annotations

from gateway.edge.headers import NO_PREFERENCE, HeaderPairs, Prefer, RequestHead, check_head, check_host, prefer
from gateway.edge.identity import IdentityVerifier, IssuerPolicy, KeySource, NeedsKeys, Subject
from gateway.edge.limits import EdgeLimits
from gateway.edge.problem import CODES, ProblemKind, problem_body, problem_headers, refusal
from gateway.edge.tokens import FoundToken, find_token, needs_form
from gateway.edge.url import CanonicalTarget, canonical_path

__all__ = [
    "CODES",
    "NO_PREFERENCE",
    "CanonicalTarget",
    "EdgeLimits",
    "FoundToken",
    "HeaderPairs",
    "IdentityVerifier",
    "IssuerPolicy",
    "KeySource",
    "NeedsKeys",
    "Prefer",
    "ProblemKind",
    "RequestHead",
    "Subject",
    "canonical_path",
    "check_head",
    "check_host",
    "find_token",
    "needs_form",
    "prefer",
    "problem_body",
    "problem_headers",
    "refusal",
]
