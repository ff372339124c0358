"""Real OPA on the other side: its signatures verify here, ours verify there."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from bundles.build import sign_files
from bundles.compiler import Opa
from bundles.errors import BundleRefused
from bundles.keys import private_pem, public_pem
from tests.bundles.parts import NOW, OPTIONS, after_signing, good_bundle, good_files, signed, signing_key, verified

CLAIMS = {
    "scope": "write", "aud": "tidegate", "tidegate_name": "main", "tidegate_seq": 3, "tidegate_epoch": 0,
    "exp": NOW + 60, "keyid": "bundle",
}  # fmt: skip


def _opa_built(opa_path: Path, folder: Path, claims: dict[str, object]) -> bytes:
    source = folder / "source"
    (source / "policies" / "x").mkdir(parents=True)
    (source / "limits").mkdir()
    (source / "policies" / "x" / "x.rego").write_text('package policies.x\n\nallow contains "a" if input.a == 1\n')
    (source / "limits" / "data.json").write_text('{"n": 1.50, "big": 1E3, "text": "<&>\u2028\u2029\\u00e9\\b"}')
    (folder / "key.pem").write_bytes(private_pem(signing_key()))
    (folder / "claims.json").write_text(json.dumps(claims))
    command = [str(opa_path), "build", "-b", "source", "-o", "out.tar.gz", "--signing-key", "key.pem"]
    command += ["--signing-alg", "ES256", "--claims-file", "claims.json", "-r", "r9"]
    subprocess.run(command, cwd=folder, check=True, timeout=60, capture_output=True)
    return (folder / "out.tar.gz").read_bytes()


def test_bundle_is_trusted_when_opa_built_and_signed_it(opa_path: Path, tmp_path: Path) -> None:
    trusted = verified(_opa_built(opa_path, tmp_path, CLAIMS))
    assert (trusted.revision, trusted.sequence, trusted.profile) == ("r9", 3, None)
    assert trusted.data["limits"] == {"n": 1.5, "big": 1000.0, "text": "<&>\u2028\u2029é\b"}


def test_bundle_is_refused_when_opa_signed_it_without_our_claims(opa_path: Path, tmp_path: Path) -> None:
    with pytest.raises(BundleRefused) as refused:
        verified(_opa_built(opa_path, tmp_path, {"scope": "write", "keyid": "bundle"}))
    assert refused.value.code == "bundle_claims_invalid"


def _opa_reads(opa_path: Path, folder: Path, raw: bytes, scope: str = "write") -> subprocess.CompletedProcess[str]:
    """Let OPA load the bundle with our key, as `opa run --bundle` does, and ask it one decision."""
    (folder / "b.tar.gz").write_bytes(raw)
    (folder / "key.pub").write_bytes(public_pem(signing_key()))
    (folder / "input.json").write_text('{"subject": {"properties": {"roles": ["reader"]}}}')
    settings = {
        "keys.bundle.algorithm": "ES256",
        "bundles.main.resource": "file://" + str(folder / "b.tar.gz"),
        "bundles.main.signing.keyid": "bundle",
        "bundles.main.signing.scope": scope,
    }
    command = [str(opa_path), "exec", "--decision", "tidegate/decision", "--timeout", "20s"]
    for name, value in settings.items():
        command += ["--set", f"{name}={value}"]
    command += ["--set-file", f"keys.bundle.key={folder / 'key.pub'}", "input.json"]
    return subprocess.run(command, cwd=folder, timeout=60, capture_output=True, text=True)


def test_opa_decides_with_our_bundle_when_it_trusts_our_key(opa_path: Path, tmp_path: Path) -> None:
    done = _opa_reads(opa_path, tmp_path, good_bundle())
    assert json.loads(done.stdout)["result"][0]["result"] == {"effect": "ALLOW"}, done.stderr


SPOILT = {
    "one file was changed": lambda: after_signing(policies__x__x_dot_rego=b"package policies.x\n"),
    "a file was added": lambda: after_signing(policies__x__y_dot_rego=b"package policies.x\n"),
    "another key signed": lambda: sign_files(good_files(), signing_key("theirs"), OPTIONS),
}


@pytest.mark.parametrize("reason", SPOILT)
def test_opa_refuses_our_bundle_as_we_do_when(reason: str, opa_path: Path, tmp_path: Path) -> None:
    raw = SPOILT[reason]()
    done = _opa_reads(opa_path, tmp_path, raw)
    assert "Bundle load failed" in done.stderr and not done.stdout
    with pytest.raises(BundleRefused):
        verified(raw)


def test_opa_build_accepts_our_structured_hashes_when_numbers_are_odd(opa_path: Path, tmp_path: Path) -> None:
    odd = b'{"steps": [1.50, 1E3, 0.1e-2, "\\u2028<&>\xc3\xa9\\b\\f\x7f"], "B": null, "a": {}}'
    files = {**good_files(), "chains/data.json": odd}
    done = _opa_reads(opa_path, tmp_path, signed(files))
    assert '"effect":"ALLOW"' in done.stdout.replace(" ", "").replace("\n", ""), done.stderr
    assert verified(signed(files)).sequence == OPTIONS.sequence
    assert Opa(opa_path).version() == "1.20.2"
