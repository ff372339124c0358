"""Parts of documents and changes to them: what is answered, what is undefined, and what is declined."""

from __future__ import annotations

import copy
from decimal import Decimal
from typing import Any

import pytest

from pdp.wasm.builtins.documents import BUILTINS, WORK_MAX
from pdp.wasm.builtins.values import DEPTH_MAX, Declined, RegoSet, Undefined, Value, order

PATCH = BUILTINS["json.patch"]
SUBSET = BUILTINS["object.subset"]

PARTS: dict[str, tuple[Value, Value]] = {
    "fewer members": ({"a": 1, "b": 2}, {"a": 1}),
    "fewer members below": ({"a": {"b": 1, "c": 2}}, {"a": {"b": 1}}),
    "a number in another spelling": ({"a": 1}, {"a": Decimal("1.0")}),
    "a set below": ({"a": RegoSet((1, 2))}, {"a": RegoSet((2,))}),
    "an array below": ({"a": [1, 2, 3]}, {"a": [2, 3]}),
    "a set": (RegoSet((1, "a", None)), RegoSet((None, 1))),
    "a run": ([1, 2, 3], [2, 3]),
    "a run that ends the array": (["a", "a", "b"], ["a", "b"]),
    "a run after a false start": (list("aabaabaab"), list("aabaab")),
    "a run that begins within a false start": (list("aaabaaac"), list("aaac")),
    "the empty run": ([1], []),
    "the empty run of none": ([], []),
    "an array that has a set": ([3, 2, 1], RegoSet((1, 2))),
    "an array that has one of two, twice": ([1, 1], RegoSet((1, 2))),
    "an array and the empty set": ([1], RegoSet(())),
}

NO_PARTS: dict[str, tuple[Value, Value]] = {
    "a member more": ({"a": 1}, {"a": 1, "b": None}),
    "another value": ({"a": 1}, {"a": 2}),
    "true for one": ({"a": 1}, {"a": True}),
    "an array for a set below": ({"a": [1]}, {"a": RegoSet((1,))}),
    "an object for an array below": ({"a": ["b"]}, {"a": {"b": 1}}),
    "a part of a member of a set": (RegoSet(({"a": 1, "b": 2},)), RegoSet(({"a": 1},))),
    "a part of an item of an array": ([{"a": 1, "b": 2}], [{"a": 1}]),
    "a run with a gap": ([1, 2, 3], [1, 3]),
    "a longer array": ([1], [1, 1]),
    "an array that has not all of a set": ([3, 2], RegoSet((1, 2))),
    "the empty array and the empty set": ([], RegoSet(())),
}

UNLIKE: dict[str, tuple[Value, Value]] = {
    "a set and an array": (RegoSet((1,)), [1]),
    "an object and an array": ({}, []),
    "an object and a set": ({}, RegoSet(())),
    "a set and an object": (RegoSet(()), {}),
    "texts": ("ab", "a"),
    "null": (None, None),
}


@pytest.mark.parametrize(("whole", "part"), PARTS.values(), ids=PARTS.keys())
def test_subset_is_true_when_it_is_a_part(whole: Value, part: Value) -> None:
    assert SUBSET(whole, part) is True


@pytest.mark.parametrize(("whole", "part"), NO_PARTS.values(), ids=NO_PARTS.keys())
def test_subset_is_false_when_it_is_none(whole: Value, part: Value) -> None:
    assert SUBSET(whole, part) is False


@pytest.mark.parametrize(("whole", "part"), UNLIKE.values(), ids=UNLIKE.keys())
def test_subset_is_undefined_when_sides_are_not_alike(whole: Value, part: Value) -> None:
    with pytest.raises(Undefined):
        SUBSET(whole, part)


def test_subset_declines_when_a_number_is_beyond_floats() -> None:
    for number in ("0.10000000000000000001", "1e400", "9007199254740993.0"):
        with pytest.raises(Declined):
            SUBSET({"a": [RegoSet((Decimal(number),))]}, {})
        with pytest.raises(Declined):
            SUBSET([], [Decimal(number)])


def test_subset_ends_soon_when_runs_nearly_match() -> None:
    assert SUBSET(["a"] * 50_000, ["a"] * 25_000 + ["b"]) is False


def _op(name: Value, path: Value, *given: Value) -> dict[str, Any]:
    """One operation; what is given besides is its value, or where it comes from."""
    operation: dict[str, Any] = {"op": name, "path": path}
    if given:
        operation["from" if name in ("move", "copy") else "value"] = given[0]
    return operation


DOCUMENT: dict[str, Value] = {
    "foo": "bar",
    "list": ["a", {"b": 1}, [2]],
    "set": RegoSet(("x", "y", 1)),
    "a/b": 1,
    "m~n": 2,
}

CHANGED: dict[str, tuple[list[dict[str, Any]], dict[str, Value]]] = {
    "add a member": ([_op("add", "/new", {"x": 1})], {"new": {"x": 1}}),
    "add an item": ([_op("add", "/list/1", "n")], {"list": ["a", "n", {"b": 1}, [2]]}),
    "add an item at the end": ([_op("add", "/list/-", "n")], {"list": ["a", {"b": 1}, [2], "n"]}),
    "add below an item": ([_op("add", "/list/1/c", 2)], {"list": ["a", {"b": 1, "c": 2}, [2]]}),
    "add twice below an item": (
        [_op("add", "/list/2/0", 1), _op("add", "/list/2/0", 0)],
        {"list": ["a", {"b": 1}, [0, 1, 2]]},
    ),
    "remove an item": ([_op("remove", "/list/0")], {"list": [{"b": 1}, [2]]}),
    "remove below an item": ([_op("remove", "/list/1/b")], {"list": ["a", {}, [2]]}),
    "replace a member": ([_op("replace", "/foo", None)], {"foo": None}),
    "replace an item": ([_op("replace", ["list", 1], 7)], {"list": ["a", 7, [2]]}),
    "move within an array": ([_op("move", "/list/2", "/list/0")], {"list": [{"b": 1}, [2], "a"]}),
    "copy and change the copy": ([_op("copy", "/new", "/list"), _op("remove", "/new/0")], {"new": [{"b": 1}, [2]]}),
    "test a set": ([_op("test", "/set", RegoSet((1, "y", "x")))], {}),
    "test a number in another spelling": ([_op("test", "/list/1/b", Decimal("1.0"))], {}),
    "a path without a slash": ([_op("replace", "foo", 1)], {"foo": 1}),
    "a path with escapes": ([_op("replace", "/a~1b", 2), _op("replace", "/m~0n", 3)], {"a/b": 2, "m~n": 3}),
    "the empty key": ([_op("add", "/", 1)], {"": 1}),
    "add to a set": ([_op("add", "/set/z", "z")], {"set": RegoSet.of(("x", "y", "z", 1))}),
    "remove from a set and add again": ([_op("remove", "/set/x"), _op("add", "/set/x", "x")], {}),
    "move out of a set": ([_op("move", "/new", "/set/x")], {"set": RegoSet.of(("y", 1)), "new": "x"}),
}


@pytest.mark.parametrize(("operations", "changes"), CHANGED.values(), ids=CHANGED.keys())
def test_patch_changes_the_document_when_operations_apply(operations: Value, changes: dict[str, Value]) -> None:
    document, given = copy.deepcopy(DOCUMENT), copy.deepcopy(operations)
    assert order(PATCH(document, given)) == order({**DOCUMENT, **changes})
    assert (document, given) == (DOCUMENT, operations)


def test_patch_gives_another_root_when_the_path_is_empty() -> None:
    assert PATCH(DOCUMENT, [_op("replace", "", [1]), _op("test", "", [1])]) == [1]
    assert PATCH(DOCUMENT, [_op("add", [], 1)]) == 1
    assert PATCH(DOCUMENT, [_op("move", "", "/foo")]) == "bar"
    assert PATCH([1, 2], [_op("move", "", "")]) == [1, 2]
    assert PATCH("a", []) == "a"


UNDEFINED: dict[str, Any] = {
    "operations that are no array": _op("add", "/foo", 1),
    "an operation that is none": [1],
    "no operation": [{"path": "/foo"}],
    "no path": [{"op": "remove"}],
    "an unknown operation": [_op("spam", "/foo")],
    "an operation that is no text": [_op([], "/foo")],
    "a path that is a number": [_op("remove", 0)],
    "add without a value": [_op("add", "/foo")],
    "replace without a value": [_op("replace", "/foo")],
    "test without a value": [_op("test", "/foo")],
    "copy from nowhere": [_op("copy", "/foo")],
    "add below what is not there": [_op("add", "/no/x", 1)],
    "add below a text": [_op("add", "/foo/x", 1)],
    "add far below a text": [_op("add", "/foo/x/y", 1)],
    "remove what is not there": [_op("remove", "/no")],
    "remove a key that is a number": [_op("remove", [0])],
    "test a key that is a number": [_op("test", [0], 1)],
    "replace after the last item": [_op("replace", "/list/-", 1)],
    "below the last item": [_op("add", "/list/-/b", 1)],
    "an index after the end": [_op("add", "/list/4", 1)],
    "a negative index": [_op("add", "/list/-1", 1)],
    "an index with a leading zero": [_op("add", "/list/01", 1)],
    "an index that is not ASCII": [_op("add", "/list/\u0661", 1)],
    "an index of many digits": [_op("add", "/list/1" + "0" * 5000, 1)],
    "an index that is empty": [_op("add", "/list/", 1)],
    "an index that is true": [_op("add", ["list", True], 1)],
    "an index that is null": [_op("add", ["list", None], 1)],
    "an index that is a negative number": [_op("add", ["list", -1], 1)],
    "test another value": [_op("test", "/foo", "baz")],
    "move into its own child": [_op("move", "/list/0", "/list")],
    "move the root below itself": [_op("move", "/foo", "")],
    "add to a set under another key": [_op("add", "/set/z", "w")],
    "remove from a set what is not there": [_op("remove", "/set/z")],
    "remove from a set twice": [_op("remove", "/set/x"), _op("remove", "/set/x")],
    "below a member of a set": [_op("add", "/set/x/y", 1)],
    "read from a set what is not there": [_op("test", "/set/z", "z")],
}


@pytest.mark.parametrize("operations", UNDEFINED.values(), ids=UNDEFINED.keys())
def test_patch_is_undefined_when_an_operation_fails(operations: Value) -> None:
    with pytest.raises(Undefined):
        PATCH(DOCUMENT, operations)


def _deep(depth: int) -> Value:
    value: Value = 1
    for _ in range(depth):
        value = [value]
    return value


DECLINED: dict[str, list[dict[str, Any]]] = {
    "below a root that was replaced": [_op("replace", "", {}), _op("add", "/a", 1)],
    "a root that is removed": [_op("remove", "")],
    "through an item that was moved": [_op("remove", "/list/0"), _op("test", "/list/0/b", 1)],
    "neighbours of other kinds that move": [
        _op("add", "/list/-", 1),
        _op("add", "/list/-", {}),
        _op("add", "/list/0", 1),
    ],
    "neighbours of other kinds that move back": [
        _op("add", "/list/-", {}),
        _op("add", "/list/-", 1),
        _op("remove", "/list/0"),
    ],
    "neighbours that a look moves": [_op("add", "/list/-", 1), _op("add", "/list/-", {}), _op("test", "/list/0", "a")],
    "a set's member that was removed": [_op("remove", "/set/x"), _op("test", "/set/x", "x")],
    "a number as a member of a set": [_op("add", ["set", 1], 1)],
    "a number as a new key": [_op("add", [1], 1)],
    "an index with a sign": [_op("remove", "/list/+1")],
    "an index that is minus zero": [_op("remove", "/list/-0")],
    "an index that is a point": [_op("remove", "/list/.")],
    "an index with a fraction of zeros": [_op("remove", "/list/1.0")],
    "an index that is a fraction": [_op("remove", ["list", Decimal("1.0")])],
    "a test of numbers beyond floats": [_op("test", "/foo", Decimal("1e400"))],
    "a value too deep": [_op("add", "/new", _deep(DEPTH_MAX))],
    "copies into copies": [_op("copy", f"/{number}", "") for number in range(40)],
    "much looked at": [_op("test", "/list", ["a", {"b": 1}, [2]])] * (WORK_MAX // 10),
}


@pytest.mark.parametrize("operations", DECLINED.values(), ids=DECLINED.keys())
def test_patch_declines_when_opa_errs_or_it_is_not_worth_it(operations: list[Value]) -> None:
    with pytest.raises(Declined):
        PATCH(DOCUMENT, operations)


def test_patch_answers_when_values_are_as_deep_as_they_may_be() -> None:
    deep = _deep(DEPTH_MAX - 1)
    assert PATCH({}, [_op("add", "/new", deep)]) == {"new": deep}


def test_patch_declines_when_a_large_array_moves_often() -> None:
    many = ["x"] * 40_000
    assert PATCH(many, [_op("add", "/0", 1)] * 10) == [1] * 10 + many
    with pytest.raises(Declined):
        PATCH(many, [_op("add", "/0", 1)] * 2000)
