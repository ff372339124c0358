"""What can go wrong with an upstream, split by the one question that matters: may it have acted?

`sent` is false only when not a single byte of the request can have left. Then trying again is harmless; otherwise it is
for idempotent actions only (security rule 4).
"""

from __future__ import annotations

from gateway.errors import GateUnavailable, Refusal


class UpstreamError(GateUnavailable):
    """An exchange with an upstream failed. `code` is the problem code to answer with."""

    code = "upstream_failed"

    def __init__(self, detail: str, *, sent: bool, refused: Refusal | None = None) -> None:
        super().__init__(f"{self.code}: {detail}")
        self.detail = detail
        self.sent = sent
        self.refused = refused


class UpstreamNotSent(UpstreamError):
    """Nothing was sent: no name, no connection, no TLS, no free connection."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail, sent=False)


class UpstreamFailed(UpstreamError):
    """The request left, wholly or in part, and the answer did not come whole.

    `refused` is set when the caller's own body was the reason.
    """

    def __init__(self, detail: str, *, refused: Refusal | None = None) -> None:
        super().__init__(detail, sent=True, refused=refused)


class UpstreamTimeout(UpstreamError):
    """A deadline passed; `sent` says whether the request had left by then."""

    code = "upstream_timeout"

    def __init__(self, detail: str, *, sent: bool) -> None:
        super().__init__(detail, sent=sent)
