"""Which builtins the host answers: each was held against all of OPA's cases for it and against drawn values.

Guarantees that a name which is not here is not answered. ``rego/capabilities.json`` declares the same names to OPA's
compiler, so that a policy with another is refused at build, at its line.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from pdp.wasm.builtins import addresses, digests, documents, formatting, numbers, semver, texts, times
from pdp.wasm.builtins.values import Value

Builtin = Callable[..., Value]

PATTERNS = frozenset(("regex.find_n", "regex.replace", "regex.split"))
"""Those of ``patterns``, which is loaded for policies that use one: its library is large."""

_LOADED: Mapping[str, Builtin] = {
    **addresses.BUILTINS,
    **digests.BUILTINS,
    **documents.BUILTINS,
    **formatting.BUILTINS,
    **numbers.BUILTINS,
    **semver.BUILTINS,
    **texts.BUILTINS,
    **times.BUILTINS,
}
NAMES = PATTERNS | _LOADED.keys()


def find(names: Iterable[str]) -> dict[str, Builtin]:
    """The functions of those of ``names`` that the host answers."""
    known = _LOADED
    if not PATTERNS.isdisjoint(names := frozenset(names)):
        from pdp.wasm.builtins import patterns

        known = {**_LOADED, **patterns.BUILTINS}
    return {name: known[name] for name in names if name in known}
