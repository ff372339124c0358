"""Parts of documents and changes to them: the host's answers are OPA's, where OPA leaves RFC 6902, too."""

from __future__ import annotations

import random
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from pdp.wasm.builtins.documents import BUILTINS
from pdp.wasm.builtins.values import Declined, RegoSet, Undefined, Value, order
from tests.agreement.builtin_values import Comparison, Operands, compare

PATCH = "json.patch"
SUBSET = "object.subset"


def _shown(value: Value, *, is_top: bool = True) -> Value:
    """The value as OPA prints it: a set within another value as a sorted array."""
    if isinstance(value, RegoSet):
        members = [_shown(member, is_top=False) for member in sorted(value.members, key=order)]
        return RegoSet.of(members) if is_top else members
    if isinstance(value, list):
        return [_shown(item, is_top=False) for item in value]
    if isinstance(value, dict):
        return {key: _shown(item, is_top=False) for key, item in value.items()}
    return value


def _patched(document: Value, operations: Value) -> Value:
    return _shown(BUILTINS[PATCH](document, operations))


def _compare_patches(opa: Path, calls: list[Operands]) -> Comparison:
    return compare(opa, PATCH, _patched, calls)


def _op(name: Value, path: Value, *given: Value) -> dict[str, Any]:
    """One operation; what is given besides is its value, or where it comes from."""
    operation: dict[str, Any] = {"op": name, "path": path}
    if given:
        operation["from" if name in ("move", "copy") else "value"] = given[0]
    return operation


DOCUMENT: dict[str, Value] = {
    "foo": "bar",
    "list": ["a", {"b": 1}, [2]],
    "set": RegoSet(("x", "y", 1, RegoSet((1,)))),
    "a/b": 1,
    "m~n": 2,
    "~1": 3,
    "": {"": 4},
    "0": 5,
}

PLAIN = {key: item for key, item in DOCUMENT.items() if key != "set"}

ANSWERED: dict[str, list[dict[str, Any]]] = {
    "nothing": [],
    "add a member": [_op("add", "/new", {"x": [1]})],
    "add over a member": [_op("add", "/foo", None)],
    "add to a list": [_op("add", "/list/1", "n")],
    "add to the front of a list": [_op("add", "/list/0", "n")],
    "add at the end of a list": [_op("add", "/list/3", "n")],
    "add to the end of a list": [_op("add", "/list/-", [1])],
    "add below a list": [_op("add", "/list/1/c", 2)],
    "add to a list in a list": [_op("add", "/list/2/-", 3)],
    "remove a member": [_op("remove", "/foo")],
    "remove an item": [_op("remove", "/list/0")],
    "remove two items": [_op("remove", "/list/2"), _op("remove", "/list/0")],
    "remove below a list": [_op("remove", "/list/1/b")],
    "replace a member": [_op("replace", "/foo", {"a": 1})],
    "replace an item": [_op("replace", "/list/1", 7)],
    "replace the last item": [_op("replace", "/list/2", 7)],
    "replace the root": [_op("replace", "", [1])],
    "add the root": [_op("add", "", {"a": 1}), _op("test", "", {"a": 1})],
    "move a member": [_op("move", "/moved", "/list")],
    "move a member onto itself": [_op("move", "/foo", "/foo")],
    "move within a list": [_op("move", "/list/2", "/list/0")],
    "move to the root": [_op("move", "", "/list")],
    "move the root onto itself": [_op("move", "", "")],
    "copy a member": [_op("copy", "/copied", "/list/1"), _op("add", "/copied/c", 1)],
    "copy the root into itself": [_op("copy", "/all", "")],
    "copy within a list": [_op("copy", "/list/-", "/list/1"), _op("add", "/list/3/c", 1)],
    "test a text": [_op("test", "/foo", "bar")],
    "test a number in another spelling": [_op("test", "/0", Decimal("5.0"))],
    "test a list": [_op("test", "/list", ["a", {"b": Decimal("1.00")}, [2]])],
    "test the root": [_op("add", "/foo", 1), _op("test", "/foo", 1)],
    "a path without a slash": [_op("replace", "foo", 1)],
    "a path with two slashes": [_op("replace", "//foo", 1)],
    "a path of keys": [_op("replace", ["list", 1, "b"], 2)],
    "a path of keys with an index that is a text": [_op("replace", ["list", "1", "b"], 2)],
    "no keys": [_op("replace", [], 2)],
    "a slash in a key of keys": [_op("replace", ["a/b"], 2)],
    "an escaped slash": [_op("replace", "/a~1b", 2)],
    "an escaped tilde": [_op("replace", "/m~0n", 2)],
    "an escaped tilde and a digit": [_op("replace", "/~01", 2)],
    "a tilde that escapes nothing": [_op("add", "/~2", 2), _op("add", "/~", 2)],
    "the empty key": [_op("add", "/", 2)],
    "a slash at the end": [_op("add", "/new", {}), _op("add", "/new/", 2)],
    "a number as a key": [_op("remove", "/0")],
    "add to a set": [_op("add", "/set/z", "z")],
    "add to a set what it has": [_op("add", "/set/x", "x")],
    "remove from a set": [_op("remove", "/set/x")],
    "remove from a set and add again": [_op("remove", "/set/x"), _op("add", "/set/x", "x")],
    "replace in a set by itself": [_op("replace", "/set/x", "x")],
    "move out of a set": [_op("move", "/moved", "/set/x")],
    "test in a set": [_op("test", "/set/x", "x")],
    "test a set": [_op("test", "/set", RegoSet((RegoSet((1,)), Decimal("1.0"), "y", "x")))],
    "replace a set": [_op("replace", "/set", 1)],
    "members that mean nothing": [{**_op("add", "/new", 1), "from": 5, "x": 1}],
}

UNDEFINED: dict[str, list[Any]] = {
    "an operation that is none": [1],
    "no operation": [{"path": "/foo", "value": 1}],
    "no path": [{"op": "add", "value": 1}],
    "an unknown operation": [_op("spam", "/foo", 1)],
    "an operation in capitals": [_op("ADD", "/foo", 1)],
    "an operation that is no text": [_op(1, "/foo", 1)],
    "a path that is a number": [_op("add", 0, 1)],
    "a path that is null": [_op("remove", None)],
    "a path that is an object": [_op("remove", {"foo": 1})],
    "a path that is a set": [_op("remove", RegoSet(("foo",)))],
    "add without a value": [_op("add", "/foo")],
    "replace without a value": [_op("replace", "/foo")],
    "test without a value": [_op("test", "/foo")],
    "move from nowhere": [_op("move", "/foo")],
    "copy from nowhere": [_op("copy", "/foo")],
    "a path to come from that is a number": [_op("copy", "/foo", 1)],
    "add below what is not there": [_op("add", "/no/x", 1)],
    "add below a text": [_op("add", "/foo/x", 1)],
    "add below a text's child": [_op("add", "/foo/x/y", 1)],
    "remove what is not there": [_op("remove", "/no")],
    "remove twice": [_op("remove", "/foo"), _op("remove", "/foo")],
    "remove from a text": [_op("remove", "/foo/x")],
    "read what was removed": [_op("remove", "/list"), _op("add", "/list/0", 1)],
    "replace what is not there": [_op("replace", "/no", 1)],
    "replace an item that is not there": [_op("replace", "/list/3", 1)],
    "replace after the last item": [_op("replace", "/list/-", 1)],
    "an index after the end": [_op("add", "/list/4", 1)],
    "a negative index": [_op("add", "/list/-1", 1)],
    "an index with a leading zero": [_op("add", "/list/01", 1)],
    "an index of zeros": [_op("test", "/list/00", "a")],
    "an index with an exponent": [_op("test", "/list/1e0", {"b": 1})],
    "an index with a fraction": [_op("test", "/list/1.5", {"b": 1})],
    "an index with a zero before its fraction": [_op("test", "/list/0.0", "a")],
    "an index with a space": [_op("test", "/list/ 1", {"b": 1})],
    "an index in hexadecimal": [_op("test", "/list/0x1", {"b": 1})],
    "an index that is not ASCII": [_op("test", "/list/\u0661", {"b": 1})],
    "an index with an underscore": [_op("add", "/list/1_0", 1)],
    "an index beyond 64 bits": [_op("test", "/list/18446744073709551617", {"b": 1})],
    "an index of many digits": [_op("test", "/list/1" + "0" * 5000, {"b": 1})],
    "an index that is a plus": [_op("test", "/list/+", "a")],
    "an index that is empty": [_op("test", "/list/", "a")],
    "an index that is a word": [_op("test", "/list/a", "a")],
    "an index that is true": [_op("test", ["list", True], {"b": 1})],
    "an index that is null": [_op("remove", ["list", None])],
    "an index that is a large number": [_op("remove", ["list", 2**64 + 1])],
    "an index that is a negative number": [_op("remove", ["list", -1])],
    "remove after the last item": [_op("remove", "/list/-")],
    "a number where a text is the key": [_op("remove", ["0", 0])],
    "a number as the key of an object": [_op("remove", [0])],
    "a list as the key of an object": [_op("test", [["foo"]], "bar")],
    "below the last item": [_op("add", "/list/-/b", 1)],
    "test another value": [_op("test", "/foo", "baz")],
    "test another type": [_op("test", "/0", "5")],
    "test true for one": [_op("test", "/list/1/b", True)],
    "test a set as a list": [_op("test", "/set", ["x", "y"])],
    "move into its own child": [_op("move", "/list/0", "/list"), _op("test", "/foo", "bar")],
    "move the root below itself": [_op("move", "/foo", "")],
    "move what is not there": [_op("move", "/foo", "/no")],
    "copy what is not there": [_op("copy", "/foo", "/no")],
    "add to a set under another key": [_op("add", "/set/z", "w")],
    "remove from a set what is not there": [_op("remove", "/set/z")],
    "remove from a set twice": [_op("remove", "/set/x"), _op("remove", "/set/x")],
    "below a member of a set": [_op("add", "/set/x/y", 1)],
    "read from a set what is not there": [_op("test", "/set/z", "z")],
}

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
    "read what was removed from a set": [_op("remove", "/set/x"), _op("test", "/set/x", "x")],
    "a number as a member of a set": [_op("remove", ["set", 1])],
    "a number as a new key of an object": [_op("add", [1], 1)],
    "an index with a sign": [_op("test", "/list/+1", {"b": 1})],
    "an index with a fraction of zeros": [_op("test", "/list/1.0", {"b": 1})],
    "an index that is a fraction": [_op("remove", ["list", Decimal("1.0")])],
    "numbers beyond floats": [_op("add", "/foo", Decimal("0.10000000000000000001")), _op("test", "/foo", 1)],
}


def _draw_number(source: random.Random) -> int | Decimal:
    fractions = "1.0 0.0 1.5 1.50 0.1 0.10 -2.50 0.3 0.30000000000000004 9007199254740992.0".split()
    numbers: list[int | Decimal] = [0, 1, 2, -1, 10, 2**53 + 1, 10**22, *map(Decimal, fractions)]
    return source.choice(numbers)


def _draw_value(source: random.Random, depth: int, *, with_sets: bool = True) -> Value:
    kind = source.random()
    if depth == 0 or kind < 0.4:
        scalars: list[Value] = [None, True, False, "", "a", "b", "0", "1", "x/y"]
        return _draw_number(source) if source.random() < 0.2 else source.choice(scalars)
    inner = [_draw_value(source, depth - 1, with_sets=with_sets) for _ in range(source.choice((0, 1, 2, 2, 3, 4)))]
    if kind < 0.65:
        return inner
    if kind < 0.9 or not with_sets:
        return dict(zip(source.sample(KEYS, len(inner)), inner, strict=True))
    return RegoSet.of(inner)


KEYS = ("a", "b", "c", "0", "1", "-", "", "x/y", "m~n", "~1")
ENDS: tuple[Value, ...] = (*KEYS, "2", "3", 0, 1, 2, -1, "01", "+1", "1.0", "no", None, True, [1], Decimal("1.0"))


def _draw_keys(source: random.Random, document: Value) -> list[Value]:
    """A path that leads to something in the document, or a little beside it."""
    keys: list[Value] = []
    here = document
    while source.random() < (0.7 if keys else 0.97):
        if isinstance(here, dict) and here:
            key = source.choice(list(here))
            keys, here = [*keys, key], here[key]
        elif isinstance(here, list) and here:
            at = source.randrange(len(here))
            keys, here = [*keys, source.choice((at, str(at)))], here[at]
        elif isinstance(here, RegoSet) and here.members:
            here = source.choice(here.members)
            keys = [*keys, here]
        else:
            break
    beside = source.random()
    if isinstance(here, list) and beside < 0.5:
        return [*keys, source.choice((0, "0", "-", len(here), str(len(here)), len(here) // 2))]
    if isinstance(here, dict) and beside < 0.3:
        return [*keys, source.choice(KEYS)]
    return [*keys, source.choice(ENDS)] if beside < 0.06 else keys


def _draw_path(source: random.Random, document: Value) -> Value:
    keys = _draw_keys(source, document)
    if source.random() < 0.3 or not all(isinstance(key, (str, int)) and not isinstance(key, bool) for key in keys):
        return keys
    text = "/".join(str(key).replace("~", "~0").replace("/", "~1") for key in keys)
    return source.choice(("/", "/", "/", "", "//")) + text if keys else ""


def _draw_operation(source: random.Random, document: Value) -> Value:
    if source.random() < 0.005:
        return source.choice((1, None, {}, {"op": "add"}, {"op": "add", "path": 1, "value": 1}, {"op": 1, "path": ""}))
    name = source.choice(("add", "add", "remove", "replace", "replace", "move", "copy", "test"))
    path = _draw_path(source, document)
    operation: dict[str, Any] = {"op": name, "path": path}
    if name in ("move", "copy"):
        operation["from"] = _draw_path(source, document)
    elif name == "test" and source.random() < 0.8:
        operation["value"] = _found(document, path)
    elif name != "remove":
        operation["value"] = _draw_value(source, 2, with_sets=source.random() < 0.3)
    if source.random() < 0.01:
        operation.pop(source.choice(list(operation)))
    return operation


def _found(document: Value, path: Value) -> Value:
    """What is at the path, as the host reads it; null where nothing is."""
    try:
        return BUILTINS[PATCH]({"a": document}, [{"op": "copy", "from": ["a", *_keys(path)], "path": ""}])
    except (Undefined, Declined):
        return None


def _keys(path: Value) -> list[Value]:
    if isinstance(path, list):
        return path
    keys = str(path).lstrip("/").split("/") if path else []
    return [key.replace("~1", "/").replace("~0", "~") for key in keys]


def _draw_patch(source: random.Random) -> Operands:
    """Operations that mostly apply, each drawn for the document that those before it leave."""
    document = _draw_value(source, 3, with_sets=source.random() < 0.3)
    if source.random() < 0.01:
        return document, source.choice([None, 1, "x", {}, {"op": "add"}])
    operations: list[Value] = []
    current = document
    for _ in range(source.choice((1, 1, 2, 3, 5, 8, 12))):
        for _ in range(4):
            operation = _draw_operation(source, current)
            try:
                current = BUILTINS[PATCH](document, [*operations, operation])
            except Undefined:
                if source.random() < 0.1:
                    return document, [*operations, operation]
            except Declined:
                pass
            else:
                operations.append(operation)
                break
    return document, operations


def _draw_subset(source: random.Random) -> Operands:
    """Two values of which the second is often a part of the first."""
    whole = _draw_value(source, 3)
    while not isinstance(whole, (list, dict, RegoSet)) and source.random() < 0.9:
        whole = _draw_value(source, 3)
    if source.random() < 0.15:
        return whole, _draw_value(source, 2)
    part = _draw_part(source, whole)
    if isinstance(whole, list) and source.random() < 0.3:
        return whole, RegoSet.of(source.sample(whole, source.randrange(len(whole) + 1)))
    return (part, whole) if source.random() < 0.1 else (whole, part)


def _draw_part(source: random.Random, whole: Value) -> Value:
    if source.random() < 0.05:
        return _draw_value(source, 1)
    if isinstance(whole, dict):
        return {key: _draw_part(source, item) for key, item in whole.items() if source.random() < 0.7}
    if isinstance(whole, RegoSet):
        return RegoSet(tuple(member for member in whole.members if source.random() < 0.7))
    if isinstance(whole, list):
        start = source.randrange(len(whole) + 1)
        return whole[start : source.randrange(start, len(whole) + 1)]
    if isinstance(whole, (int, Decimal)) and not isinstance(whole, bool) and source.random() < 0.5:
        return _respelled(whole)
    return whole


def _respelled(number: int | Decimal) -> Value:
    """The same number, written with one more zero if that is one that the host compares."""
    text = str(number)
    if not -100 < number < 100:
        return number
    return Decimal(f"{text}0" if "." in text else f"{text}.0")


def _draw_runs(source: random.Random) -> Operands:
    """Arrays of few letters, so that a run is often found after it began in vain."""
    whole = source.choices("ab", k=source.randrange(14))
    if source.random() < 0.5 and whole:
        start = source.randrange(len(whole))
        return whole, whole[start : start + source.randrange(8)]
    return whole, source.choices("ab", k=source.randrange(6))


DRAWN: dict[str, tuple[str, Callable[..., Value], Callable[[random.Random], Operands], int]] = {
    "patches": (PATCH, _patched, _draw_patch, 2000),
    "parts": (SUBSET, BUILTINS[SUBSET], _draw_subset, 2500),
    "runs": (SUBSET, BUILTINS[SUBSET], _draw_runs, 2000),
}


def _has_sets(value: Value) -> bool:
    if isinstance(value, (list, dict)):
        return any(map(_has_sets, value.values() if isinstance(value, dict) else value))
    return isinstance(value, RegoSet)


def _is_well_typed(name: str, call: Operands) -> bool:
    """Whether OPA's compiler takes the call. It sees the types of operands with sets only: the others come in as JSON."""
    if not any(map(_has_sets, call)):
        return True
    if name == SUBSET:
        return all(isinstance(side, (list, dict, RegoSet)) for side in call)
    operations = call[1]
    return isinstance(operations, list) and all(
        isinstance(one, dict) and "path" in one and isinstance(one.get("op"), str) for one in operations
    )


def _check_drawn(opa: Path, kind: str, seed: int) -> None:
    """What is declined is not asked: OPA crashes on some."""
    name, function, draw, count = DRAWN[kind]
    source = random.Random(seed)
    calls = [call for call in (draw(source) for _ in range(count)) if not _is_declined(function, call)]
    assert len(calls) > 0.9 * count
    calls = [call for call in calls if _is_well_typed(name, call)]
    found = compare(opa, name, function, calls)
    assert (found.differing, found.declined) == ([], [])
    assert found.agreeing_count > 0.7 * count


def _is_declined(function: Callable[..., Value], call: Operands) -> bool:
    try:
        function(*call)
    except Declined:
        return True
    except Undefined:
        pass
    return False


def test_patch_answers_as_opa_when_operations_apply(opa_path: Path) -> None:
    found = _compare_patches(opa_path, [(DOCUMENT, operations) for operations in ANSWERED.values()])
    assert (found.differing, found.declined, found.undefined_count) == ([], [], 0)


def test_patch_is_undefined_as_in_opa_when_an_operation_fails(opa_path: Path) -> None:
    calls: list[Operands] = [(PLAIN, operations) for operations in UNDEFINED.values()]
    calls += [
        (DOCUMENT, operations) for operations in UNDEFINED.values() if _is_well_typed(PATCH, (DOCUMENT, operations))
    ]
    found = _compare_patches(opa_path, calls)
    assert (found.differing, found.declined, found.agreeing_count) == ([], [], 0)


def test_patch_answers_as_opa_when_the_document_is_no_object(opa_path: Path) -> None:
    calls: list[Operands] = [
        ("foo", [_op("replace", "", "bar")]),
        (1, [_op("test", "", Decimal("1.0"))]),
        (None, [_op("add", "/a", 1)]),
        ([], [_op("add", "/0", "a"), _op("add", "/-", "b")]),
        ([1, 2], [_op("move", "/0", "/1")]),
        (RegoSet(("a", "b")), [_op("add", "/c", "c"), _op("remove", "/a")]),
        ({}, []),
        ({}, "no operations"),
        ({}, None),
        ({}, {"op": "add", "path": "/a", "value": 1}),
    ]
    found = _compare_patches(opa_path, calls)
    assert (found.differing, found.declined, found.undefined_count) == ([], [], 4)


@pytest.mark.parametrize("operations", DECLINED.values(), ids=DECLINED.keys())
def test_patch_declines_when_opa_errs_or_crashes(operations: list[Value]) -> None:
    with pytest.raises(Declined):
        BUILTINS[PATCH](DOCUMENT, operations)


SUBSETS: dict[str, Operands] = {
    "an object in itself": ({"a": 1, "b": {"c": 2}}, {"a": 1, "b": {"c": 2}}),
    "fewer members": ({"a": 1, "b": 2}, {"a": 1}),
    "fewer members below": ({"a": {"b": 1, "c": 2}}, {"a": {"b": 1}}),
    "another value": ({"a": 1}, {"a": 2}),
    "another key": ({"a": 1}, {"b": 1}),
    "null for a missing key": ({"a": 1}, {"b": None}),
    "null is a value": ({"a": None}, {"a": None}),
    "another type below": ({"a": {"b": 1}}, {"a": ["b"]}),
    "a number in another spelling": ({"a": 1}, {"a": Decimal("1.0")}),
    "true is not one": ({"a": 1}, {"a": True}),
    "a set below": ({"a": RegoSet((1, 2))}, {"a": RegoSet((2,))}),
    "an array below": ({"a": [1, 2, 3]}, {"a": [2, 3]}),
    "a set and an array below": ({"a": [1, 2, 3]}, {"a": RegoSet((2, 3))}),
    "objects in arrays below are equal or not": ({"a": [{"b": 1, "c": 2}]}, {"a": [{"b": 1}]}),
    "the empty object": ({"a": 1}, {}),
    "a set in a set": (RegoSet((1, "a", None)), RegoSet((None, Decimal("1.0")))),
    "a member too many": (RegoSet((1,)), RegoSet((1, 2))),
    "objects in sets are equal or not": (RegoSet(({"a": 1, "b": 2},)), RegoSet(({"a": 1},))),
    "the empty set": (RegoSet((1,)), RegoSet(())),
    "a run": ([1, 2, 3], [2, 3]),
    "a run with a gap": ([1, 2, 3], [1, 3]),
    "a run after a false start": (["a", "a", "b"], ["a", "b"]),
    "a longer array": ([1], [1, 1]),
    "the empty array": ([1], []),
    "two empty arrays": ([], []),
    "an array that has a set": ([3, 2, 1, 2], RegoSet((1, 2))),
    "an array that has not all of a set": ([3, 2], RegoSet((1, 2))),
    "an array that has one of two, twice": ([1, 1], RegoSet((1, 2))),
    "an array and the empty set": ([1], RegoSet(())),
    "the empty array and the empty set": ([], RegoSet(())),
}

UNLIKE: dict[str, Operands] = {
    "a set and an array": (RegoSet((1,)), [1]),
    "an object and an array": ({}, []),
    "an object and a set": ({}, RegoSet(())),
    "texts": ("ab", "a"),
    "numbers": (1, 1),
    "null": (None, {}),
    "an object and a text": ({"a": 1}, "a"),
}


def test_subset_answers_as_opa_when_both_sides_are_alike(opa_path: Path) -> None:
    found = compare(opa_path, SUBSET, BUILTINS[SUBSET], list(SUBSETS.values()))
    assert (found.differing, found.declined, found.undefined_count) == ([], [], 0)


def test_subset_is_undefined_as_in_opa_when_sides_are_not_alike(opa_path: Path) -> None:
    calls = [call for call in UNLIKE.values() if not any(isinstance(side, RegoSet) for side in call)]
    found = compare(opa_path, SUBSET, BUILTINS[SUBSET], calls)
    assert (found.differing, found.declined, found.undefined_count) == ([], [], len(calls))
    for call in UNLIKE.values():
        with pytest.raises(Undefined):
            BUILTINS[SUBSET](*call)


@pytest.mark.parametrize("kind", DRAWN)
def test_documents_agree_with_opa_when_drawn(opa_path: Path, kind: str) -> None:
    _check_drawn(opa_path, kind, 61)


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("kind", DRAWN)
def test_documents_agree_with_opa_when_many_are_drawn(opa_path: Path, kind: str) -> None:
    for seed in range(62, 82):
        _check_drawn(opa_path, kind, seed)
