"""The README's quick start, run as it stands."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.e2e.harness import ROOT, child_environment

SECONDS = 170


@pytest.mark.timeout(180)
def test_quick_start_shows_allowed_denied_and_approved_when_run_as_written(tmp_path: Path) -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    section = text.split("## Quick start", 1)[1]
    fence = re.search(r"```sh\n(.*?)```", section, re.DOTALL)
    assert fence is not None
    command = fence[1].strip()
    assert command == "make run ONCE=1"
    done = subprocess.run(
        [*command.split(), f"RUN_DIR={tmp_path / 'run'}"],
        cwd=ROOT,
        env=child_environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=SECONDS,
    )
    said = (done.stdout + done.stderr).lower()
    assert done.returncode == 0, said
    for word in ("allowed", "denied", "held", "approved", "ledger"):
        assert word in said
