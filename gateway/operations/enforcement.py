"""What is enforced right now, as one document (``/v1/enforcement``, `tidegate gateway check`)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from bundles.trusted_set import TrustedBundle
from gateway.config import Document
from gateway.edge.identity import Subject
from gateway.flow.values import InstancePlan
from gateway.store.port import SwitchRow


def bundle_document(bundle: TrustedBundle, document: Document) -> dict[str, object]:
    """One bundle: who signed it, how new it is, and that its freshness is only local."""
    freshness = document.bundles[0].freshness
    return {
        "name": bundle.name,
        "revision": bundle.revision,
        "sequence": bundle.sequence,
        "digest": bundle.digest,
        "keyids": list(bundle.keyids),
        "profile": bundle.profile,
        "expires_at": bundle.expires_at,
        "freshness": freshness,
        "lease_remaining_seconds": None,
        "note": "development: no freshness lease is asked for" if freshness == "local" else None,
    }


def enforcement(
    bundle: TrustedBundle | None,
    engine: str | None,
    plans: Mapping[str, InstancePlan],
    switches: Iterable[SwitchRow],
    document: Document,
    subject: Subject | None = None,
) -> dict[str, object]:
    """The whole answer; with a `subject` only the instances it may use are listed."""
    shown = [plan for plan in plans.values() if subject is None or plan.admits(subject)]
    return {
        "bundles": [bundle_document(bundle, document)] if bundle is not None else [],
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
        "uncovered_instances": [plan.name for plan in shown if not _covered(plan, bundle)],
        "not_enforced_yet": ["REQUIRE_STEP_UP", "THROTTLE", "ROUTE", "budget", "redact", "response"],
    }


def _covered(plan: InstancePlan, bundle: TrustedBundle | None) -> bool:
    """Whether the bundle has a policy package for the instance's connector."""
    if bundle is None:
        return False
    name = plan.manifest.connector
    return any(path.startswith((f"policies/{name}/", f"policies/{name.replace('-', '_')}/")) for path in bundle.rego)
