"""The gate's status as OPA reports its own, and how long to wait after failures.

**Source**: OPA's management API, status: `labels`, `bundles` by name, `decision_logs`, `plugins`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

from gateway.approvals.render import rfc3339

FIRST_RETRY_SECONDS: Final = 1.0
_NEVER: Final = "0001-01-01T00:00:00Z"
"""OPA's word for an instant that has not been."""


class ReportedBundle(NamedTuple):
    """A bundle in force and the last that was heard of its source; instants are Unix seconds."""

    name: str
    revision: str = ""
    activated_at: float | None = None
    answered_at: float | None = None
    asked_at: float | None = None
    error_code: str | None = None
    error_detail: str | None = None


def status_document(
    labels: Mapping[str, str], bundles: Iterable[ReportedBundle], *, healthy: bool, fault: str
) -> dict[str, Any]:
    """One status report. `fault` is what keeps decision logs from leaving, or empty."""
    reported = {bundle.name: _bundle(bundle) for bundle in bundles}
    logs = {"code": "decision_log_error", "message": fault} if fault else {}
    return {
        "labels": dict(labels),
        "bundles": reported,
        "decision_logs": logs,
        "plugins": {
            "bundle": {"state": "OK" if reported else "NOT_READY"},
            "decision_logs": {"state": "WARN" if fault else "OK"},
            "ledger": {"state": "OK" if healthy else "ERROR"},
        },
    }


def _bundle(bundle: ReportedBundle) -> dict[str, str]:
    reported = {
        "name": bundle.name,
        "active_revision": bundle.revision,
        "last_successful_activation": _instant(bundle.activated_at),
        "last_successful_download": _instant(bundle.answered_at),
        "last_successful_request": _instant(bundle.answered_at),
        "last_request": _instant(bundle.asked_at),
    }
    if bundle.error_code is not None:
        reported |= {"code": bundle.error_code, "message": bundle.error_detail or ""}
    return reported


def retry_seconds(failures: int, longest: float, chance: float, asked_for: float | None = None) -> float:
    """How long to wait after so many failures in a row; `chance` (0 to 1) spreads many gates.

    A collector's own `Retry-After` counts, up to `longest`.
    """
    if asked_for is not None:
        return min(max(asked_for, FIRST_RETRY_SECONDS), longest)
    doubled = FIRST_RETRY_SECONDS * 2.0 ** min(max(failures, 1) - 1, 16)
    return min(doubled, longest) * (0.5 + chance / 2)


def _instant(seconds: float | None) -> str:
    return _NEVER if seconds is None else rfc3339(int(seconds * 1000))
