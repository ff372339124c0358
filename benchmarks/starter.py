"""What the in-process measurements work on: the starter bundle, one write call of its ServiceNow manifest."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import yaml

from bundles.trusted_set import TrustedBundle, TrustedKey, TrustPolicy, verify_bundle
from pdp.documents import ActionFacts, PolicyInput, ResourceFacts, SubjectFacts

BODY = b'{"short_description": "measured", "comments": "what a triage step writes", "state": "2"}'
SEGMENTS = ("api", "now", "table", "incident", "a1")
METHOD = "PATCH"


def load_starter(directory: Path) -> TrustedBundle:
    """Verify the bundle of a starter directory as its configuration says."""
    document: dict[str, Any] = yaml.safe_load((directory / "tidegate.yaml").read_text(encoding="utf-8"))
    entry = document["bundles"][0]
    keys = tuple(
        TrustedKey(
            key["keyid"], key["algorithm"], key["scope"], (directory / key["key"].removeprefix("file:")).read_bytes()
        )
        for key in entry["trusted_keys"]
    )
    raw = (directory / entry["source"].removeprefix("file:")).read_bytes()
    trust = TrustPolicy(entry["name"], entry["audience"], keys)
    return verify_bundle(raw, trust, now=int(time.time()), highest_sequence=0)


def question(now: float) -> PolicyInput:
    """The policy's question about the measured call."""
    return PolicyInput(
        subject=SubjectFacts("agent", "triage-bot", "acme", "ops", "test", ("triage",)),
        action=ActionFacts("servicenow.incident.update", "write", "medium", True, False),
        resource=ResourceFacts("incident", "a1", "servicenow", "servicenow"),
        args={"sys_id": "a1", "short_description": "measured", "comments": "what a triage step writes", "state": "2"},
        time_unix=now,
        call="c" * 32,
        request={"method": METHOD, "path": "/api/now/table/incident/a1", "query": "", "protocol": "http"},
    )
