"""The profile, call by call: what the operands of a builtin may look like, as far as a policy's text shows it.

Guarantees that a call without an error here is one that the embedded engine was measured to answer as OPA does, or that
ends the decision. Leaves to ``profile``: where the call stands.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any, Final, Literal

from bundles.pattern_syntax import PatternRefused, read_pattern

Severity = Literal["error", "warning"]

_ODD_PATTERN: Final = re.compile(r"\\[BCpPQz]|\(\?P?<|\\x00|\\x\{0+\}|\\0|[^\x20-\x7e]")
_ANSWERING_PATTERNS: Final = frozenset({"regex.match", "regex.is_valid"})
_FINDING_PATTERN_AT: Final = {
    "regex.find_all_string_submatch_n": 0,
    "regex.find_n": 0,
    "regex.replace": 1,
    "regex.split": 0,
}
"""Which operand is the pattern. Where it matches may differ even between engines that agree on whether it does."""
_EQUATIONS: Final = frozenset({"eq", "equal", "assign"})
_FALLIBLE: Final = frozenset(
    {
        *("div", "rem", "to_number", "numbers.range", "numbers.range_step"),
        *("hex.decode", "json.patch", "semver.compare", "units.parse", "units.parse_bytes"),
        *("net.cidr_contains_matches", "net.cidr_expand", "net.cidr_merge"),
        *("time.add_date", "time.clock", "time.date", "time.diff", "time.format", "time.weekday"),
        *("time.parse_duration_ns", "time.parse_ns", "time.parse_rfc3339_ns"),
        *("urlquery.decode", "urlquery.decode_object", "uri.parse"),
    }
)
_VERB: Final = re.compile(r"%(?:%|[-+ 0]*[0-9]{0,3}(?:\.[0-9]{0,3})?(?:\[[1-9][0-9]?\])?[vsdqxXfFeEgGboOtT])")


def call_findings(
    operation: str, arguments: Sequence[Any], *, restricting: bool
) -> Iterator[tuple[str, str, Severity]]:
    """Code, message and severity of everything that one call may not be; ``restricting`` in a rule such as ``deny``."""
    if operation in _ANSWERING_PATTERNS and not _is_plain_pattern(_operand(arguments, 0)):
        yield "pattern_outside_profile", f"{operation} takes a literal, plain ASCII pattern", "error"
    if operation in _FINDING_PATTERN_AT:
        refused = _refused_pattern(_operand(arguments, _FINDING_PATTERN_AT[operation]))
        if refused:
            yield "pattern_outside_profile", f"{operation} does not take {refused}", "error"
    if operation == "regex.find_all_string_submatch_n" and not _is_count(_operand(arguments, 2)):
        message = f"{operation} takes a literal number from -1: below it the module finds nothing, OPA everything"
        yield "count_outside_profile", message, "error"
    if operation == "replace" and not _is_text(_operand(arguments, 1)):
        yield "empty_replace", "replace takes a literal, non-empty text to look for", "error"
    if operation in _EQUATIONS and len(arguments) > 1 and _never_equal(arguments[0], arguments[1]):
        message = "literal lists or objects of different sizes are never equal, and Wasm loses a `not` before that"
        yield "sizes_differ", message, "error"
    if operation == "indexof" and not _is_text(_operand(arguments, 1)):
        yield "empty_search", "indexof takes a literal, non-empty text to look for", "error"
    if operation == "strings.replace_n" and not _is_one_replacement(_operand(arguments, 0)):
        message = (
            "strings.replace_n takes a literal object of one pair, whose key is a non-empty text: "
            "OPA replaces several in one pass, the module one after the other in what it wrote before"
        )
        yield "several_replacements", message, "error"
    if operation == "sprintf" and not _is_plain_format(_operand(arguments, 0)):
        message = "sprintf takes a literal format of %v %s %d %q %x %f %e %g %t and the like, with - + 0, a width and .precision"
        yield "format_outside_profile", message, "error"
    if restricting and operation in _FALLIBLE and not _reads_the_clock(operation, arguments):
        message = f"{operation} can fail, and a restriction that fails does not hold"
        yield "fallible_restriction", message, "warning"


def kind_of(node: Any) -> str:
    """The type of a term of a syntax tree; empty for what is none."""
    kind = node.get("type") if isinstance(node, dict) else None
    return kind if isinstance(kind, str) else ""


def _operand(arguments: Sequence[Any], index: int) -> Any:
    return arguments[index] if len(arguments) > index else None


def _is_plain_pattern(node: Any) -> bool:
    return kind_of(node) == "string" and not _ODD_PATTERN.search(node["value"])


def _reads_the_clock(operation: str, arguments: Sequence[Any]) -> bool:
    """Whether it is `time.parse_rfc3339_ns(input.context.time)`, which every question has."""
    operand = _operand(arguments, 0)
    if operation != "time.parse_rfc3339_ns" or kind_of(operand) != "ref":
        return False
    return [part.get("value") for part in operand["value"]] == ["input", "context", "time"]


def _refused_pattern(node: Any) -> str:
    """What of a pattern the host does not take; empty when it takes all of it."""
    if kind_of(node) != "string":
        return "a pattern that is no literal"
    try:
        read_pattern(node["value"])
    except PatternRefused as refused:
        return f"{refused} in a pattern"
    return ""


def _is_plain_format(node: Any) -> bool:
    return kind_of(node) == "string" and "%" not in _VERB.sub("", node["value"])


def _never_equal(left: Any, right: Any) -> bool:
    """Whether two literals hold lists or objects of different sizes in the same place."""
    if kind_of(left) != kind_of(right) or kind_of(left) not in ("array", "object"):
        return False
    if len(left["value"]) != len(right["value"]):
        return True
    if kind_of(left) == "object":
        return any(_never_equal(ours[1], theirs[1]) for ours in left["value"] for theirs in right["value"])
    return any(map(_never_equal, left["value"], right["value"]))


def _is_count(node: Any) -> bool:
    return kind_of(node) == "number" and node["value"] >= -1


def _is_text(node: Any) -> bool:
    return kind_of(node) == "string" and bool(node["value"])


def _is_one_replacement(node: Any) -> bool:
    return kind_of(node) == "object" and len(node["value"]) == 1 and _is_text(node["value"][0][0])
