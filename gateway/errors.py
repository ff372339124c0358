"""The one error base of the gateway.

Guarantees: whatever a caller may see is a `Refusal` with a stable code and a status; codes are defined once, in
`gateway.edge.problem`. Leaves to the sub-packages: their own subclasses for failures that no caller sees as such.
"""

from __future__ import annotations

from collections.abc import Mapping


class GateError(Exception):
    """Base of everything that the gateway raises on purpose."""


class GateUnavailable(GateError):
    """Something the gateway needs is not there; the same attempt may work later."""


class GateMisuse(GateError):
    """The gateway was called or configured wrongly; trying again will not help."""


class Refusal(GateError):
    """A call ends here and the caller is told why, as a problem document.

    `code` is stable: the same word is the metric label and the log field. `detail` is one sentence for a person and
    never holds a secret. `extra` holds further members of the problem document (`reasons`, `approval`, `errors`…).
    Built by `gateway.edge.problem.refusal`, which knows status and title of each code.
    """

    def __init__(self, code: str, status: int, title: str, detail: str = "", extra: Mapping[str, object] | None = None):
        super().__init__(f"{code}: {detail or title}")
        self.code = code
        self.status = status
        self.title = title
        self.detail = detail
        self.extra: dict[str, object] = dict(extra or {})
