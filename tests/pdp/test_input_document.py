"""What reaches an engine: complete, finite, bounded, integral numbers as integers."""

from __future__ import annotations

import json
import math
from enum import StrEnum
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pdp.documents import ActionFacts, PolicyInput, ResourceFacts, SubjectFacts, encode_document, encode_input
from pdp.errors import InputRefused
from pdp.input_document import INPUT_DEPTH_MAX, INPUT_MAX_BYTES, INTEGER_MAX, TIME_UNIX_MAX
from tests.pdp.parts import QUESTION, asked


def nested(depth: int) -> dict[str, Any]:
    """Objects inside one another, ``depth`` of them."""
    value: dict[str, Any] = {}
    for _ in range(depth - 1):
        value = {"a": value}
    return value


def test_encode_input_writes_the_contract_when_every_fact_is_known() -> None:
    question = asked(
        subject=QUESTION.subject._replace(acr="phr", amr=("hwk",), auth_time=1_763_735_000, on_behalf_of="ann"),
        resource=QUESTION.resource._replace(placement="agent"),
        ticket="T-1",
        run={"id": "run-1", "state": "open"},
        approval={"state": "approved", "chains": ["one-approver"]},
    )
    assert orjson.loads(encode_input(question)) == {
        "v": 1,
        "subject": {
            "type": "agent",
            "id": "triage-1",
            "properties": {
                "tenant": "acme",
                "workspace": "ops",
                "environment": "dev",
                "roles": ["triage"],
                "acr": "phr",
                "amr": ["hwk"],
                "auth_time": 1_763_735_000,
                "on_behalf_of": "ann",
            },
        },
        "action": {
            "name": "servicenow.incident.update",
            "properties": {"mode": "write", "risk": "medium", "reversible": True, "idempotent": True},
        },
        "resource": {
            "type": "incident",
            "id": "INC001",
            "properties": {"connector": "servicenow", "instance": "servicenow", "placement": "agent"},
        },
        "args": {"sys_id": "INC001", "state": 2, "note": "printer on fire"},
        "context": {
            "time": "2025-11-21T14:25:19.250Z",
            "clock": {"unix": 1_763_735_119, "weekday": "Friday", "minute_of_day": 865, "zone": "UTC"},
            "call": "call-1",
            "ticket": "T-1",
            "run": {"id": "run-1", "state": "open"},
            "approval": {"state": "approved", "chains": ["one-approver"]},
            "request": dict(QUESTION.request or {}),
        },
    }


def test_encode_input_leaves_facts_out_when_they_are_absent() -> None:
    document = orjson.loads(encode_input(asked(request=None)))
    assert document["context"].keys() == {"time", "clock", "call"}
    assert document["subject"]["properties"].keys() == {"tenant", "workspace", "environment", "roles", "amr"}
    assert document["resource"]["properties"].keys() == {"connector", "instance"}


@pytest.mark.parametrize(
    ("zone", "weekday", "minute"),
    [
        pytest.param("UTC", "Friday", 1_385, id="the same instant in UTC"),
        pytest.param("Pacific/Auckland", "Saturday", 725, id="east of the date's change it is the next day"),
        pytest.param("America/St_Johns", "Friday", 1_175, id="an offset of half an hour"),
    ],
)
def test_clock_tells_the_zones_time_when_a_zone_is_named(zone: str, weekday: str, minute: int) -> None:
    context = orjson.loads(encode_input(asked(zone=zone, time_unix=1_763_766_300)))["context"]
    assert context["time"] == "2025-11-21T23:05:00.000Z"
    assert context["clock"] == {"unix": 1_763_766_300, "weekday": weekday, "minute_of_day": minute, "zone": zone}


@pytest.mark.parametrize(
    ("given_number", "written"),
    [
        pytest.param(1.0, "1", id="an integral float"),
        pytest.param(-0.0, "0", id="negative zero"),
        pytest.param(1.5, "1.5", id="a fraction"),
        pytest.param(float(INTEGER_MAX), "9007199254740991", id="the largest integral float"),
        pytest.param(-INTEGER_MAX, "-9007199254740991", id="the smallest integer"),
        pytest.param(1e-7, "1e-7", id="a small fraction"),
        pytest.param(True, "true", id="a boolean is no number"),
    ],
)
def test_numbers_are_written_alike_when_they_are_equal(given_number: float, written: str) -> None:
    assert encode_document({"n": given_number}) == f'{{"n":{written}}}'.encode()
    assert encode_document({"n": [{"m": given_number}]}) == f'{{"n":[{{"m":{written}}}]}}'.encode()


class Word(StrEnum):
    """Text of a type of its own."""

    READ = "read"


def test_text_is_written_as_text_when_it_is_of_a_type_of_its_own() -> None:
    assert encode_document({"a": [Word.READ]}) == b'{"a":["read"]}'


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(math.nan, id="not a number"),
        pytest.param(math.inf, id="infinity"),
        pytest.param(-math.inf, id="negative infinity"),
        pytest.param(INTEGER_MAX + 1, id="an integer beyond what a double holds"),
        pytest.param(-INTEGER_MAX - 1, id="a negative integer beyond it"),
        pytest.param(1e300, id="an integral float beyond it"),
        pytest.param(2**70, id="an integer beyond 64 bits"),
        pytest.param("\ud800", id="a lone surrogate"),
        pytest.param(b"raw", id="bytes"),
        pytest.param({1, 2}, id="a set"),
        pytest.param(object(), id="an object of Python"),
        pytest.param({1: "a"}, id="a key that is a number"),
        pytest.param({None: "a"}, id="a key that is null"),
        pytest.param({"\udfff": 1}, id="a key with a lone surrogate"),
    ],
)
@pytest.mark.parametrize("place", ["args", "run", "approval", "request"])
def test_encode_input_refuses_when_a_value_is_not_plain_json(value: object, place: str) -> None:
    with pytest.raises(InputRefused) as refused:
        encode_input(asked(**{place: {"x": [value]}}))
    assert refused.value.code == "malformed_request"


@pytest.mark.parametrize(
    "document", [pytest.param([], id="a list"), pytest.param("x", id="text"), pytest.param(None, id="null")]
)
def test_encode_document_refuses_when_it_is_no_object(document: Any) -> None:
    with pytest.raises(InputRefused):
        encode_document(document)


def test_encode_input_refuses_when_arguments_are_no_object() -> None:
    with pytest.raises(InputRefused):
        encode_input(asked(args=["a"]))


@pytest.mark.parametrize("depth", [10, 250, 260, INPUT_DEPTH_MAX])
def test_encode_document_keeps_the_value_when_depth_is_allowed(depth: int) -> None:
    raw = encode_document(nested(depth))
    assert raw.count(b"{") == depth
    assert json.loads(raw) == nested(depth)


@pytest.mark.parametrize("depth", [INPUT_DEPTH_MAX + 1, 10_000, 200_000])
def test_encode_document_refuses_when_it_is_too_deep(depth: int) -> None:
    value: list[Any] = []
    for _ in range(depth - 2):
        value = [value]
    with pytest.raises(InputRefused, match="nested deeper"):
        encode_document({"a": value})


def test_arguments_count_from_the_documents_root_when_depth_is_measured() -> None:
    encode_input(asked(args=nested(INPUT_DEPTH_MAX - 1)))
    with pytest.raises(InputRefused, match="nested deeper"):
        encode_input(asked(args=nested(INPUT_DEPTH_MAX)))


def test_deep_document_is_refused_when_a_string_in_it_is_no_text() -> None:
    deep: Any = "\ud800"
    for _ in range(300):
        deep = [deep]
    with pytest.raises(InputRefused):
        encode_document({"a": deep})


def test_encode_document_refuses_one_byte_past_the_size() -> None:
    room = INPUT_MAX_BYTES - len(b'{"a":""}')
    assert len(encode_document({"a": "x" * room})) == INPUT_MAX_BYTES
    with pytest.raises(InputRefused, match="bytes"):
        encode_document({"a": "x" * (room + 1)})


@pytest.mark.parametrize(
    "instant",
    [
        pytest.param(-1, id="before 1970"),
        pytest.param(TIME_UNIX_MAX, id="milliseconds by mistake"),
        pytest.param(math.nan, id="not a number"),
        pytest.param(math.inf, id="infinity"),
    ],
)
def test_encode_input_refuses_when_the_time_is_no_instant(instant: float) -> None:
    with pytest.raises(InputRefused, match="time_unix"):
        encode_input(asked(time_unix=instant))


@pytest.mark.parametrize("zone", ["Nowhere/Town", "../../etc/passwd", "", "/etc/localtime"])
def test_encode_input_refuses_when_the_zone_is_unknown(zone: str) -> None:
    with pytest.raises(InputRefused, match="time zone"):
        encode_input(asked(zone=zone))


JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-INTEGER_MAX, INTEGER_MAX)
    | st.text(st.characters(codec="utf-8"))
    | st.floats(-1e15, 1e15, allow_nan=False),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner, max_size=4)
    ),
    max_leaves=20,
)


@given(st.dictionaries(st.text(st.characters(codec="utf-8")), JSON_VALUES, max_size=5))
def test_encode_document_says_the_same_value_when_it_is_read_again(document: dict[str, Any]) -> None:
    raw = encode_document(document)
    assert orjson.loads(raw) == document
    assert encode_document(orjson.loads(raw)) == raw


@given(
    st.dictionaries(
        st.text(), st.recursive(st.floats() | st.integers() | st.text() | st.binary(), st.lists), max_size=3
    )
)
def test_encode_document_writes_json_or_refuses_when_values_are_arbitrary(document: dict[str, Any]) -> None:
    try:
        raw = encode_document(document)
    except InputRefused:
        return
    json.loads(raw, parse_constant=lambda name: pytest.fail(name))


TEXT = st.text(st.characters(codec="utf-8"), max_size=20)
MAYBE = st.none() | TEXT
OBJECTS = st.dictionaries(TEXT, JSON_VALUES, max_size=4)


@given(
    st.lists(TEXT, min_size=9, max_size=9),
    st.lists(MAYBE, min_size=4, max_size=4),
    st.booleans(),
    st.tuples(OBJECTS, st.none() | OBJECTS, st.none() | OBJECTS, st.none() | OBJECTS),
    st.floats(0, 4e9),
)
def test_encode_input_equals_the_plain_encoding_when_it_is_spliced(
    texts: list[str], maybe: list[str | None], flag: bool, objects: tuple[Any, ...], instant: float
) -> None:
    subject = SubjectFacts(*texts[:5], tuple(texts[5:7]), maybe[0], tuple(texts[7:9]), None, maybe[1])
    action = ActionFacts(texts[8], "read", "low", flag, not flag)
    resource = ResourceFacts(texts[0], texts[8], texts[2], texts[3], maybe[2])
    args, run, approval, request = objects
    question = PolicyInput(subject, action, resource, args, instant, texts[4], maybe[3], run, approval, request)
    written = json.loads(encode_input(question))
    assert list(written) == ["v", "subject", "action", "resource", "args", "context"]
    assert encode_input(question) == encode_document(written)
    facts = written["subject"]["properties"]
    assert (facts.get("acr"), facts.get("on_behalf_of"), facts["roles"]) == (maybe[0], maybe[1], texts[5:7])
    assert written["resource"]["id"] == texts[8]
    assert written["resource"]["properties"].get("placement") == maybe[2]
    assert written["args"] == json.loads(encode_document(args))
    assert written["context"].get("ticket") == maybe[3]
    for name, value in (("run", run), ("approval", approval), ("request", request)):
        assert written["context"].get(name) == (None if value is None else json.loads(encode_document(value)))


@pytest.mark.parametrize(
    ("args", "written"),
    [
        pytest.param({"n": INTEGER_MAX, "t": True, "x": None}, b'{"n":9007199254740991,"t":true,"x":null}', id="plain"),
        pytest.param({"n": 2.0}, b'{"n":2}', id="an integral float"),
        pytest.param({"n": [1.0]}, b'{"n":[1]}', id="one that lies deeper"),
        pytest.param({Word.READ: 1}, None, id="a key of a type of its own"),
        pytest.param({"n": INTEGER_MAX + 1}, None, id="an integer beyond what a double holds"),
    ],
)
def test_arguments_are_checked_when_they_are_one_level(args: dict[str, Any], written: bytes | None) -> None:
    if written is None:
        with pytest.raises(InputRefused):
            encode_input(asked(args=args))
    else:
        assert b'"args":' + written + b',"context"' in encode_input(asked(args=args))
