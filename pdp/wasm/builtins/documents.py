"""Parts of documents, and changes to them: ``object.subset`` and ``json.patch``.

Guarantees OPA's answer, where it differs from RFC 6902 too: a path may lack its first slash, may be an array of keys, and
may lead to a member of a set. Operands are never changed.

Declined, in both: numbers that OPA may take as equal though they are written differently, beyond what a float holds.
Declined in ``json.patch``, because OPA gives a wrong result or crashes there: what ``json_patch`` lists.

**Source**: OPA's ``v1/topdown/subset.go``, ``v1/topdown/json.go``, ``internal/edittree``; RFC 6901, RFC 6902.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any, Final

from pdp.wasm.builtins.values import DEPTH_MAX, Declined, RegoSet, Undefined, Value, order

WORK_MAX: Final = 50_000
"""Members visited and characters copied, at most, by one ``json.patch``."""

_INDEX: Final = re.compile("0|[1-9][0-9]{0,17}")
_ODD_INDEX: Final = re.compile(r"[+-]?\.0*|-0+(?:\.0*)?|\+[0-9]+(?:\.0*)?|[1-9][0-9]*\.0*")
"""What OPA takes as an index beside those: with a sign or a point, and even without a digit."""

_LOOKED_UP: Final = 0
_SCALAR: Final = 1
_COMPOSITE: Final = 2
_ABSENT: Final = object()
_MOVED_AT_ONCE: Final = 500
"""So many items of an array move in the time in which one member is visited."""


def subset(whole: Value, part: Value) -> Value:
    """Whether the second operand is part of the first: both objects, both sets, both arrays, or an array and a set.

    An object's keys must be there with values that are equal or, if both are objects, sets or arrays, themselves part of
    the other; a set's members must be there; an array must be there as one run. Of a set and an array OPA counts the items
    that are in the set, the same item twice if it stands twice: ``[1, 1]`` has ``{1, 2}``, and ``[]`` has not ``set()``.
    """
    _check_numbers(whole)
    _check_numbers(part)
    if isinstance(whole, list) and isinstance(part, RegoSet):
        wanted = set(map(order, part.members))
        return bool(whole) and sum(order(item) in wanted for item in whole) >= len(wanted)
    if (isinstance(whole, dict) and isinstance(part, dict)) or _both_listed(whole, part):
        return _has_part(whole, part)
    raise Undefined


def _both_listed(whole: Value, part: Value) -> bool:
    both_sets = isinstance(whole, RegoSet) and isinstance(part, RegoSet)
    return both_sets or (isinstance(whole, list) and isinstance(part, list))


def _has_part(whole: Value, part: Value) -> bool:
    if isinstance(whole, dict) and isinstance(part, dict):
        return all(key in whole and _has_part(whole[key], item) for key, item in part.items())
    if isinstance(whole, RegoSet) and isinstance(part, RegoSet):
        return set(map(order, part.members)) <= set(map(order, whole.members))
    if isinstance(whole, list) and isinstance(part, list):
        return _has_run(list(map(order, whole)), list(map(order, part)))
    return order(whole) == order(part)


def _has_run(items: Sequence[Any], run: Sequence[Any]) -> bool:
    """Whether ``run`` stands in ``items`` without a gap, in a time that grows with both lengths only."""
    numbers: dict[Any, int] = {}
    wanted = [numbers.setdefault(item, len(numbers)) for item in run]
    fallback = [0] * len(wanted)
    matched = 0
    for at in range(1, len(wanted)):
        while matched and wanted[at] != wanted[matched]:
            matched = fallback[matched - 1]
        matched += wanted[at] == wanted[matched]
        fallback[at] = matched
    matched = 0
    for item in items:
        if matched == len(wanted):
            break
        number = numbers.get(item, -1)
        while matched and number != wanted[matched]:
            matched = fallback[matched - 1]
        matched += number == wanted[matched]
    return matched == len(wanted)


def _check_numbers(value: Value) -> None:
    """Raises ``Declined`` for numbers that OPA's equality may take for others.

    OPA compares exactly, but as floats if both end in zeros after a point. Numbers that are the shortest spelling of their
    float are equal in both ways or in none; others are integers, or declined.
    """
    if isinstance(value, Decimal):
        if Decimal(repr(float(value))) != value:
            raise Declined("an equality of numbers beyond what a float holds")
    elif isinstance(value, (list, RegoSet)):
        for item in value if isinstance(value, list) else value.members:
            _check_numbers(item)
    elif isinstance(value, dict):
        for item in value.values():
            _check_numbers(item)


def json_patch(document: Value, operations: Value) -> Value:
    """The document with the operations applied one after another; undefined if one of them fails.

    Declined, where OPA's tree of edits goes wrong: a path below the root after the root was replaced, and a root that was
    removed (crashes); a path through an array item that an earlier operation moved (reads another item); moved array items
    of which one that was added or read is a scalar and its neighbour, too, but none (crashes); a set's removed member read
    again (crashes). Declined, because they are not worth it: a key that is no text for an object or a set; an array index
    such as ``+1`` or ``1.0``; work beyond ``WORK_MAX``; results deeper than ``DEPTH_MAX``.
    """
    if not isinstance(operations, list):
        raise Undefined
    tree = _Tree(document)
    for operation in operations:
        if not isinstance(operation, dict):
            raise Undefined
        _apply(tree, operation)
    return tree.read(())


def _apply(tree: _Tree, operation: dict[str, Any]) -> None:
    path, name = _path(_member(operation, "path")), operation.get("op")
    if name == "add":
        tree.insert(path, _member(operation, "value"))
    elif name == "remove":
        tree.remove(path)
    elif name == "replace":
        if path:
            tree.remove(path)
        tree.insert(path, _member(operation, "value"))
    elif name in ("copy", "move"):
        origin = _path(_member(operation, "from"))
        chunk = tree.read(origin)
        if name == "copy":
            tree.charge(chunk, 0, copied=True)
        elif origin:
            tree.remove(origin)
        elif path:
            raise Undefined  # nothing is left to insert into
        tree.insert(path, chunk)
    elif name == "test":
        tree.compare(path, operation)
    else:
        raise Undefined


def _member(operation: dict[str, Any], name: str) -> Value:
    if name not in operation:
        raise Undefined
    return operation[name]  # type: ignore[no-any-return]


def _path(written: Value) -> Sequence[Value]:
    """The keys of a path; raises ``Undefined`` for what is none."""
    if isinstance(written, list):
        return written
    if not isinstance(written, str):
        raise Undefined
    keys = written.lstrip("/").split("/") if written else []
    return [key.replace("~1", "/").replace("~0", "~") for key in keys]


def _text_key(key: Value) -> str:
    if not isinstance(key, str):
        raise Declined("json.patch with a key that is no text")
    return key


def _index(key: Value, length: int) -> int:
    """The index that a key means in an array, at most ``length``; raises ``Undefined`` and ``Declined``."""
    if isinstance(key, Decimal):
        raise Declined("json.patch with a fraction as an index")
    if isinstance(key, str) and key != "-":
        if not _INDEX.fullmatch(key):
            if _ODD_INDEX.fullmatch(key):
                raise Declined("json.patch with an unusual index")
            raise Undefined
        key = int(key)
    elif isinstance(key, str):
        return length
    if isinstance(key, bool) or not isinstance(key, int) or not 0 <= key <= length:
        raise Undefined
    return key


class _Object:
    """An object that is edited."""

    def __init__(self, members: dict[str, Value]) -> None:
        self._members: dict[str, _Held] = dict(members)

    def child(self, key: Value) -> _Held:
        """What stands at ``key``; raises ``Undefined``."""
        if not isinstance(key, str) or key not in self._members:
            raise Undefined
        self._members[key] = found = _editable(self._members[key])
        return found

    def insert(self, key: Value, value: Value) -> None:
        self._members[_text_key(key)] = value

    def remove(self, key: Value) -> None:
        if not isinstance(key, str) or self._members.pop(key, _ABSENT) is _ABSENT:
            raise Undefined

    def held(self) -> Sequence[_Held]:
        return list(self._members.values())

    def rebuilt(self, held: Sequence[Value]) -> Value:
        return dict(zip(self._members, held, strict=True))


class _Array:
    """An array that is edited. It knows of each item whether OPA's tree has it, as a scalar or not, or looks it up."""

    def __init__(self, items: list[Value]) -> None:
        self._items: list[_Held] = list(items)
        self._origins = list(range(len(items)))
        self._kinds = bytearray(len(items))

    def child(self, key: Value) -> _Held:
        """What stands at ``key``; raises ``Undefined`` and ``Declined``."""
        at = _index(key, len(self._items))
        if at == len(self._items):
            raise Undefined
        found = self._items[at]
        if self._kinds[at] == _LOOKED_UP:
            if self._origins[at] != at:
                raise Declined("json.patch through an array item that was moved")
            self.remove(at)  # as OPA does, for what it does to the others
            self.insert(at, found)
        self._items[at] = found = _editable(found)
        return found

    def insert(self, key: Value, value: _Held) -> None:
        at = _index(key, len(self._items))
        if self._kinds.find(bytes((_SCALAR, _COMPOSITE)), at) >= 0:
            raise Declined("json.patch of an array that OPA loses an item of")
        self._items.insert(at, value)
        self._origins.insert(at, -1)
        self._kinds.insert(at, _COMPOSITE if isinstance(value, _COMPOSITES) else _SCALAR)

    def remove(self, key: Value) -> None:
        at = _index(key, len(self._items))
        if at == len(self._items):
            raise Undefined
        if self._kinds.find(bytes((_COMPOSITE, _SCALAR)), at + 1) >= 0:
            raise Declined("json.patch of an array that OPA loses an item of")
        del self._items[at], self._origins[at], self._kinds[at]

    def held(self) -> Sequence[_Held]:
        return self._items

    def rebuilt(self, held: Sequence[Value]) -> Value:
        return list(held)


class _Set:
    """A set that is edited: members that are texts, by themselves as keys."""

    def __init__(self, members: Sequence[Value]) -> None:
        self._texts = {member: True for member in members if isinstance(member, str)}
        self._others = [member for member in members if not isinstance(member, str)]

    def child(self, key: Value) -> _Held:
        """The member itself; raises ``Undefined`` and ``Declined``."""
        there = self._texts.get(_text_key(key))
        if there is None:
            raise Undefined
        if not there:
            raise Declined("json.patch that reads what it removed from a set")
        return key

    def insert(self, key: Value, value: Value) -> None:
        if value != (text := _text_key(key)):
            raise Undefined
        self._texts[text] = True

    def remove(self, key: Value) -> None:
        if not self._texts.get(text := _text_key(key)):
            raise Undefined
        self._texts[text] = False

    def held(self) -> Sequence[_Held]:
        return [*self._others, *(text for text, there in self._texts.items() if there)]

    def rebuilt(self, held: Sequence[Value]) -> Value:
        return RegoSet.of(held)


_Held = Value | _Object | _Array | _Set
_COMPOSITES: Final = (list, dict, RegoSet, _Object, _Array, _Set)


def _editable(held: _Held) -> _Held:
    if isinstance(held, list):
        return _Array(held)
    if isinstance(held, dict):
        return _Object(held)
    if isinstance(held, RegoSet):
        return _Set(held.members)
    return held


class _Tree:
    """A document that is edited, and the work that it took."""

    def __init__(self, document: Value) -> None:
        self._root = _editable(document)
        self._is_replaced = False
        self._work = 0

    def read(self, path: Sequence[Value]) -> Value:
        """The value at ``path`` as it is by now."""
        return self._rendered(self._at(path))

    def insert(self, path: Sequence[Value], value: Value) -> None:
        """Put ``value`` at ``path``; an array makes room for it."""
        self.charge(value, len(path))
        if not path:
            self._root, self._is_replaced = _editable(value), True
            return
        self._parent(path).insert(path[-1], value)

    def remove(self, path: Sequence[Value]) -> None:
        """Take away what is at ``path``."""
        if not path:
            raise Declined("json.patch that removes the root")
        self._parent(path).remove(path[-1])

    def compare(self, path: Sequence[Value], operation: dict[str, Any]) -> None:
        """Raise ``Undefined`` unless the operation's value is at ``path``."""
        found = self.read(path)
        wanted = _member(operation, "value")
        for value in (found, wanted):
            self.charge(value, 0)
            _check_numbers(value)
        if order(found) != order(wanted):
            raise Undefined

    def charge(self, value: Value, depth: int, *, copied: bool = False) -> None:
        """Count the value's members as work, with their texts if ``copied``; raise ``Declined`` when too much or too deep."""
        if depth > DEPTH_MAX:
            raise Declined("json.patch that nests too deep")
        self._spend(1 + (len(value) if copied and isinstance(value, str) else 0))
        if isinstance(value, dict):
            if copied:
                self._spend(sum(map(len, value)))
            value = list(value.values())
        items = value if isinstance(value, list) else value.members if isinstance(value, RegoSet) else ()
        for item in items:
            self.charge(item, depth + 1, copied=copied)

    def _spend(self, work: int) -> None:
        self._work += work
        if self._work > WORK_MAX:
            raise Declined("json.patch with more work than is worth it")

    def _spend_on(self, parent: _Object | _Array | _Set) -> None:
        """Count one edit or look-up as work; those of an array may move its other items."""
        self._spend(1 + (len(parent.held()) // _MOVED_AT_ONCE if isinstance(parent, _Array) else 0))

    def _parent(self, path: Sequence[Value]) -> _Object | _Array | _Set:
        found = self._at(path[:-1], is_root_alone=False)
        if not isinstance(found, (_Object, _Array, _Set)):
            raise Undefined
        self._spend_on(found)
        return found

    def _at(self, path: Sequence[Value], *, is_root_alone: bool = True) -> _Held:
        if self._is_replaced and (path or not is_root_alone):
            raise Declined("json.patch below a root that it replaced")
        found = self._root
        for key in path:
            if not isinstance(found, (_Object, _Array, _Set)):
                raise Undefined
            self._spend_on(found)
            found = found.child(key)
        return found

    def _rendered(self, held: _Held) -> Value:
        if not isinstance(held, (_Object, _Array, _Set)):
            return held
        inner = held.held()
        self._spend(1 + len(inner))
        return held.rebuilt([self._rendered(item) for item in inner])


BUILTINS: Final[Mapping[str, Callable[..., Value]]] = {"json.patch": json_patch, "object.subset": subset}
"""Name to function; raise ``Undefined`` and ``Declined``."""
