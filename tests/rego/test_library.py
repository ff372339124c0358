"""The library and the starter policies under OPA itself: strict, formatted, tested, every line covered."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

import rego

LIBRARY = rego.root() / "lib"
POLICIES = rego.root() / "starter" / "policies"
OPA_SECONDS = 60


def opa(path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """One run of OPA over the library and the starter policies."""
    command = [str(path), *arguments, str(LIBRARY), str(POLICIES), "--ignore", "*.json"]
    return subprocess.run(command, capture_output=True, text=True, timeout=OPA_SECONDS, check=False)


def test_library_tests_pass_with_full_coverage_when_run_by_opa(opa_path: Path) -> None:
    ended = opa(opa_path, "test", "--coverage")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    report = json.loads(ended.stdout)
    gaps = {name: lines["not_covered"] for name, lines in report["files"].items() if lines.get("not_covered")}
    assert (report["coverage"], gaps) == (100, {})


def test_sources_are_accepted_when_checked_strictly_under_the_profile(opa_path: Path) -> None:
    capabilities = str(rego.root() / "capabilities.json")
    ended = opa(opa_path, "check", "--strict", "--capabilities", capabilities)
    assert ended.returncode == 0, ended.stderr


def test_sources_are_unchanged_when_formatted(opa_path: Path) -> None:
    command = [str(opa_path), "fmt", "--list", str(LIBRARY), str(POLICIES)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=OPA_SECONDS, check=False)
    assert (ended.returncode, ended.stdout) == (0, "")


@pytest.mark.parametrize("policy", sorted(path.name for path in POLICIES.iterdir()))
def test_policy_has_tests_and_cases_when_it_ships(policy: str) -> None:
    folder = POLICIES / policy
    assert list(folder.glob("*_test.rego"))
    effects = {json.loads(path.read_bytes())["decision"]["effect"] for path in (folder / "cases").glob("*.json")}
    assert {"ALLOW", "DENY"} <= effects
