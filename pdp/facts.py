"""Which facts a policy reads, found in its text, and which of them a question lacks.

Guarantees a bounded, repeatable answer from Rego source alone: references below ``input`` in the packages that may grant
the call, and in the library rules that these name. Leaves out what only a run can know (a key that is computed); a
policy is never decided by this, only explained.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from bundles.canonical import JsonValue

FactPath = tuple[str, ...]

FACTS_MAX_COUNT: Final = 64
LIBRARY: Final = "tidegate"
_PREFIX: Final = "policies/"
_TESTS: Final = "_test.rego"

# Strings and comments are matched so that what stands inside them is passed over.
_TOKEN = re.compile(
    r"`[^`]*`"
    r"|(?<![\w.])input(?P<path>(?:\.[A-Za-z_]\w*|\[\"[^\"\\\n]*\"\])+)"
    r"|\"(?:\\.|[^\"\\\n])*\""
    r"|#[^\n]*"
    rf"|(?<![\w.])(?:data\.)?{LIBRARY}\.(?P<shared>[A-Za-z_]\w*)"
    r"|(?<![\w.])(?P<word>[A-Za-z_]\w*)"
)
_STEP = re.compile(r"\.([A-Za-z_]\w*)|\[\"([^\"\\\n]*)\"\]")
_RULE = re.compile(r"^(?:default\s+)?([A-Za-z_]\w*)", re.MULTILINE)


def facts_read(rego: Mapping[str, bytes], connector: str) -> frozenset[FactPath]:
    """The paths below ``input`` that the policies for ``connector``, or ``common``, read, helpers included."""
    library = _library(rego)
    facts: set[FactPath] = set()
    open_names: list[str] = []
    for name, raw in sorted(rego.items()):
        if name.startswith((f"{_PREFIX}{connector}/", f"{_PREFIX}common/")) and not name.endswith(_TESTS):
            read, shared, _ = _scanned(raw.decode("utf-8", "replace"))
            facts |= read
            open_names += shared
    seen: set[str] = set()
    while open_names:
        rule = open_names.pop()
        if rule in seen or rule not in library:
            continue
        seen.add(rule)
        read, shared, words = _scanned(library[rule])
        facts |= read
        open_names += [*shared, *words]
    return frozenset(facts)


def missing_facts(rego: Mapping[str, bytes], document: Mapping[str, Any]) -> tuple[str, ...]:
    """The facts that the policies of the call's connector read and ``document`` lacks, as ``context.ticket``; sorted.

    Of several inside something that is missing as a whole, only the whole is named.
    """
    connector = _at(document, ("resource", "properties", "connector"))
    if not isinstance(connector, str):
        return ("resource.properties.connector",)
    lacking = {absent for path in facts_read(rego, connector) if (absent := _absent(document, path)) is not None}
    return tuple(".".join(path) for path in sorted(lacking)[:FACTS_MAX_COUNT])


def _scanned(text: str) -> tuple[set[FactPath], set[str], set[str]]:
    """Paths below ``input``, names asked of the library, and every other word."""
    facts: set[FactPath] = set()
    shared: set[str] = set()
    words: set[str] = set()
    for found in _TOKEN.finditer(text):
        if found["path"] is not None:
            facts.add(tuple(plain or quoted for plain, quoted in _STEP.findall(found["path"])))
        elif found["shared"] is not None:
            shared.add(found["shared"])
        elif found["word"] is not None:
            words.add(found["word"])
    return facts, shared, words


def _library(rego: Mapping[str, bytes]) -> dict[str, str]:
    """The library's rules by name; the texts of several with one name stand together."""
    rules: dict[str, str] = {}
    for name, raw in sorted(rego.items()):
        if name.startswith(f"lib/{LIBRARY}/") and not name.endswith(_TESTS):
            for rule, text in _rules(raw.decode("utf-8", "replace")):
                rules[rule] = f"{rules.get(rule, '')}\n{text}"
    return rules


def _rules(text: str) -> Iterator[tuple[str, str]]:
    """Each rule that begins at a line's first column, to where the next one begins."""
    begins = list(_RULE.finditer(text))
    for found, following in zip(begins, [*begins[1:], None], strict=True):
        yield found[1], text[found.start() : following.start() if following is not None else len(text)]


def _absent(document: Mapping[str, Any], path: FactPath) -> FactPath | None:
    """The shortest beginning of ``path`` that is not there; None when all of it is."""
    value: JsonValue = dict(document)
    for depth, step in enumerate(path):
        if not isinstance(value, dict) or step not in value:
            return path[: depth + 1]
        value = value[step]
    return None


def _at(document: Mapping[str, Any], path: FactPath) -> Any:
    value: Any = document
    for step in path:
        value = value.get(step) if isinstance(value, Mapping) else None
    return value
