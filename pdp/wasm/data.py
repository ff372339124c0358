"""A bundle's data as the embedded engine gets it.

Guarantees one JSON object in which integral numbers are written as integers: the engine's array index, ``substring``
and ``array.slice`` are undefined for ``1.0``. Leaves the shape of the data to the build's and the bundle's own
checks.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import orjson

from bundles.canonical import outside_strings
from bundles.profile import check_data_shapes
from pdp.errors import PolicyRefused
from pdp.input_document import INTEGER_MAX

if TYPE_CHECKING:
    from bundles.canonical import JsonValue

_MAYBE_NUMERIC_NAME = re.compile(rb'"\s*[-+.]?[0-9][^"\\]*":')
_MAYBE_INTEGRAL = re.compile(rb"[0-9](?:\.0[,\]}]|\.0\Z|e[0-9+])")


def encode_data(data: Mapping[str, JsonValue]) -> bytes:
    """The data's bytes; raises ``PolicyRefused`` when it is no object of JSON values."""
    return b"".join(data_pieces(data, {}))


def data_pieces(data: Mapping[str, JsonValue], texts: Mapping[str, bytes]) -> tuple[bytes, ...]:
    """The bytes of ``data`` with ``texts`` beside it, not yet joined: copying 20 MB would hold the interpreter.

    Raises ``PolicyRefused`` when ``data`` is no object of JSON values.
    """
    if not isinstance(data, Mapping):
        raise PolicyRefused("the bundle's data is not an object", code="policy_data_invalid")
    try:
        pieces = [b"".join(_pieces(data))]
    except (TypeError, ValueError) as refused:
        raise PolicyRefused(f"the bundle's data is not JSON: {refused}", code="policy_data_invalid") from refused
    separator = b"," if data else b"{"
    for name, text in texts.items():
        pieces += [separator + _name(name) + b":", text]
        separator = b","
    return (*pieces, b"}" if data or texts else b"{}")


def split_data(
    data: Mapping[str, JsonValue], read_here: Container[str]
) -> tuple[dict[str, JsonValue], dict[str, bytes]]:
    """What of a bundle's data the gate reads itself, and the rest as texts for :func:`data_pieces`.

    A member that :func:`check_names` refuses stays with the first, so that whoever prepares it refuses it too.
    """
    kept: dict[str, JsonValue] = {}
    texts: dict[str, bytes] = {}
    for name, value in data.items():
        if name in read_here:
            kept[name] = value
            continue
        try:
            check_names({name: value})
        except PolicyRefused:
            kept[name] = value
        else:
            texts[name] = b"".join(_value(value))
    return kept, texts


def check_names(data: Mapping[str, JsonValue]) -> None:
    """Raise ``PolicyRefused`` when a member's name reads as a number.

    **Security**: OPA's store finds ``{"2": …}`` by the number 2, the compiled policy does not, and a denial that looks
    there is lost. The build refuses such data; a bundle that was signed without it is refused here.
    """
    try:
        _check_names(data)
    except (TypeError, ValueError) as refused:
        raise PolicyRefused(f"the bundle's data is not JSON: {refused}", code="policy_data_invalid") from refused


def _check_names(data: Mapping[str, JsonValue]) -> None:
    for name, value in data.items():
        inside = value.items() if isinstance(value, dict) else ((name, value),)
        suspects: list[tuple[str, JsonValue]] = [(name, None)]
        for key, item in inside:
            if _MAYBE_NUMERIC_NAME.search(orjson.dumps({key: item})):
                suspects.append((key, item))
        for suspect in suspects:
            findings = check_data_shapes(dict((suspect,)))
            if findings:
                raise PolicyRefused(f"in data.{name}: {findings[0].message}", code="policy_data_numeric_key")


def _pieces(data: Mapping[str, JsonValue]) -> Iterator[bytes]:
    separator = b"{"
    for name, value in data.items():
        yield separator + _name(name) + b":"
        yield from _value(value)
        separator = b","


def _value(value: JsonValue) -> Iterator[bytes]:
    if isinstance(value, dict) and value:
        separator = b"{"
        for key, item in value.items():
            yield separator + _name(key) + b":" + _written(item)
            separator = b","
        yield b"}"
    else:
        yield _written(value)


def _name(name: object) -> bytes:
    if not isinstance(name, str):
        raise TypeError("a key is not a string")
    return orjson.dumps(name)


def _written(value: JsonValue) -> bytes:
    raw = orjson.dumps(value)
    if _MAYBE_INTEGRAL.search(raw) is None or _MAYBE_INTEGRAL.search(outside_strings(raw)) is None:
        return raw  # what looked like a number stands in strings only
    return orjson.dumps(_integral(value))


def _integral(value: Any) -> Any:
    """Bounded depth: a bundle's JSON was parsed under a depth limit before it came here."""
    if isinstance(value, dict):
        return {key: _integral(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_integral(item) for item in value]
    if isinstance(value, float) and value.is_integer() and abs(value) <= INTEGER_MAX:
        return int(value)
    return value
