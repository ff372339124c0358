"""What a decision can end in besides a decision.

Guarantees that every failure of this package is one of these types and carries a stable ``code``, shared by metrics,
logs and problem documents. Split by what the caller does: an engine that failed or a policy that is missing refuses
the call, a bundle that cannot be prepared leaves the old one in place, a decision that does not count becomes a
denial.
"""

from __future__ import annotations


class PdpError(Exception):
    """Base of this package's failures; ``str()`` is ``code: detail``."""

    code: str = "engine_failed"

    def __init__(self, detail: str = "", *, code: str | None = None) -> None:
        self.code = code if code is not None else type(self).code
        self.detail = detail
        super().__init__(f"{self.code}: {detail}" if detail else self.code)


class EngineFailed(PdpError):
    """The engine gave no answer that counts: trap, abort, out of fuel or memory, undefined, several results."""

    code = "engine_failed"


class EngineUndefined(EngineFailed):
    """It was asked in order and has no decision: the rule is undefined."""


class EngineErred(EngineFailed):
    """It could not evaluate the question."""


class EngineBehind(EngineFailed):
    """It holds another revision than the one that is trusted."""


class PolicyUnavailable(PdpError):
    """There is no policy to ask."""

    code = "policy_unavailable"


class PolicyStale(PdpError):
    """The policy in place may no longer be used."""

    code = "policy_stale"


class PolicyRefused(PdpError):
    """A bundle cannot be enforced by this engine; whatever was in place stays. ``code`` names the rule it broke."""

    code = "policy_refused"


class InputRefused(PdpError):
    """A question that may not reach an engine: not finite, too deep, too large, not JSON."""

    code = "malformed_request"


class DecisionRefused(PdpError):
    """A decision document that does not count; the call is denied with ``reason_code`` as the reason.

    ``decision_malformed`` is a document outside the contract, ``not_supported`` one inside it that this version does
    not enforce, ``no_decision`` an answer without a document.
    """

    def __init__(self, reason_code: str, detail: str = "") -> None:
        self.reason_code = reason_code
        super().__init__(detail, code=reason_code)
