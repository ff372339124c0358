"""`tidegate call`: what is sent for the text of a shell, and what is said of a refusal."""

from __future__ import annotations

import json
from typing import Any

import pytest

from cli.call import fitted
from tests.e2e.harness import GateProcess, tidegate


def _wrong(*pointers: str) -> list[dict[str, str]]:
    return [{"pointer": pointer, "message": "the value is not of the type"} for pointer in pointers]


@pytest.mark.parametrize(
    ("pairs", "errors", "sent"),
    [
        pytest.param(["n=5"], _wrong("/n"), {"n": 5}, id="a whole number"),
        pytest.param(["n=0.5"], _wrong("/n"), {"n": 0.5}, id="a fraction"),
        pytest.param(["on=true"], _wrong("/on"), {"on": True}, id="a boolean"),
        pytest.param(['of=["a"]'], _wrong("/of"), {"of": ["a"]}, id="a list"),
        pytest.param(["n=5", "id=7"], _wrong("/n"), {"n": 5, "id": "7"}, id="only what was named"),
        pytest.param(["a/b~c=5"], _wrong("/a~1b~0c"), {"a/b~c": 5}, id="a name that a pointer escapes"),
    ],
)
def test_arguments_are_read_again_when_the_gate_names(
    pairs: list[str], errors: list[dict[str, str]], sent: dict[str, Any]
) -> None:
    assert fitted(pairs, errors) == sent


@pytest.mark.parametrize(
    ("pairs", "errors"),
    [
        pytest.param(["n=five"], _wrong("/n"), id="text that is no JSON"),
        pytest.param(["n=NaN"], _wrong("/n"), id="a number that JSON does not have"),
        pytest.param(["n=007"], _wrong("/n"), id="digits that are no number"),
        pytest.param(["n:=5"], _wrong("/n"), id="a number whose type was said"),
        pytest.param(['n:="5"'], _wrong("/n"), id="a text whose type was said"),
        pytest.param(["n=5"], _wrong("/m"), id="another argument"),
        pytest.param(["n=5"], _wrong("/n/deeper"), id="a place inside of one"),
        pytest.param(["n=5"], _wrong(""), id="no argument"),
        pytest.param(["n=5"], None, id="nothing"),
        pytest.param(["n=5"], ["/n"], id="something that is no object"),
    ],
)
def test_arguments_stay_as_given_when_the_gate_names(pairs: list[str], errors: Any) -> None:
    assert fitted(pairs, errors) is None


def _called(gate: GateProcess, *arguments: str) -> tuple[int, dict[str, Any]]:
    given = [part for argument in arguments for part in ("--arg", argument)]
    token = gate.token("triage-bot", "triage")
    done = tidegate("call", "servicenow", "servicenow.incident.list", *given, "--json", gate=gate.url, token=token)
    return done.returncode, json.loads(done.stdout)


@pytest.mark.parametrize("limit", ["sysparm_limit=1", "sysparm_limit:=1"], ids=["as text", "with its type"])
def test_call_is_made_when_a_number_is_given(gate: GateProcess, limit: str) -> None:
    status, said = _called(gate, limit)
    assert (status, said["effect"], said["status"]) == (0, "ALLOW", 200)
    assert len(said["response"]["result"]) == 1


@pytest.mark.parametrize(
    "argument",
    [
        pytest.param("sysparm_limit=many", id="no number"),
        pytest.param("sysparm_limit=10001", id="a number that is too large"),
        pytest.param('sysparm_limit:="1"', id="text on purpose"),
    ],
)
def test_call_is_refused_and_the_argument_named_when_it_is(gate: GateProcess, argument: str) -> None:
    status, said = _called(gate, argument)
    assert (status, said["error"]["code"]) == (1, "arguments_invalid")
    assert "/sysparm_limit: " in said["error"]["detail"]
