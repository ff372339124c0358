"""Two issuers of one tenant that know two callers by one name: what people approve for one is not the other's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.e2e.calling import call
from tests.e2e.harness import GateProcess, edit_config, init_directory, read_config, tidegate
from tests.e2e.hostile import HostileUpstream
from tests.e2e.issuing import good_claims, published
from tests.e2e.raw import Answer

RUNNERS = "urn:ci:runners"
KEY = Ed25519PrivateKey.generate()


@pytest.fixture
def upstream() -> Iterator[HostileUpstream]:
    """A service that counts what it is asked."""
    with HostileUpstream.start() as running:
        yield running


@pytest.fixture
def gate(tmp_path: Path, upstream: HostileUpstream) -> Iterator[GateProcess]:
    """A gate in front of it that trusts a second issuer."""
    directory = init_directory(tmp_path / "gate")
    (directory / "keys" / "runners.jwks.json").write_text(published({"runners": KEY}), encoding="utf-8")
    second = {
        "issuer": RUNNERS,
        "audience": "tidegate",
        "jwks": "file:keys/runners.jwks.json",
        "tenants": ["acme"],
        "roles": ["developer"],
    }
    issuers = [*read_config(directory)["identity"]["issuers"], second]
    here = {"webhook": {"base_url": f"http://127.0.0.1:{upstream.port}"}}
    edit_config(directory, {"identity": {"issuers": issuers}, "instances": here})
    with GateProcess.start(directory) as running:
        yield running


def _pay(gate: GateProcess, token: str) -> Answer:
    return call(gate, "POST", "/c/webhook/x", {"event": "pay"}, token=token, headers={"Prefer": "wait=0"})


def _of_runners(gate: GateProcess) -> str:
    claims = {**good_claims(gate), "iss": RUNNERS, "sub": "bot", "environment": "prod", "roles": ["developer"]}
    return jwt.encode(claims, KEY, "EdDSA", headers={"kid": "runners"})


def test_approval_is_not_used_by_whoever_has_the_same_name_at_another_issuer(
    gate: GateProcess, upstream: HostileUpstream
) -> None:
    asked = gate.token("bot", "developer", environment="prod")
    held = _pay(gate, asked)
    assert (held.status, held.code) == (403, "approval_required")
    approval = held.json()["approval"]["id"]
    approver = gate.token("alice", "approver", environment="prod")
    assert tidegate("approvals", "approve", approval, token=approver, gate=gate.url).returncode == 0
    other = _pay(gate, _of_runners(gate))
    assert (other.status, other.code, upstream.asked) == (403, "approval_required", [])
    assert other.json()["approval"]["id"] != approval
    assert _pay(gate, asked).status == 200
    assert upstream.times_asked("/x") == 1
