"""Other rulebooks for a gate under test, made as their owner makes them: edited and built, or signed anew."""

from __future__ import annotations

import json
import time
from pathlib import Path

from bundles.archive import ArchiveLimits, read_archive
from bundles.build import SigningOptions, sign_files
from bundles.keys import load_private_key
from tests.e2e.harness import StartFailed, tidegate

SIGNATURES = ".signatures.json"


def place_action(directory: Path, connector: str, action: str) -> None:
    """Say in a connector's manifest that an action is an agent's to carry out; the next build takes it up."""
    manifest = directory / "bundle" / "connectors" / connector / "data.yaml"
    text, name = manifest.read_text(encoding="utf-8"), f"  - name: {action}\n"
    if name not in text:
        raise StartFailed(f"{connector} has no action {action}")
    manifest.write_text(text.replace(name, f"{name}    placement: {{site: hq}}\n"), encoding="utf-8")


def widen_parameter(directory: Path, connector: str, action: str, pattern: str, wider: str) -> None:
    """Give the path parameter of one action another pattern in the connector's manifest; the next build takes it up."""
    manifest = directory / "bundle" / "connectors" / connector / "data.yaml"
    before, name, after = manifest.read_text(encoding="utf-8").partition(f"  - name: {action}\n")
    if not name or pattern not in after:
        raise StartFailed(f"{connector} has no action {action} with the pattern {pattern}")
    manifest.write_text(before + name + after.replace(pattern, wider, 1), encoding="utf-8")


def add_rules(directory: Path, connector: str, rules: str) -> None:
    """Append Rego to a connector's policy and build the bundle with the next sequence."""
    policy = directory / "bundle" / "policies" / connector / f"{connector}.rego"
    policy.write_text(policy.read_text(encoding="utf-8") + rules, encoding="utf-8")
    build(directory)


def drop_action(directory: Path, connector: str, action: str) -> None:
    """Take an action out of a connector's manifest; the next build takes it up."""
    manifest = directory / "bundle" / "connectors" / connector / "data.yaml"
    before, name, after = manifest.read_text(encoding="utf-8").partition(f"  - name: {action} ")
    if not name:
        raise StartFailed(f"{connector} has no action {action}")
    manifest.write_text(before + after[after.index("  - name: ") :], encoding="utf-8")


def drop_argument(directory: Path, connector: str, schema: str, name: str) -> None:
    """Take an argument out of one schema of a connector; the next build takes it up."""
    path = directory / "bundle" / "connectors" / connector / "schemas" / schema
    document = json.loads(path.read_text(encoding="utf-8"))
    del document["properties"][name]
    path.write_text(json.dumps(document), encoding="utf-8")


def build(directory: Path) -> None:
    """Build the directory's bundle with the next sequence."""
    key, out = directory / "keys" / "bundle.pem", directory / "bundle.tar.gz"
    built = tidegate("bundle", "build", str(directory / "bundle"), "--key", str(key), "--out", str(out))
    if built.returncode:
        raise StartFailed(f"tidegate bundle build: {built.stdout}{built.stderr}")


def sign_until(directory: Path, expires_in_seconds: int, sequence: int) -> None:
    """Sign the directory's bundle anew so that it may be used for so many seconds from now."""
    out = directory / "bundle.tar.gz"
    files = read_archive(out.read_bytes(), ArchiveLimits())
    del files[SIGNATURES]
    now = int(time.time())
    options = SigningOptions(sequence=sequence, issued_at=now, expires_at=now + expires_in_seconds)
    out.write_bytes(sign_files(files, load_private_key(directory / "keys" / "bundle.pem"), options))
