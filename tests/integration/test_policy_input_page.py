"""`docs/policy-input.md`: its question is what the gate asks, its decision what the library answers, and its lists are whole."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

import rego
from bundles.canonical import JsonValue
from bundles.manifest import load_manifest
from bundles.source_layout import arrange_source
from gateway.api.operations import OPERATIONS, action_name
from gateway.approvals.model import Approval, ApprovalState, Step, StepState, Vote
from gateway.approvals.render import approval_facts
from gateway.connectors.arguments import SchemaSet
from gateway.connectors.classify import ActionTable
from gateway.connectors.outbound import header_policy
from gateway.edge.headers import NO_PREFERENCE
from gateway.edge.identity import Subject
from gateway.flow.describe import held_call, policy_input
from gateway.flow.prepare import prepare_api
from gateway.flow.values import ApiRequest, GovernedCall, InstancePlan, Trace
from pdp.decided import Decided
from pdp.decision_document import _OBLIGATIONS, parse_decision
from pdp.documents import ApprovalObligation, Decision, Effect, encode_input
from pdp.errors import DecisionRefused
from tests.integration.pages import blocks, names, page, rows, section

PAGE = page("policy-input.md")
QUESTION, APPROVAL = [json.loads(block.text) for block in blocks(section(PAGE, "## The input document"))]
DECISION = json.loads(blocks(section(PAGE, "## The decision document"))[0].text)
CHAINS = json.loads(blocks(section(PAGE, "## Chains"))[0].text)
EXAMPLE = {
    name: block.text
    for block in blocks(section(page("connectors.md"), "## A new connector"))
    for name in names(block.before)[-1:]
}
"""The files of the connector whose call the page shows, by their names."""
LIBRARY = rego.root() / "lib" / "tidegate"
ANYWHERE = frozenset({"*"})
_FUNCTION = re.compile(r"^([a-z][a-z0-9_]*)(?:\(([^)\n]*)\))? (?:if|:=)", re.MULTILINE)
_FORM = re.compile(
    r"^well_formed_(\w+)\(element\) if \{\n.*?(?:only_keys\(element, |keys\(element\) == )\{([^}]*)\}", re.S | re.M
)


def _plan() -> InstancePlan:
    """The page's connector at one instance, from the files of its own page."""
    at = "demo/bundle/connectors/parcels/"
    files = {name.removeprefix("demo/bundle/"): text.encode() for name, text in EXAMPLE.items() if name.startswith(at)}
    arranged = arrange_source(files, {})
    manifest = load_manifest(json.loads(arranged.data_files["connectors/parcels/data.json"]))
    table, schemas, headers = ActionTable(manifest), SchemaSet(manifest), header_policy(manifest)
    return InstancePlan(
        "parcels", manifest, table, schemas, headers, ANYWHERE, ANYWHERE, ANYWHERE, "http://127.0.0.1:1", False, False
    )


def _subject() -> Subject:
    """Who asks in the page's question."""
    subject = QUESTION["subject"]
    said = subject["properties"]
    return Subject(
        id=subject["id"],
        type=subject["type"],
        issuer="urn:tidegate:development",
        tenant=said["tenant"],
        workspace=said["workspace"],
        environment=said["environment"],
        roles=tuple(said["roles"]),
        acr=said["acr"],
        amr=tuple(said["amr"]),
        auth_time=said["auth_time"],
        on_behalf_of=said["on_behalf_of"],
        actors=(subject["id"],),
        people=False,
        expires_at=0,
    )


def _call() -> GovernedCall:
    """The call that the page describes, made as `POST /v1/calls` makes it."""
    context = QUESTION["context"]
    asked = ApiRequest(
        context["call"],
        _plan(),
        _subject(),
        QUESTION["action"]["name"],
        QUESTION["args"],
        None,
        context["ticket"],
        context["run"]["id"],
        "",
        NO_PREFERENCE,
        1795348530.25,
    )
    return prepare_api(asked, Trace(context["call"], "parcels", "parcels"))


def _approval(call: GovernedCall) -> Approval:
    decided = Decided(Decision(Effect.REQUIRE_HITL), "r", "sha256:b", 1, "wasm", "d", "sha256:i", 0.0)
    held = held_call(call, decided, ApprovalObligation(("one-approver",)), CHAINS["one-approver"])
    said = APPROVAL["votes"][0]
    vote = Vote(said["voter"], "urn:tidegate:development", said["decision"], "seen", 1)
    step = Step(said["step"], StepState.APPROVED, ("approver",), 1, (vote,))
    ends = (ApprovalState.APPROVED, APPROVAL["action_digest"], "", "", held, (step,), "", 1, 2)
    return Approval(APPROVAL["id"], 2, *ends)


def _asked(approval: bool) -> dict[str, Any]:
    call = _call()
    question = policy_input(call, now=call.received_unix, approval=_approval(call) if approval else None)
    document: dict[str, Any] = orjson.loads(encode_input(question))
    return document


def _paths(value: JsonValue, before: str = "") -> Iterator[str]:
    """The members at the ends of a document, as the page writes them; arguments are the action's own."""
    if isinstance(value, dict) and before != "args":
        for name, inner in value.items():
            yield from _paths(inner, f"{before}.{name}" if before else name)
    elif isinstance(value, list) and value and isinstance(value[0], dict):
        yield from _paths(value[0], before + "[]")
    else:
        yield before


def test_question_of_the_page_is_what_the_gate_asks_about_that_call() -> None:
    assert _asked(approval=False) == QUESTION


def test_approval_of_the_page_is_what_policy_sees_when_it_is_used() -> None:
    assert _asked(approval=True)["context"].pop("approval") == APPROVAL
    assert approval_facts(_approval(_call())) == APPROVAL


def test_page_names_each_member_of_a_question_and_no_other() -> None:
    told = [name for cells in rows(section(PAGE, "## The input document")) for name in names(cells[0])]
    assert sorted(told) == sorted(_paths(_asked(approval=True)))


def _decided(opa: Path, tmp_path: Path, question: dict[str, Any]) -> Any:
    policy = tmp_path / "parcels.rego"
    policy.write_text(EXAMPLE["demo/bundle/policies/parcels/parcels.rego"], encoding="utf-8")
    command = [
        str(opa),
        "eval",
        "--format",
        "raw",
        "-I",
        "-d",
        str(LIBRARY),
        "-d",
        str(policy),
        "data.tidegate.decision",
    ]
    done = subprocess.run(command, input=json.dumps(question).encode(), capture_output=True, check=True, timeout=60)
    return json.loads(done.stdout)


def test_decision_of_the_page_is_what_the_library_answers(opa_path: Path, tmp_path: Path) -> None:
    assert _decided(opa_path, tmp_path, QUESTION) == DECISION
    approved = _decided(opa_path, tmp_path, _asked(approval=True))
    assert (approved["effect"], approved["obligations"]) == ("ALLOW", {})


def test_decision_of_the_page_is_accepted_with_its_chain() -> None:
    decision = parse_decision(json.dumps(DECISION).encode(), chains=CHAINS)
    assert (decision.effect, decision.approval) == (
        Effect.REQUIRE_HITL,
        ApprovalObligation(("one-approver",), decide_within_seconds=3600),
    )


TERMS: dict[str, Any] = {
    "approval": {"chains": ["one-approver"]},
    "cache_seconds": 60,
    "step_up": {"acr_values": ["phr"], "max_age_seconds": 60},
    "throttle": [{"key": "k", "limit": 1, "window_seconds": 60}],
    "route": {"target": "t", "fallback": ["u"]},
    "budget": [{"key": "k", "amount": "0.40", "currency": "USD"}],
    "redact": ["/args/street"],
    "response": {"redact": ["$.a"], "max_bytes": 10},
}
NEEDS = {
    "approval": "REQUIRE_HITL",
    "step_up": "REQUIRE_STEP_UP",
    "throttle": "THROTTLE",
    "route": "ROUTE",
}


def _code(effect: str, obligations: dict[str, Any]) -> str:
    """How the gate takes a decision: `enforced`, or the code of its refusal."""
    document = {"effect": effect, "reasons": [], "obligations": obligations}
    try:
        parse_decision(json.dumps(document).encode(), chains=CHAINS, cacheable=True)
    except DecisionRefused as refused:
        return refused.code
    return "enforced"


def test_page_lists_each_obligation_and_how_it_is_taken() -> None:
    table = [cells for cells in rows(section(PAGE, "## The decision document")) if len(cells) == 3]
    assert {cells[0].strip("`") for cells in table} == set(_OBLIGATIONS) == set(TERMS)
    for cells in table:
        name = cells[0].strip("`")
        code = _code(NEEDS.get(name, "ALLOW"), {name: TERMS[name]})
        assert code in cells[2], name
        terms = TERMS[name][0] if isinstance(TERMS[name], list) else TERMS[name]
        if isinstance(terms, dict):
            assert set(terms) <= set(names(cells[1])), name
            foreign = {**terms, "another": 1}
            assert _code(NEEDS.get(name, "ALLOW"), {name: foreign}) == "decision_malformed", name


def test_page_lists_each_effect_and_how_it_is_taken() -> None:
    table = [cells for cells in rows(section(PAGE, "## The decision document")) if len(cells) == 2]
    told = {
        name: "not_supported" if "`not_supported`" in cells[1] else "enforced"
        for cells in table
        for name in names(cells[0])
    }
    assert set(told) == {effect.value for effect in Effect}
    for effect, taken in told.items():
        needed = {name: TERMS[name] for name, needing in NEEDS.items() if needing == effect}
        assert _code(effect, needed) == taken, effect


CHAINS_NOT_YET: dict[str, Any] = {
    "several steps": {"steps": [{"id": "a", "role": "x"}, {"id": "b", "role": "y"}]},
    "parallel": {"steps": [{"id": "a", "parallel": [{"role": "x"}, {"role": "y"}]}]},
    "when": {"steps": [{"id": "a", "role": "x", "when": "environment == prod"}]},
    "a larger quorum": {"steps": [{"id": "a", "role": "x", "quorum": 2}]},
}


@pytest.mark.parametrize("words", CHAINS_NOT_YET)
def test_chain_is_not_supported_when_the_page_says_so(words: str) -> None:
    assert words in section(PAGE, "## Chains").replace("`", "")
    decision = {"effect": "REQUIRE_HITL", "reasons": [], "obligations": {"approval": {"chains": ["long"]}}}
    with pytest.raises(DecisionRefused) as refused:
        parse_decision(json.dumps(decision).encode(), chains={"long": CHAINS_NOT_YET[words]})
    assert refused.value.code == "not_supported"


def test_page_has_the_members_of_each_rule_as_the_library_takes_them() -> None:
    forms: dict[str, set[str]] = {}
    for form, members in _FORM.findall((LIBRARY / "forms.rego").read_text(encoding="utf-8")):
        forms.setdefault(form, set()).update(re.findall(r'"([^"]+)"', members))
    called = {"hold": "require_hitl", "step_up": "require_step_up", "redaction": "redact"}
    expected = {called.get(form, form): members for form, members in forms.items()} | {"deny": {"code", "message"}}
    told = {cells[0].strip("`"): set(names(cells[1])) for cells in rows(section(PAGE, "## What a policy says"))}
    told["redact"] = {"args", "response"} & told["redact"]
    assert told == expected | {"redact": {"args", "response"}}


def test_page_names_each_helper_with_its_parameters_and_no_other() -> None:
    text = (LIBRARY / "helpers.rego").read_text(encoding="utf-8")
    told = [name for cells in rows(section(PAGE, "## Helpers")) for name in names(cells[0])]
    found = {(name, tuple(re.findall(r"[a-z_]+", parameters))) for name, parameters in _FUNCTION.findall(text)}
    named = {(name.partition("(")[0], tuple(re.findall(r"[a-z_]+", name.partition("(")[2]))) for name in told}
    assert {name for name, _ in named} == {name for name, _ in found}
    assert named <= found
    assert len(told) == len(named)


def test_page_has_each_operation_with_the_roles_that_the_starter_grants_it(opa_path: Path) -> None:
    policy = rego.root() / "starter" / "policies" / "tidegate" / "tidegate.rego"
    command = [str(opa_path), "eval", "--format", "raw", "-d", str(policy), "data.policies.tidegate.operations"]
    granted = json.loads(subprocess.run(command, capture_output=True, check=True, timeout=60).stdout)
    told = {
        name: set(cells[2].split(", "))
        for cells in rows(section(PAGE, "## Operations of the gate"))
        for name in names(cells[0])
    }
    expected = {
        name: {role for role, operations in granted.items() if name in operations}
        for name in map(action_name, OPERATIONS)
    }
    assert told == expected
