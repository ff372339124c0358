"""A gate that keeps what policy was asked and compares with a candidate bundle, looser in one thing, stricter in another."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.e2e.harness import (
    GateProcess,
    StandIns,
    StartFailed,
    edit_config,
    init_directory,
    point_at_stand_ins,
    tidegate,
)

KEEP_SECONDS = 3600
LOOSER = ('endswith(input.action.name, ".delete")', 'input.action.name == "servicenow.nosuch.delete"')
"""Deletes are no longer denied."""
STRICTER = """
deny contains {"code": "lists_closed", "message": "nobody lists incidents"} if {
	tidegate.is_action("servicenow.incident.list")
}

allow contains {"code": "cleaner", "message": "triage deletes"} if {
	tidegate.is_action("servicenow.incident.delete")
	tidegate.has_role("triage")
}
"""


def make_candidate(directory: Path, out: Path, *, key: str = "keys/bundle.pem") -> Path:
    """Build the candidate from the starter bundle's source in `directory`, signed with the gate's own key."""
    source = directory / "candidate"
    shutil.copytree(directory / "bundle", source)
    policy = source / "policies" / "servicenow"
    shutil.rmtree(policy / "cases")
    (policy / "servicenow_test.rego").unlink()
    text = (policy / "servicenow.rego").read_text(encoding="utf-8")
    changed = text.replace(*LOOSER) + STRICTER
    (policy / "servicenow.rego").write_text(changed, encoding="utf-8")
    built = tidegate(
        "bundle", "build", str(source), "--key", str(directory / key), "--out", str(out), "--sequence", "90"
    )
    if built.returncode or changed == text + STRICTER:
        raise StartFailed(f"tidegate bundle build: {built.stdout}{built.stderr}")
    return out


@contextmanager
def comparing_gate(directory: Path, stand_ins: StandIns) -> Iterator[GateProcess]:
    """A running gate in `directory` whose shadow is the candidate."""
    init_directory(directory)
    point_at_stand_ins(directory, stand_ins)
    make_candidate(directory, directory / "candidate.tar.gz")
    wanted = {"records": {"inputs_keep_seconds": KEEP_SECONDS}, "shadow": {"source": "file:candidate.tar.gz"}}
    edit_config(directory, wanted)
    with GateProcess.start(directory) as running:
        yield running
