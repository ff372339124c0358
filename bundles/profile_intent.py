"""What an author meant to restrict and does not: sets that nobody reads, amounts that cannot be read.

Guarantees: a set of a policy whose name is nearly one that the library reads is an error, any other that nothing reads a
warning; so is a restriction that hangs on an amount without one for what is no amount. Leaves proof to tests.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from typing import Any, Final

from bundles.profile_calls import Severity
from bundles.syntax_tree import call_of, rules_of, walk, words_of

RESTRICTING: Final = frozenset({"deny", "require_hitl", "require_step_up", "throttle", "redact"})
READ_BY_NAME: Final = RESTRICTING | {"allow", "route", "cache"}
"""The rules of a policy that the library reads."""
NEARLY: Final = 0.8
_PARTIAL_HELPERS: Final = frozenset({"tidegate.hundredths", "tidegate.whole_number"})
"""Helpers whose value is undefined for what they cannot read."""


def names_read(tree: Mapping[str, Any]) -> frozenset[str]:
    """Every name that the bodies and values of a file's rules mention."""
    found: set[str] = set()
    for rule in rules_of(tree):
        head = rule.get("head", {})
        found |= words_of([rule.get("body"), head.get("key"), head.get("value"), head.get("args")])
    return frozenset(found)


def tested_helpers(tree: Mapping[str, Any], aliases: Mapping[str, tuple[str, ...]]) -> frozenset[tuple[str, str]]:
    """Restrictions by name, each with a helper whose failure one of its rules is about (`not tidegate.hundredths(…)`)."""
    return frozenset(
        (_name(rule), helper)
        for rule in rules_of(tree)
        for node, _ in walk(rule.get("body"), 0)
        if node.get("negated")
        for inner, _ in walk(node, 0)
        for helper in _helper(inner, aliases)
    )


def intent_findings(
    rule: Mapping[str, Any],
    aliases: Mapping[str, tuple[str, ...]],
    tested: frozenset[tuple[str, str]],
    read: frozenset[str],
) -> Iterator[tuple[str, str, Severity]]:
    """Code, message and severity of what one rule of a policy does not do though it looks so."""
    name, head = _name(rule), rule.get("head", {})
    plain = "key" in head and "value" not in head and len(head.get("ref", [])) == 1
    if plain and name not in READ_BY_NAME | read:
        near = difflib.get_close_matches(name, sorted(READ_BY_NAME), 1, NEARLY)
        if near:
            yield "rule_unread", f"nothing reads {name}; did you mean {near[0]}?", "error"
        else:
            yield "rule_unread", f"nothing reads {name}; the library reads {', '.join(sorted(READ_BY_NAME))}", "warning"
    if name in RESTRICTING:
        called = {helper for node, _ in walk(rule.get("body"), 0) for helper in _helper(node, aliases)}
        for helper in sorted(called):
            if (name, helper) not in tested:
                message = f"{helper} is undefined for what it cannot read, and the restriction does not hold then"
                mend = f"add `{name} contains … if not {helper}(…)`"
                yield "fallible_restriction", f"{message}: {mend}", "warning"


def _name(rule: Mapping[str, Any]) -> str:
    return str(rule.get("head", {}).get("name", ""))


def _helper(node: Mapping[str, Any], aliases: Mapping[str, tuple[str, ...]]) -> Iterator[str]:
    """The library's helper that a node calls, by its usual name, if it is one that can be undefined."""
    called = call_of(node)
    if called is None:
        return
    first, _, rest = called[0].partition(".")
    path = ".".join((*aliases.get(first, (first,)), *([rest] if rest else []))).removeprefix("data.")
    if path in _PARTIAL_HELPERS:
        yield path
