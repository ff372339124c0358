"""`tidegate call`: what is sent for the text of a shell, and what is said of a refusal."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import jsonschema_rs
import pytest

from cli.call import fitted, parse_arguments
from cli.gate_call import with_errors
from tests.cli.gate_stub import gate_stub
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


AMOUNT = {"type": "object", "properties": {"amount": {"type": "string", "maxLength": 12}, "n": {"type": "integer"}}}


def _validating(problem: str) -> Callable[[str, str, bytes], tuple[int, str, Any]]:
    """Answers as a gate whose action takes AMOUNT."""
    validator = jsonschema_rs.Draft202012Validator(AMOUNT, mask="the value")

    def answering(_method: str, _path: str, body: bytes) -> tuple[int, str, Any]:
        errors = [
            {"pointer": "".join(f"/{part}" for part in error.instance_path), "message": error.message}
            for error in validator.iter_errors(json.loads(body)["arguments"])
        ]
        document = {"code": problem, "detail": errors[0]["message"], "errors": errors}
        return 422, "application/problem+json", document

    return answering


@pytest.mark.parametrize(
    ("given", "said"),
    [
        pytest.param(["amount=12345.678901234"], ["/amount: the value is longer than 12 characters"], id="a long text"),
        pytest.param(["n=many"], ['/n: the value is not of type "integer"'], id="text for a number"),
        pytest.param(
            ["amount=12345.678901234", "n=5"], ["/amount: the value is longer than 12 characters"], id="one of two"
        ),
        pytest.param(["n=1.5"], ['/n: the value is not of type "integer"'], id="another number"),
    ],
)
def test_call_says_what_is_wrong_once_when_neither_text_nor_json_fits(given: list[str], said: list[str]) -> None:
    with gate_stub(bodies=_validating("arguments_invalid")) as stub:
        arguments = [part for each in given for part in ("--arg", each)]
        done = tidegate("call", "x", "x.y.z", *arguments, "--json", gate=stub.url, token="t")
    assert (done.returncode, json.loads(done.stdout)["error"]["detail"]) == (1, "; ".join(said))


def test_call_says_the_second_refusal_when_it_is_another() -> None:
    def answering(_method: str, _path: str, body: bytes) -> tuple[int, str, Any]:
        if json.loads(body)["arguments"]["n"] == 5:
            return 403, "application/problem+json", {"code": "denied", "detail": "no"}
        return 422, "application/problem+json", {"code": "arguments_invalid", "errors": _wrong("/n")}

    with gate_stub(bodies=answering) as stub:
        done = tidegate("call", "x", "x.y.z", "--arg", "n=5", "--json", gate=stub.url, token="t")
    assert json.loads(done.stdout)["error"] == {"code": "denied", "detail": "no"}


@pytest.mark.parametrize(
    ("detail", "errors", "said"),
    [
        pytest.param("gone", [{"pointer": "", "message": "gone"}], "gone", id="once for the whole"),
        pytest.param("gone", [{"pointer": "/a", "message": "gone"}], "/a: gone", id="once for a place"),
        pytest.param("unknown", [{"pointer": "/a"}], "unknown — /a", id="a place without a sentence"),
        pytest.param("gone", None, "gone", id="no places"),
        pytest.param("gone", [7], "gone", id="what is no place"),
    ],
)
def test_refusal_is_said_once_when_it_has(detail: str, errors: Any, said: str) -> None:
    assert with_errors(detail, errors) == said


@pytest.mark.parametrize("argument", ["x:=y", "x:=NaN", "x:=" + "[" * 100_000], ids=["text", "no number", "nesting"])
def test_argument_is_named_when_its_value_is_no_json(argument: str) -> None:
    with pytest.raises(ValueError, match=r"x:= is no JSON .*; x=… sends it as text"):
        parse_arguments([argument])


@pytest.mark.parametrize("state", ["held", "done"])
def test_call_says_to_send_it_again_only_while_it_is_held(state: str) -> None:
    call = {"id": "c", "state": state, "effect": "ALLOW", "approval": {"id": "a"}, "status": 201, "response": None}
    with gate_stub(lambda *_: (200, "application/json", call)) as stub:
        done = tidegate("call", "x", "x.y.z", gate=stub.url, token="t")
    assert ("send the same call again" in done.stdout) is (state == "held")


def test_token_is_asked_for_when_there_is_none(gate: GateProcess) -> None:
    done = tidegate("call", "servicenow", "servicenow.incident.list", gate=gate.url)
    assert done.returncode == 1 and "TIDEGATE_TOKEN" in done.stderr and "--token-file" in done.stderr
