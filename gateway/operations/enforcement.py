"""What is enforced right now, as one document (``/v1/enforcement``, `tidegate gateway check`)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from bundles.client_protocol import ClientStatus
from bundles.trusted_set import TrustedBundle
from gateway.bundle_config import Bundle
from gateway.edge.identity import Subject
from gateway.flow.values import InstancePlan
from gateway.store.port import SwitchRow


@dataclass(frozen=True, slots=True)
class BundleState:
    """One bundle in force, what the configuration says of it, and how its lease stands (``None``: none is asked for)."""

    bundle: TrustedBundle
    configured: Bundle
    status: ClientStatus | None = None


@dataclass(frozen=True, slots=True)
class InForce:
    """The bundles that decide, the one with policies first, and the engine that answers for them."""

    states: tuple[BundleState, ...]
    engine: str | None

    @property
    def bundle(self) -> TrustedBundle | None:
        """The one with policies."""
        return self.states[0].bundle if self.states else None


def bundle_document(state: BundleState) -> dict[str, object]:
    """One bundle: who signed it, how new it is, and until when it may decide."""
    bundle, configured, status = state.bundle, state.configured, state.status
    local = configured.freshness == "local"
    return {
        "name": bundle.name,
        "revision": bundle.revision,
        "sequence": bundle.sequence,
        "epoch": bundle.epoch,
        "digest": bundle.digest,
        "keyids": list(bundle.keyids),
        "threshold": configured.threshold,
        "profile": bundle.profile,
        "roots": list(configured.roots) if configured.data_only else None,
        "expires_at": bundle.expires_at,
        "freshness": configured.freshness,
        "lease_remaining_seconds": round(status.remaining_seconds, 3) if status is not None else None,
        "source": None if local else _source_document(configured.source, status),
        "note": "development: no freshness lease is asked for" if local else None,
    }


def _source_document(url: str, status: ClientStatus | None) -> dict[str, object]:
    """The service a bundle is followed at, and what went wrong last."""
    if status is None:
        return {"url": url}
    error = None
    if status.error_code is not None:
        error = {"code": status.error_code, "detail": status.error_detail, "at": _instant(status.error_at)}
    transfer = status.transfer
    return {
        "url": url,
        "stated_at": _instant(status.issued_at),
        "asked_at": _instant(status.asked_at),
        "answered_at": _instant(status.answered_at),
        "failures": status.failures,
        "last_error": error,
        "last_transfer": {"kind": transfer.kind, "bytes": transfer.size_bytes} if transfer is not None else None,
        "deltas_refused": status.deltas_refused,
        "last_delta_refusal": status.delta_refusal,
    }


def _instant(seconds: float | None) -> str | None:
    """RFC 3339 in UTC."""
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")


def enforcement(
    in_force: InForce,
    plans: Mapping[str, InstancePlan],
    switches: Iterable[SwitchRow],
    subject: Subject | None = None,
    cross_check: Mapping[str, object] | None = None,
) -> dict[str, object]:
    """The whole answer; with a `subject` only the instances it may use are listed."""
    bundle, engine = in_force.bundle, in_force.engine
    shown = [plan for plan in plans.values() if subject is None or plan.admits(subject)]
    return {
        "bundles": [bundle_document(state) for state in in_force.states],
        "engines": [engine] if engine is not None else [],
        "instances": [
            {
                "name": plan.name,
                "connector": plan.manifest.connector,
                "version": plan.manifest.version,
                "actions": len(plan.manifest.actions),
            }
            for plan in shown
        ],
        "switches": [{"scope": row.scope, "reason": row.reason} for row in switches],
        "cross_check": cross_check,
        "uncovered_instances": [plan.name for plan in shown if not _covered(plan, bundle)],
        "not_enforced_yet": ["REQUIRE_STEP_UP", "THROTTLE", "ROUTE", "budget", "redact", "response", "placement"],
    }


def _covered(plan: InstancePlan, bundle: TrustedBundle | None) -> bool:
    """Whether the bundle has a policy package for the instance's connector."""
    if bundle is None:
        return False
    name = plan.manifest.connector
    return any(path.startswith((f"policies/{name}/", f"policies/{name.replace('-', '_')}/")) for path in bundle.rego)
