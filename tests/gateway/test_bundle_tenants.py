"""A bundle decides for its own tenants only, whichever way the question comes in."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.e2e.harness import edit_config
from tests.e2e.raw import Answer
from tests.gateway.envoy.questions import http_request, question, status_of
from tests.gateway.envoy.test_server import client
from tests.gateway.started import INCIDENTS, Started, started
from tests.integration.envoy_mesh import HOST, mesh_directory

READ = {"instance": "servicenow", "action": "incident.list", "arguments": {}}
EVALUATION = {
    "subject": {"type": "agent", "id": "bot"},
    "action": {"name": "servicenow.incident.list"},
    "resource": {"type": "incident", "id": "INC1", "properties": {"instance": "servicenow"}},
}
WAYS = {
    "a call through the proxy": ("GET", INCIDENTS, None),
    "a call in our own words": ("POST", "/v1/calls", READ),
    "a simulated call": ("POST", "/v1/simulate", READ),
    "an evaluation of AuthZEN": ("POST", "/access/v1/evaluation", EVALUATION),
    "an operation of the gate": ("GET", "/v1/enforcement", None),
}


def _tenants(directory: Path, *tenants: str) -> dict[str, Any]:
    document = yaml.safe_load((directory / "tidegate.yaml").read_text(encoding="utf-8"))
    return {"bundles": [{**document["bundles"][0], "tenants": [*tenants]}]}


@pytest.fixture
def mesh(starter_directory: Path, tmp_path: Path) -> Path:
    """A directory with an instance that Envoy may ask about; its bundle is of one tenant."""
    directory = mesh_directory(shutil.copytree(starter_directory, tmp_path / "mesh"), address="127.0.0.1:0")
    edit_config(directory, _tenants(directory, "acme"))
    return directory


async def test_envoy_is_denied_when_the_bundle_is_of_other_tenants(mesh: Path, tmp_path: Path) -> None:
    async with started(mesh, tmp_path / "gate") as gate:
        door = (await gate.until_logged(what="listening"))["ext_authz"]
        async with client(door) as ask:
            for tenant, status in (("globex", 503), ("acme", 200)):
                bearer = (("authorization", f"Bearer {gate.token(tenant=tenant)}"),)
                http = http_request(target="/api/notes/a1", headers=bearer, host=HOST)
                assert status_of(await ask(question(http), timeout=10)) == status
        line = await gate.until_logged(event="call", tenant="globex")
        assert line["code"] == "policy_unavailable"


@pytest.fixture
async def of_acme(starter_directory: Path, tmp_path: Path) -> AsyncIterator[Started]:
    changes = _tenants(starter_directory, "acme", "initech")
    async with started(starter_directory, tmp_path / "gate", changes) as gate:
        yield gate


async def _asked(gate: Started, way: str, tenant: str) -> Answer:
    method, target, body = WAYS[way]
    return await gate.ask(method, target, body, tenant=tenant, roles=("operator", "triage"))


@pytest.mark.parametrize("way", WAYS)
async def test_nothing_is_decided_when_the_bundle_is_of_other_tenants(of_acme: Started, way: str) -> None:
    answer = await _asked(of_acme, way, "globex")
    assert (answer.status, b"policy_unavailable" in answer.body) == (503, True)
    decided = await _asked(of_acme, way, "initech")
    assert b"policy_unavailable" not in decided.body


async def test_tenant_is_decided_for_no_more_when_a_reload_took_it_out(of_acme: Started) -> None:
    way = "an operation of the gate"
    assert (await _asked(of_acme, way, "initech")).status == 200
    assert await of_acme.reload(_tenants(of_acme.directory, "acme")), of_acme.lines(what="reload_refused")
    assert (await _asked(of_acme, way, "initech")).code == "policy_unavailable"
    assert (await _asked(of_acme, way, "acme")).status == 200


async def test_kill_switch_is_set_by_emergency_roles_when_no_bundle_decides_for_their_tenant(of_acme: Started) -> None:
    answer = await of_acme.ask(
        "PUT", "/v1/switches/tenant/globex", {"reason": "stop"}, tenant="globex", roles=("operator",)
    )
    assert answer.status == 200
