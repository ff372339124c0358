"""OPA's own cases through the OPA adapter and a real server: none that can be asked is answered otherwise."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.agreement.adapter import (
    ANCHOR,
    ANCHORED,
    ORDINARY,
    OWN_BUNDLE,
    RESERVED,
    UNDEFINED,
    AdapterJudge,
    PutRefused,
    serving,
)
from tests.agreement.cases import Case, all_cases
from tests.agreement.page import asked
from tests.integration.opa_process import OpaProcess

STRIDE = 70
ERRING_STRIDE = 9
HELD = {ANCHOR: {"held": True}}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, opa_path: Path) -> Iterator[OpaProcess]:
    """A server that cases are put into."""
    with serving(tmp_path_factory.mktemp("opa")) as running:
        yield running


@pytest.fixture
async def judge(server: OpaProcess, opa_path: Path) -> AsyncIterator[AdapterJudge]:
    """Puts cases into the server."""
    async with AdapterJudge.at(server, opa_path) as made:
        yield made


def _case(*modules: str, **changes: Any) -> Case:
    texts = modules or ("package x\n\np := [1, 2]\n",)
    return replace(Case("x", "x/x", "data.x.p = x", texts, {}, {}, True, None, False, False, False), **changes)


@pytest.mark.timeout(300)
async def test_a_sample_of_opas_cases_agrees_and_leaves_nothing_in_the_server(judge: AdapterJudge) -> None:
    erring = [case for case in all_cases() if case.wants_error and not case.only_strict]
    found = [await judge.judge(case) for case in (*all_cases()[::STRIDE], *erring[::ERRING_STRIDE])]
    assert [judgement for judgement in found if judgement.end not in ("agrees", "error as wanted")] == []
    assert {judgement.end for judgement in found} == {"agrees", "error as wanted"}
    assert {judgement.detail for judgement in found if judgement.end == "agrees"} == {"", UNDEFINED}
    assert await judge.held() == HELD


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_all_of_opas_cases_agree_or_are_named_with_why_they_cannot_be_asked() -> None:
    found = asked(range(len(all_cases())))
    assert [judgement for judgement in found if judgement.end == "differs"] == []
    assert [judgement.note for judgement in found] == [case.note for case in all_cases()]
    assert [one for one in found if one.end == "cannot be asked" and not one.reason] == []


CONFLICT = "package x\n\np := v if some v in [1, 2]\n"
NOTHING = "package x\n\np := 1 if false\n"
STRICT = 'package x\n\np := to_number("a")\n'
CIRCLE = (
    "package x\n\nimport data.y\n\np := y.f(2)\n\ng(n) := n + 1\n",
    "package y\n\nimport data.x\n\nf(n) := x.g(n)\n",
)
ENDS = {
    "the value is the wanted one": (_case(bindings=({"x": [1, 2]},)), "agrees"),
    "there is no value and none is wanted": (_case(NOTHING, bindings=()), "agrees"),
    "a builtin is outside the profile": (_case('package x\n\np := sprintf("%d", [1])\n', bindings=({"x": "1"},)), "agrees"),
    "a query has several answers": (_case(query="data.x.p[_] = x", bindings=({"x": 2}, {"x": 1})), "agrees"),
    "a set has another order": (_case('package x\n\np := {"b", "a"}\n', bindings=({"x": ["a", "b"]},)), "agrees"),
    "data has a key that a path must escape": (
        _case("package x\n\np := data[\"a/b %\"].c\n", data={"a/b %": {"c": 5}}, bindings=({"x": 5},)),
        "agrees",
    ),
    "the input is a number": (_case("package x\n\np := input\n", input_document=7, bindings=({"x": 7},)), "agrees"),
    "a module is named before the one it calls": (
        _case("package x\n\nimport data.y\n\np := y.f(1)\n", "package y\n\nf(n) := n\n", bindings=({"x": 1},)),
        "agrees",
    ),
    "the value is another one": (_case(bindings=({"x": [1, 3]},)), "differs"),
    "a list has another order": (_case(bindings=({"x": [2, 1]},)), "differs"),
    "there is a value and none is wanted": (_case(bindings=()), "differs"),
    "there is none and one is wanted": (_case(NOTHING, bindings=({"x": 1},)), "differs"),
    "an answer comes once and is wanted twice": (_case(bindings=({"x": [1, 2]}, {"x": [1, 2]})), "differs"),
    "an error is wanted and comes": (_case(CONFLICT, wants_error=True), "error as wanted"),
    "an error is wanted and a value comes": (_case(wants_error=True), "differs"),
    "an error is wanted and nothing comes": (_case(NOTHING, wants_error=True), "differs"),
    "an error comes and a value is wanted": (_case(CONFLICT, bindings=({"x": 1},)), "differs"),
    "an error comes and nothing is wanted": (_case(CONFLICT, bindings=()), "differs"),
    "an error comes that only strict mode may give": (_case(CONFLICT, wants_error=True, only_strict=True), "differs"),
    "the input is no JSON": (_case(input_document=None), "cannot be asked"),
    "a builtin does not exist": (_case("package x\n\np := test.sleep(1)\n"), "cannot be asked"),
    "a module does not parse": (_case("package x\n\np := := 1\n"), "cannot be asked"),
    "data stands where a rule does": (_case(data={"x": {"p": 1}}), "cannot be asked"),
    "the query is over all data": (_case(query="data[i] = x"), "cannot be asked"),
    "the server's own settings are asked": (_case("package x\n\np := opa.runtime()\n"), "cannot be asked"),
}  # fmt: skip


@pytest.mark.parametrize(("case", "end"), ENDS.values(), ids=ENDS.keys())
async def test_a_case_ends_so_through_the_adapter_when(case: Case, end: str, judge: AdapterJudge) -> None:
    found = await judge.judge(case)
    assert found.end == end, found
    assert found.reason or found.end in ("agrees", "error as wanted")
    assert await judge.held() == HELD


@pytest.mark.parametrize("name", sorted(RESERVED))
async def test_a_case_is_not_put_when_it_uses_a_name_of_the_server(name: str, judge: AdapterJudge) -> None:
    for case in (_case(f"package {name}\n\np := 1\n"), _case(f"package {name}.x\n\np := 1\n"), _case(data={name: 1})):
        found = await judge.judge(case)
        assert (found.end, found.reason) == ("cannot be asked", f"a package or data named {name}")
    assert await judge.held() == HELD


async def test_a_case_is_served_as_a_bundle_when_its_modules_call_each_other(judge: AdapterJudge) -> None:
    found = await judge.judge(_case(*CIRCLE, bindings=({"x": 3},)))
    assert (found.end, found.reason) == ("agrees", OWN_BUNDLE)
    assert (await judge.judge(_case(*CIRCLE, bindings=({"x": 4},)))).end == "differs"
    assert await judge.held() == HELD


async def test_a_refusal_says_the_same_each_time_when_opa_names_any_rule_of_a_circle(judge: AdapterJudge) -> None:
    found = {(await judge.judge(_case(query="data[i] = x"))).reason for _ in range(5)}
    assert found == {"rego_recursion_error: the query is over all data, and what asks is part of it"}


async def test_a_case_is_compared_with_the_ordinary_mode_when_its_error_is_a_strict_one(judge: AdapterJudge) -> None:
    found = await judge.judge(_case(STRICT, wants_error=True, only_strict=True))
    assert (found.end, found.reason, found.detail) == ("agrees", ORDINARY, UNDEFINED)


async def test_no_case_agrees_when_the_server_holds_another_revision(tmp_path: Path, opa_path: Path) -> None:
    with serving(tmp_path, ANCHORED, revision="r0") as behind:
        async with AdapterJudge.at(behind, opa_path) as judge:
            found = [
                await judge.judge(case) for case in (_case(bindings=({"x": [1, 2]},)), _case(NOTHING, bindings=()))
            ]
    assert [(one.end, one.reason) for one in found] == [("differs", "the engine failed")] * 2
    assert "['r0']" in found[0].detail


async def test_taking_out_fails_when_the_server_keeps_what_was_put(judge: AdapterJudge) -> None:
    with pytest.raises(RuntimeError, match="stays in the server"):
        await judge.take_out(f"data/{ANCHOR}")
    with pytest.raises(PutRefused):
        await judge.put(f"data/{ANCHOR}", b"1")
    assert await judge.held() == HELD
