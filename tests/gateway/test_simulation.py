"""A typed call as the question the gate would put for it."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from bundles.manifest import ConnectorManifest, load_manifests
from bundles.source import read_source
from gateway.edge.identity import Subject
from gateway.errors import Refusal
from gateway.simulation import (
    NAME_MAX_CHARACTERS,
    NAMES_MAX_COUNT,
    TypedCall,
    is_about,
    overridden,
    plan_of,
    tenant_of,
    typed_question,
)
from pdp.simulate import check_question
from tests.rego.rebuild import STARTER

ALICE = Subject(
    id="alice",
    type="user",
    issuer="urn:people",
    tenant="acme",
    workspace="ops",
    environment="prod",
    roles=("triage",),
    acr=None,
    amr=("pwd",),
    auth_time=5,
    on_behalf_of=None,
    actors=(),
    people=True,
    expires_at=0,
)
UPDATE = TypedCall("servicenow", "incident.update", {"sys_id": "1" * 32, "work_notes": "w"}, "T1", "R1")


@pytest.fixture(scope="module")
def manifest() -> ConnectorManifest:
    """ServiceNow's manifest as it ships."""
    raw = read_source(STARTER).data_files["connectors/servicenow/data.json"]
    return load_manifests({"connectors": {"servicenow": orjson.loads(raw)}})["servicenow"]


def question(manifest: ConnectorManifest, typed: TypedCall = UPDATE, subject: Subject = ALICE) -> dict[str, Any]:
    return typed_question(plan_of(manifest, "servicenow"), subject, typed, call_id="c1", now=1_800_000_000.0)


def test_question_has_everything_a_calls_would_have(manifest: ConnectorManifest) -> None:
    asked = question(manifest)
    assert check_question(asked) is asked
    assert asked["action"] == {
        "name": "servicenow.incident.update",
        "properties": {
            name: getattr(manifest_action(manifest), name) for name in ("mode", "risk", "reversible", "idempotent")
        },
    }
    assert (asked["resource"]["type"], asked["resource"]["id"]) == ("incident", "1" * 32)
    assert asked["args"]["work_notes"] == "w"
    assert (asked["context"]["ticket"], asked["context"]["run"]["id"]) == ("T1", "R1")
    assert asked["context"]["request"]["method"] in ("PATCH", "PUT")
    assert is_about(asked, ALICE) and tenant_of(asked) == ("acme", "ops")


def manifest_action(manifest: ConnectorManifest) -> Any:
    return next(action for action in manifest.actions if action.name == "servicenow.incident.update")


def test_question_is_the_same_when_the_action_is_named_in_full(manifest: ConnectorManifest) -> None:
    assert question(manifest, UPDATE._replace(action="servicenow.incident.update")) == question(manifest)


@pytest.mark.parametrize(
    ("typed", "code"),
    [
        pytest.param(UPDATE._replace(action="nosuch"), "unclassified", id="no such action"),
        pytest.param(UPDATE._replace(arguments={}), "arguments_invalid", id="a missing argument"),
        pytest.param(UPDATE._replace(arguments={**UPDATE.arguments, "x": 1}), "arguments_invalid", id="one too many"),
        pytest.param(UPDATE._replace(ticket="t" * 1000), "malformed_request", id="a ticket that is too long"),
    ],
)
def test_question_is_refused_as_the_call_would_be(manifest: ConnectorManifest, typed: TypedCall, code: str) -> None:
    with pytest.raises(Refusal) as caught:
        question(manifest, typed)
    assert caught.value.code == code


def test_subject_is_another_where_members_are_given() -> None:
    other = overridden(ALICE, {"id": "bob", "roles": ["operator"], "amr": [], "environment": "dev", "auth_time": 0})
    assert (other.id, other.roles, other.amr, other.environment, other.auth_time) == (
        "bob",
        ("operator",),
        (),
        "dev",
        0,
    )
    assert (other.tenant, other.workspace, other.type) == ("acme", "ops", "user")
    assert overridden(ALICE, {}) == ALICE


@pytest.mark.parametrize(
    ("name", "value"),
    [
        pytest.param("tenant", "evil", id="the tenant"),
        pytest.param("workspace", "other", id="the workspace"),
        pytest.param("issuer", "urn:evil", id="the issuer"),
        pytest.param("people", True, id="being a person"),
        pytest.param("id", "", id="no name"),
        pytest.param("id", 1, id="a number for a name"),
        pytest.param("id", None, id="nothing for a name"),
        pytest.param("id", "x" * (NAME_MAX_CHARACTERS + 1), id="a name that is too long"),
        pytest.param("roles", "triage", id="text for roles"),
        pytest.param("roles", [1], id="a number among roles"),
        pytest.param("roles", ["r"] * (NAMES_MAX_COUNT + 1), id="too many roles"),
        pytest.param("amr", {}, id="an object for a list"),
        pytest.param("auth_time", True, id="true for a time"),
        pytest.param("auth_time", -1, id="a time before all"),
        pytest.param("auth_time", 1.5, id="half a second"),
    ],
)
def test_subject_is_refused_when_it_changes(name: str, value: Any) -> None:
    with pytest.raises(Refusal) as caught:
        overridden(ALICE, {name: value})
    assert caught.value.code == "arguments_invalid"
    assert caught.value.extra["errors"][0]["pointer"] == f"/subject/{name}"  # type: ignore[index]


@pytest.mark.parametrize(
    "changed",
    [
        pytest.param({"id": "bob"}, id="another name"),
        pytest.param({"type": "agent"}, id="another type"),
        pytest.param({"properties": {}}, id="no facts"),
        pytest.param({"properties": None}, id="facts that are nothing"),
    ],
)
def test_question_is_about_somebody_else_when_it_has(manifest: ConnectorManifest, changed: dict[str, Any]) -> None:
    asked = question(manifest)
    assert not is_about({**asked, "subject": {**asked["subject"], **changed}}, ALICE)


@pytest.mark.parametrize("fact", ["acr", "autonomy", "roles", "tenant"])
def test_question_is_about_somebody_else_when_one_fact_differs(manifest: ConnectorManifest, fact: str) -> None:
    asked = question(manifest)
    asked["subject"]["properties"][fact] = "other"
    assert not is_about(asked, ALICE)


@pytest.mark.parametrize("document", [{}, {"subject": 1}, {"subject": {}}, {"subject": {"properties": []}}])
def test_tenant_is_none_when_the_question_claims_none(document: dict[str, Any]) -> None:
    assert tenant_of(document) == (None, None)
    assert not is_about(document, ALICE)
