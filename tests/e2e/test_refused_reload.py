"""A reload that cannot be recorded leaves everything as it was: what decides, what is said of it, what a start accepts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.e2e.calling import LIST, call, recorded, until, unwritable
from tests.e2e.harness import GateProcess, StandIns, init_directory, point_at_stand_ins, tidegate
from tests.e2e.rulebook import sign_until


def _deciding(gate: GateProcess) -> int:
    """The sequence of the bundle that decided a call made now."""
    answer = call(gate, "GET", LIST)
    assert answer.status == 200
    return int(recorded(gate, answer)[-1]["policy"]["sequence"])


def _enforced(gate: GateProcess) -> int:
    answer = call(gate, "GET", "/v1/enforcement", token=gate.token("op", "operator"))
    return int(answer.json()["bundles"][0]["sequence"])


def _loads(gate: GateProcess) -> list[int]:
    """The sequences of the bundles that the ledger says came into force."""
    done = tidegate("ledger", "tail", "-n", "50", "--json", "--config", str(gate.config))
    items: list[dict[str, Any]] = json.loads(done.stdout)["items"]
    return [int(item["policy"]["sequence"]) for item in items if item["kind"] == "bundle"]


def test_bundle_is_not_in_force_at_all_when_it_could_not_be_recorded(tmp_path: Path, stand_ins: StandIns) -> None:
    directory = init_directory(tmp_path / "gate")
    point_at_stand_ins(directory, stand_ins)
    archive = directory / "bundle.tar.gz"
    before = archive.read_bytes()
    with GateProcess.start(directory) as gate:
        first = _deciding(gate)
        sign_until(directory, 3600, first + 1)
        with unwritable(gate):
            assert not gate.reload()
        until("the gate is ready", lambda: call(gate, "GET", "/health/ready").status == 200 or None)
        assert (_deciding(gate), _enforced(gate), _loads(gate)) == (first, first, [first])
        archive.write_bytes(before)
    with GateProcess.start(directory) as gate:  # the refused one has not put the old one out of use
        assert _deciding(gate) == first
        sign_until(directory, 3600, first + 1)
        assert gate.reload()
        assert (_deciding(gate), _enforced(gate), _loads(gate)) == (first + 1, first + 1, [first, first, first + 1])
