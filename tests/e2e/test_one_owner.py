"""Two gates on one store: the second ends at once and says why; the first one's calls are not taken for lost."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.e2e.calling import LIST, call, meanwhile, recorded, until
from tests.e2e.harness import GateProcess, edit_config, free_port, init_directory, tidegate
from tests.e2e.hostile import HostileUpstream


@pytest.fixture(scope="module")
def upstream() -> Iterator[HostileUpstream]:
    """A service that answers when it is told to."""
    with HostileUpstream.start() as running:
        yield running


@pytest.fixture(scope="module")
def owning(tmp_path_factory: pytest.TempPathFactory, upstream: HostileUpstream) -> Iterator[GateProcess]:
    """The first gate."""
    directory = init_directory(tmp_path_factory.mktemp("owning") / "gate")
    edit_config(directory, {"instances": {"servicenow": {"base_url": f"http://127.0.0.1:{upstream.port}"}}})
    with GateProcess.start(directory) as running:
        yield running


def _second_config(directory: Path) -> Path:
    """Another configuration file for the same store, on ports of its own."""
    document = yaml.safe_load((directory / "tidegate.yaml").read_text(encoding="utf-8"))
    document["listen"] |= {"gate": f"127.0.0.1:{free_port()}", "metrics": f"127.0.0.1:{free_port()}"}
    path = directory / "second.yaml"
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    return path


def test_second_gate_is_unavailable_and_the_first_ones_call_ends_well(
    owning: GateProcess, upstream: HostileUpstream
) -> None:
    owning.token("triage-bot", "triage")
    with meanwhile(lambda: call(owning, "PATCH", f"{LIST}/wait-1", {"state": "2"})) as answers:
        until("the write is sent", lambda: upstream.times_asked("wait-1") or None)
        done = tidegate("gateway", "run", "--config", str(_second_config(owning.directory)), "--json")
        upstream.released.set()
    assert "Traceback" not in done.stderr
    assert (done.returncode, json.loads(done.stdout)["error"]["code"]) == (3, "store_in_use")
    assert answers[0].status == 200
    ends = [(record["kind"], record["action"].get("code")) for record in recorded(owning, answers[0])]
    assert ends == [("intent", None), ("outcome", None)]


def test_ledger_can_be_read_while_a_gate_owns_the_store(owning: GateProcess) -> None:
    assert tidegate("ledger", "verify", "--config", str(owning.config)).returncode == 0
