"""Unmodified Node clients of real services through a real gate."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from tests.e2e.harness import GateProcess, child_environment
from tests.e2e.node.install import node_command

NODE_DIR = Path(__file__).resolve().parent / "node"
SCRIPT_SECONDS = 60


def _run(script: str, base_url: str, token: str) -> Any:
    environment = {**child_environment(), "E2E_BASE_URL": base_url, "E2E_TOKEN": token}
    done = subprocess.run(
        [*node_command(), script],
        cwd=NODE_DIR,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=SCRIPT_SECONDS,
    )
    assert done.returncode == 0, done.stderr + done.stdout
    return json.loads(done.stdout.strip().splitlines()[-1])


def test_octokit_reads_pages_and_creates_when_policy_allows(gate: GateProcess) -> None:
    answer = _run("octokit.mjs", gate.instance("github"), gate.token("dev", "developer"))
    assert answer["repository"] == "acme/widgets"
    assert answer["issues"] > 2
    assert answer["created"] == "From Node"


def test_slack_web_api_lists_and_posts_when_policy_allows(gate: GateProcess) -> None:
    answer = _run("slack.mjs", f"{gate.instance('slack')}/api/", gate.token("dev", "developer"))
    assert answer == {"ok": True, "listed": True, "posted": True}
