"""The quick start is run as the README says it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.e2e.harness import ROOT, child_environment


def test_quickstart_tells_and_does_everything_when_run_once(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "examples.quickstart", "--dir", str(tmp_path / "run"), "--once", "--free-ports"]
    done = subprocess.run(
        command, cwd=ROOT, env=child_environment(), capture_output=True, text=True, timeout=90, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for word in ("ALLOWED", "DENIED", "HELD", "APPROVED", "VERIFIED", "STAND-INS"):
        assert word in done.stdout
