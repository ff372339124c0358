"""A gate with rules from one bundle and data from another: what the data says is decided, and it has a lease of its own."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.bundle_services import LEASE_SECONDS, ServiceProcess, follow
from tests.e2e.calling import LIST, call, until
from tests.e2e.harness import (
    GateProcess,
    StandIns,
    edit_config,
    init_directory,
    point_at_stand_ins,
    read_config,
    tidegate,
)

FREEZE = """package policies.servicenow

deny contains {"code": "frozen", "message": "the service is frozen"} if {
\tinput.resource.properties.instance in data.freeze.instances
}
"""
FREEZE_TEST = """package policies.freeze_test

test_frozen_is_denied if {
\tcount(data.policies.servicenow.deny) > 0 with input as {"resource": {"properties": {"instance": "x"}}}
\t\twith data.freeze as {"instances": ["x"]}
}
"""


@pytest.fixture
def directory(tmp_path: Path, stand_ins: StandIns, opa_path: Path) -> Path:
    """A starter directory whose rules ask `data.freeze`, with an empty freeze list in a bundle of its own."""
    made = init_directory(tmp_path / "gate")
    point_at_stand_ins(made, stand_ins)
    policies = made / "bundle" / "policies" / "servicenow"
    (policies / "freeze.rego").write_text(FREEZE)
    (policies / "freeze_test.rego").write_text(FREEZE_TEST)
    built = tidegate("bundle", "build", str(made / "bundle"), "--key", str(made / "keys" / "bundle.pem"),
                     "--out", str(made / "bundle.tar.gz"))  # fmt: skip
    assert built.returncode == 0, built.stdout + built.stderr
    frozen(made)
    bundle = read_config(made)["bundles"][0]
    data = {**bundle, "name": "freeze", "source": "file:freeze.tar.gz", "data_only": True, "roots": ["freeze"]}
    edit_config(made, {"bundles": [bundle, data]})
    return made


def frozen(directory: Path, *instances: str, content: str | None = None) -> Path:
    """The freeze list as a signed bundle with the next sequence."""
    source = directory / "freeze"
    (source / "freeze").mkdir(parents=True, exist_ok=True)
    listed = ", ".join(f'"{name}"' for name in instances)
    (source / "freeze" / "data.yaml").write_text(content or f"instances: [{listed}]\n")
    out = directory / "freeze.tar.gz"
    done = tidegate("bundle", "data", str(source), "--key", str(directory / "keys" / "bundle.pem"),
                    "--out", str(out), "--name", "freeze")  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return out


def code(gate: GateProcess) -> str:
    """How an ordinary read ends."""
    answer = call(gate, "GET", LIST)
    return "ok" if answer.status == 200 else str(answer.json()["code"])


def bundles(gate: GateProcess) -> list[dict[str, Any]]:
    """What is enforced."""
    answer = call(gate, "GET", "/v1/enforcement", token=gate.token("ops", "operator"))
    shown: list[dict[str, Any]] = answer.json()["bundles"] if answer.status == 200 else []
    return shown


def test_data_decides_when_it_comes_from_a_bundle_of_its_own(directory: Path) -> None:
    with GateProcess.start(directory) as gate:
        assert code(gate) == "ok"
        assert [(bundle["name"], bundle["roots"]) for bundle in bundles(gate)] == [
            ("main", None),
            ("freeze", ["freeze"]),
        ]
        frozen(directory, "servicenow")
        os.kill(gate.process.pid, signal.SIGHUP)
        until("the freeze", lambda: True if code(gate) == "denied" else None)
        frozen(directory)
        os.kill(gate.process.pid, signal.SIGHUP)
        until("the thaw", lambda: True if code(gate) == "ok" else None)


@pytest.fixture
def service(tmp_path: Path, directory: Path) -> Iterator[ServiceProcess]:
    """A service for the data bundle alone, which the gate is set to follow."""
    key = directory / "keys" / "bundle.pem"
    made = ServiceProcess.prepare(tmp_path / "service", key, ttl_seconds=LEASE_SECONDS, name="freeze")
    with made.running():
        assert made.publish(directory / "freeze.tar.gz").returncode == 0
        full, data = read_config(directory)["bundles"]
        edit_config(directory, {"bundles": [data]})
        follow(directory, made)
        edit_config(directory, {"bundles": [full, *read_config(directory)["bundles"]]})
        yield made


def test_calls_stop_when_only_the_lease_of_the_data_has_ended(service: ServiceProcess, directory: Path) -> None:
    with GateProcess.start(directory) as gate:
        assert code(gate) == "ok"
        assert service.publish(frozen(directory, "servicenow")).returncode == 0
        until("the freeze", lambda: True if code(gate) == "denied" else None)
        service.stop()
        until("calls stop", lambda: True if code(gate) == "policy_stale" else None)
        service.start()
        assert service.publish(frozen(directory)).returncode == 0
        until("the thaw", lambda: True if code(gate) == "ok" else None)


REFUSED = {
    "a key that reads as a number": ('"1": x\n', "profile_violated"),
    "an object in the place of YAML": ("a: [", "yaml_invalid"),
}


@pytest.mark.parametrize("fault", REFUSED)
def test_data_is_not_signed_when_it_holds(fault: str, tmp_path: Path) -> None:
    content, expected = REFUSED[fault]
    (tmp_path / "source" / "freeze").mkdir(parents=True)
    (tmp_path / "source" / "freeze" / "data.yaml").write_text(content)
    assert tidegate("bundle", "freshness-key", "--out", str(tmp_path / "k.pem")).returncode == 0
    done = tidegate("bundle", "data", str(tmp_path / "source"), "--key", str(tmp_path / "k.pem"),
                    "--out", str(tmp_path / "out.tar.gz"), "--json")  # fmt: skip
    assert done.returncode == 1 and expected in done.stdout


def test_data_is_not_signed_when_it_stands_where_chains_stand(tmp_path: Path) -> None:
    (tmp_path / "source" / "chains").mkdir(parents=True)
    (tmp_path / "source" / "chains" / "data.yaml").write_text("{}\n")
    assert tidegate("bundle", "freshness-key", "--out", str(tmp_path / "k.pem")).returncode == 0
    done = tidegate("bundle", "data", str(tmp_path / "source"), "--key", str(tmp_path / "k.pem"),
                    "--out", str(tmp_path / "out.tar.gz"), "--json")  # fmt: skip
    assert (done.returncode, "source_invalid" in done.stdout) == (1, True)
