"""What is measured: a bundle of about thirty argument-level rules and 10 KB of data, one read and one write, both with a
JSON body.

The bundle is built and signed from `benchmarks/bundle` at the start of a run, so it is what `tidegate bundle build` makes.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from bundles.trusted_set import TrustedBundle, TrustedKey, TrustPolicy, verify_bundle
from pdp.documents import ActionFacts, PolicyInput, ResourceFacts, SubjectFacts
from tests.e2e.harness import ROOT, init_directory, read_config, tidegate
from tests.e2e.raw import request

SOURCE: Final = ROOT / "benchmarks" / "bundle"
CONNECTOR: Final = "records"


@dataclass(frozen=True, slots=True)
class Measured:
    """One request of the measurements, and what policy is asked about it."""

    method: str
    path: str
    body: bytes
    action: ActionFacts
    resource: ResourceFacts
    args: dict[str, Any]

    def raw(self, host: str, prefix: str, token: str) -> bytes:
        """The request's bytes, to `host` below `prefix`."""
        headers = {
            "Host": host,
            "Authorization": f"Bearer {token}",
            "Accept": "application/json",
            "Content-Type": "application/json",
        }
        return request(self.method, prefix + self.path, headers, self.body)

    def question(self, now: float) -> PolicyInput:
        """The policy's question about it at Unix time `now`."""
        return PolicyInput(
            subject=SubjectFacts("agent", "triage-bot", "acme", "ops", "test", ("triage",)),
            action=self.action,
            resource=self.resource,
            args=self.args,
            time_unix=now,
            call="c" * 32,
            request={"method": self.method, "path": self.path, "query": "", "protocol": "http"},
        )


READ: Final = Measured(
    "POST",
    "/api/records/incident/search",
    b'{"text": "printer on floor three does not answer", "state": "open", "limit": 20}',
    ActionFacts("records.record.search", "read", "low", True, True),
    ResourceFacts("record", "incident", CONNECTOR, CONNECTOR),
    {"kind": "incident", "text": "printer on floor three does not answer", "state": "open", "limit": 20},
)
WRITE: Final = Measured(
    "PATCH",
    "/api/records/incident/a1",
    b'{"text": "what a triage step writes", "state": "active", "priority": 2, "owner": "team-08"}',
    ActionFacts("records.record.update", "write", "medium", True, False),
    ResourceFacts("record", "incident/a1", CONNECTOR, CONNECTOR),
    {
        "kind": "incident",
        "id": "a1",
        "text": "what a triage step writes",
        "state": "active",
        "priority": 2,
        "owner": "team-08",
    },
)
KINDS: Final = {"read": READ, "write": WRITE}


def measured_directory(directory: Path, upstream: str, source: Path = SOURCE) -> Path:
    """A gate's directory whose bundle is built from `source` and whose one instance is `upstream`."""
    init_directory(directory)
    done = tidegate(
        *("bundle", "build", str(source), "--key", str(directory / "keys/bundle.pem")),
        *("--out", str(directory / "bundle.tar.gz"), "--sequence", "2"),
    )
    if done.returncode:
        raise RuntimeError(f"the measured bundle was not built: {done.stdout}{done.stderr}")
    secret = directory / "keys" / f"{CONNECTOR}.secret"
    secret.write_text("measured-upstream-token\n", encoding="utf-8")
    secret.chmod(0o600)
    document = read_config(directory)
    document["instances"] = {
        CONNECTOR: {
            "connector": CONNECTOR,
            "tenants": ["*"],
            "base_url": upstream,
            "credential": {"token": f"file:keys/{CONNECTOR}.secret"},
            "allow_addresses": ["loopback"],
        }
    }
    (directory / "tidegate.yaml").write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
    return directory


def load_measured(directory: Path) -> TrustedBundle:
    """Verify the bundle of a directory as its configuration says."""
    entry = read_config(directory)["bundles"][0]
    keys = tuple(
        TrustedKey(
            key["keyid"], key["algorithm"], key["scope"], (directory / key["key"].removeprefix("file:")).read_bytes()
        )
        for key in entry["trusted_keys"]
    )
    raw = (directory / entry["source"].removeprefix("file:")).read_bytes()
    trust = TrustPolicy(entry["name"], entry["audience"], keys)
    return verify_bundle(raw, trust, now=int(time.time()), highest_sequence=0)
