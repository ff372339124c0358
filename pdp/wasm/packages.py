"""Which packages a bundle's Rego defines, and whether its data keeps out of their way.

Guarantees that data which passes here can neither replace nor extend a rule. Reading Rego properly is the compiler's
work at build; here only each file's package statement is read, and a file where that is not plain is refused.

**Security**: the embedded engine merges data into packages of the same path, so data could override a rule.
**Source**: the grammar of Rego, ``package`` and references with dots or quoted brackets.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import orjson

from pdp.errors import PolicyRefused

if TYPE_CHECKING:
    from bundles.canonical import JsonValue
    from bundles.content import BundleContent

PACKAGE_DEPTH_MAX = 32

_BLANK = r"(?:\s|#[^\n]*(?:\n|\Z))"
_STEP = r'(?:\.[A-Za-z_][A-Za-z0-9_]*|\["(?:[^"\\\n]|\\.)*"\])'
_PACKAGE = re.compile(rf"\ufeff?{_BLANK}*+package\s++([A-Za-z_][A-Za-z0-9_]*)({_STEP}*+)(?=\s|#|;|\Z)")
_STEPS = re.compile(_STEP)


def package_paths(rego: Mapping[str, bytes]) -> frozenset[tuple[str, ...]]:
    """The data paths of the packages of all files; raises ``PolicyRefused`` for a file without a plain statement."""
    return frozenset(_package_path(name, raw) for name, raw in rego.items())


def check_apart(data: Mapping[str, JsonValue], packages: Iterable[tuple[str, ...]]) -> None:
    """Raise ``PolicyRefused`` when data has a value at a package's path or blocks the way to it."""
    for path in packages:
        value: object = data
        for depth, step in enumerate(path):
            if not isinstance(value, Mapping):
                raise PolicyRefused(
                    f"data.{'.'.join(path[:depth])} is in the way of a package", code="policy_data_overlap"
                )
            if step not in value:
                break
            value = value[step]
        else:
            raise PolicyRefused(f"data.{'.'.join(path)} is a package", code="policy_data_overlap")


def check_texts_apart(bundle: BundleContent, packages: Iterable[tuple[str, ...]]) -> None:
    """Raise ``PolicyRefused`` when a text of data stands where a package begins, or beside data of the same name.

    **Security**: what a text holds is not looked into, so it may not share even its first step with a package.
    """
    taken = bundle.texts.keys() & (bundle.data.keys() | {path[0] for path in packages})
    if taken:
        raise PolicyRefused(f"data.{min(taken)} is given twice or begins a package", code="policy_data_overlap")


def _package_path(name: str, raw: bytes) -> tuple[str, ...]:
    try:
        found = _PACKAGE.match(raw.decode("utf-8"))
    except UnicodeDecodeError as refused:
        raise PolicyRefused(f"{name} is not UTF-8", code="policy_package_unreadable") from refused
    if found is None:
        raise PolicyRefused(f"{name} does not start with a package statement", code="policy_package_unreadable")
    path = [found[1]]
    for step in _STEPS.findall(found[2]):
        path.append(step[1:] if step[0] == "." else _quoted(name, step[1:-1]))
    if len(path) > PACKAGE_DEPTH_MAX:
        raise PolicyRefused(f"the package of {name} is too deep", code="policy_package_unreadable")
    return tuple(path)


def _quoted(name: str, literal: str) -> str:
    try:
        return str(orjson.loads(literal))
    except orjson.JSONDecodeError as refused:
        raise PolicyRefused(f"the package of {name} cannot be read", code="policy_package_unreadable") from refused
