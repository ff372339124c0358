"""The same archive before both readers: real OPA with verification on, and our own verification.

OPA's verdict is ``opa build --bundle … --verification-key …``, which reads, verifies and compiles a bundle by the same
code as ``opa run``. Ours is ``verify_bundle`` with the same key, at the instant the bundle was signed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec

from bundles.errors import BundleRefused
from bundles.keys import private_pem, public_pem
from bundles.trusted_set import TrustedKey, TrustPolicy, verify_bundle
from tests.bundles.parts import write_source
from tests.integration.signed_drafts import draft_of

ROOT = Path(__file__).resolve().parents[2]
OPA = ROOT / ".tools" / "opa"
ISSUED_AT = 1_900_000_000
SEQUENCE = 7
CLAIMS = {
    "scope": "write", "aud": ["tidegate"], "tidegate_name": "main", "tidegate_seq": SEQUENCE, "tidegate_epoch": 0,
    "iat": ISSUED_AT, "exp": ISSUED_AT + 3600, "keyid": "bundle",
}  # fmt: skip
_DEADLINE_SECONDS = 120


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one reader made of an archive: None when it loads, else the reason it gave."""

    refused: str | None

    @property
    def loads(self) -> bool:
        """Whether the archive was accepted."""
        return self.refused is None


@dataclass(frozen=True, slots=True)
class Origin:
    """A bundle that one of the two sides built and signed, with the key that signed it."""

    name: str
    raw: bytes
    key: ec.EllipticCurvePrivateKey

    @property
    def public(self) -> bytes:
        """The trusted key's PEM."""
        return public_pem(self.key)


def our_bundle(folder: Path) -> Origin:
    """Built and signed by ``tidegate bundle build``."""
    key = _key_file(folder)
    write_source(folder / "source")
    command = ["-c", "from cli.main import main; main()", "bundle", "build", "source", "--key", "key.pem"]
    command += ["--out", "bundle.tar.gz", "--sequence", str(SEQUENCE), "--revision", "r1"]
    _run([os.fspath(_python()), *command], folder)
    return Origin("tidegate", (folder / "bundle.tar.gz").read_bytes(), key)


def resigned(folder: Path, origin: Origin) -> Origin:
    """The same bundle signed anew by ``tidegate bundle sign``, with another key."""
    key = _key_file(folder)
    (folder / "unsigned.tar.gz").write_bytes(origin.raw)
    command = ["-c", "from cli.main import main; main()", "bundle", "sign", "unsigned.tar.gz", "--key", "key.pem"]
    _run([os.fspath(_python()), *command, "--out", "bundle.tar.gz", "--sequence", str(SEQUENCE)], folder)
    return Origin("tidegate sign", (folder / "bundle.tar.gz").read_bytes(), key)


def opa_bundle(folder: Path) -> Origin:
    """Built and signed by ``opa build``, with our claims from a file."""
    key = _key_file(folder)
    for name, text in SOURCE.items():
        target = folder / "source" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
    (folder / "claims.json").write_text(json.dumps(CLAIMS))
    command = [str(OPA), "build", "--bundle", "source", "--revision", "r1", "--output", "bundle.tar.gz"]
    command += ["--signing-key", "key.pem", "--signing-alg", "ES256", "--claims-file", "claims.json"]
    _run(command, folder)
    return Origin("opa", (folder / "bundle.tar.gz").read_bytes(), key)


SOURCE = {
    ".manifest": '{"roots": ["policies", "tidegate", "chains", "limits"], "rego_version": 1}',
    "policies/shop/shop.rego": 'package policies.shop\n\nallow contains "reads" if input.action == "read"\n',
    "lib/tidegate/decision.rego": (
        'package tidegate\n\ndefault decision := {"effect": "DENY", "reasons": [], "obligations": {}}\n\n'
        'decision := {"effect": "ALLOW", "reasons": [], "obligations": {}} if count(data.policies.shop.allow) > 0\n'
    ),
    "chains/data.json": '{"one-approver": {"steps": [{"id": "a", "role": "approver", "quorum": 1}]}}',
    "limits/data.json": '{"most": 1.50, "big": 1E3, "text": "<&>\\u2028\u2029"}',
}


def our_verdict(raw: bytes, origin: Origin) -> Verdict:
    """Verified as a gateway does that trusts the origin's key, at the instant of signing."""
    trusted = TrustedKey("bundle", "ES256", "write", origin.public)
    now = _issued_at(origin)
    try:
        verify_bundle(raw, TrustPolicy("main", "tidegate", (trusted,)), now=now, highest_sequence=SEQUENCE)
    except BundleRefused as refused:
        return Verdict(refused.code)
    return Verdict(None)


def opa_verdict(raw: bytes, origin: Origin) -> Verdict:
    """Read, verified and compiled by OPA that trusts the origin's key."""
    with tempfile.TemporaryDirectory(prefix="opa-verdict-") as scratch:
        folder = Path(scratch)
        (folder / "bundle.tar.gz").write_bytes(raw)
        (folder / "key.pub").write_bytes(origin.public)
        command = [str(OPA), "build", "--bundle", "bundle.tar.gz", "--output", "out.tar.gz", "--scope", "write"]
        command += ["--verification-key", "key.pub", "--verification-key-id", "bundle", "--signing-alg", "ES256"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=_DEADLINE_SECONDS)
    if done.returncode not in (0, 1, 2):
        raise RuntimeError(f"opa build ended with {done.returncode}: {done.stderr}")
    return Verdict(None if done.returncode == 0 else (done.stderr + done.stdout).strip())


def _issued_at(origin: Origin) -> int:
    """Ours are signed at the wall clock's time, which stands in the token."""
    issued: int = draft_of(origin.raw, origin.key, origin.public).payload["iat"]
    return issued


def _key_file(folder: Path) -> ec.EllipticCurvePrivateKey:
    folder.mkdir(parents=True, exist_ok=True)
    key = ec.generate_private_key(ec.SECP256R1())
    path = folder / "key.pem"
    path.touch(mode=0o600)
    path.write_bytes(private_pem(key))
    return key


def _python() -> Path:
    return Path(sys.executable)


def _run(command: list[str], folder: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TIDEGATE_OPA": str(OPA)}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=_DEADLINE_SECONDS
    )
    if done.returncode:
        raise RuntimeError(f"{command[:4]} ended with {done.returncode}: {done.stdout}{done.stderr}")
