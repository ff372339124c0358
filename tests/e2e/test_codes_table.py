"""Which test produces which code of ``docs/error-codes.md`` through a real socket, and which codes nothing can raise by now.

The list of codes is the gate's own. A code that is in neither table fails here, and so does one that is said to be out
of reach while the source names it: whoever begins to raise it also writes the test that produces it.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from gateway.edge.problem import CODES
from tests.e2e.harness import ROOT

HERE = Path(__file__).parent
PRODUCED = {
    "malformed_request": "test_bad_requests::test_gate_refuses_when_the_body_is_not_strict_json",
    "identity_missing": "test_bad_requests::test_gate_refuses_when_there_is_no_token",
    "identity_invalid": "test_bad_requests::test_gate_refuses_when_the_token_is_forged",
    "denied": "test_codes::test_denied_when_no_rule_matches",
    "vote_refused": "test_codes::test_vote_refused_when_the_voter_lacks_the_steps_role",
    "unclassified": "test_codes::test_unclassified_when_no_action_matches",
    "approval_required": "test_codes::test_approval_required_then_runs_once_when_a_person_approves",
    "approval_denied": "test_codes::test_approval_denied_when_a_person_denies_a_waiting_call",
    "approval_expired": "test_codes_policy::test_approval_expired_when_nobody_decides_while_the_call_waits",
    "killed": "test_codes::test_killed_until_cleared_when_a_switch_is_set",
    "egress_forbidden": "test_codes::test_egress_forbidden_when_the_address_is_metadata",
    "not_found": "test_codes::test_not_found_when_the_path_is_nothing",
    "method_not_allowed": "test_codes::test_method_not_allowed_when_the_path_takes_another",
    "too_slow": "test_codes::test_too_slow_when_the_body_does_not_end",
    "still_running": "test_codes::test_still_running_when_the_key_is_in_use",
    "stale_state": "test_codes::test_stale_state_when_the_vote_is_on_another_digest",
    "body_too_large": "test_bad_requests::test_gate_refuses_before_reading_when_the_body_is_1_gib",
    "uri_too_long": "test_bad_requests::test_gate_refuses_when_the_target_is_too_long",
    "headers_too_large": "test_bad_requests::test_gate_refuses_when_there_are_100000_headers",
    "arguments_invalid": "test_codes::test_arguments_invalid_names_each_place_when_the_schema_refuses",
    "idempotency_mismatch": "test_codes::test_idempotency_mismatch_when_the_key_names_another_call",
    "throttled": "test_codes_limits::test_throttled_when_the_gate_has_as_many_calls_as_it_may",
    "upstream_failed": "test_codes::test_upstream_failed_when_it_refuses_the_connection",
    "upstream_timeout": "test_codes::test_upstream_timeout_when_a_read_hangs",
    "outcome_unknown": "test_codes::test_outcome_unknown_and_sent_once_when_a_write_gets_no_answer",
    "policy_stale": "test_codes_policy::test_policy_stale_when_the_rulebook_has_expired",
    "policy_unavailable": "test_codes_policy::test_policy_unavailable_when_no_rulebook_is_in_force",
    "engine_failed": "test_codes_policy::test_engine_failed_and_nothing_is_sent_when_a_rule_runs_away",
    "ledger_unavailable": "test_codes_limits::test_ledger_unavailable_when_no_record_can_be_written",
}
NOT_YET = {
    "header_mismatch": "for headers that MCP requires to agree with the body; MCP is not served by this version",
    "idempotency_key_missing": "no manifest can demand a key by now, so no action misses one",
    "step_up_required": "REQUIRE_STEP_UP is not enforced by this version: `denied` with the reason `not_supported`",
    "budget_exhausted": "there are no budgets in this version; a budget obligation is `denied`, `not_supported`",
    "quarantined": "nothing puts a caller or a target into quarantine in this version",
    "window_closed": "windows are conditions of rules; no obligation names one by now",
    "agent_unavailable": "there are no agents in this version, so no call waits for one",
}
BAD_REQUESTS = {
    "no token": "test_bad_requests::test_gate_refuses_when_there_is_no_token",
    "expired": "test_bad_requests::test_gate_refuses_when_the_token_is_signed_and_not_acceptable[expired]",
    "wrong audience": (
        "test_bad_requests::test_gate_refuses_when_the_token_is_signed_and_not_acceptable[for another audience]"
    ),
    "alg: none": "test_bad_requests::test_gate_refuses_when_the_token_is_forged[alg none]",
    "HS256 with the public key": (
        "test_bad_requests::test_gate_refuses_when_the_token_is_forged[HS256 with the public key]"
    ),
    "both Content-Length and chunked": (
        "test_bad_requests::test_gate_refuses_when_the_body_has_two_lengths[a length, then chunked]"
    ),
    "..": "test_bad_requests::test_gate_refuses_when_the_path_has_two_readings[dot segments]",
    "%2e%2e": "test_bad_requests::test_gate_refuses_when_the_path_has_two_readings[encoded dot segments]",
    "double encoding in the path": (
        "test_bad_requests::test_gate_refuses_when_the_path_has_two_readings[doubly encoded dot segments]"
    ),
    "null bytes in the path": "test_bad_requests::test_gate_refuses_when_the_path_has_two_readings[a null byte]",
    "null bytes in the body": "test_bad_requests::test_gate_refuses_when_the_body_is_not_strict_json[a null byte]",
    "absolute-form to another host": (
        "test_bad_requests::test_gate_refuses_when_the_target_names_another_host[the metadata address]"
    ),
    "100,000 headers": "test_bad_requests::test_gate_refuses_when_there_are_100000_headers",
    "1 GB body": "test_bad_requests::test_gate_refuses_before_reading_when_the_body_is_1_gib",
    "slow body": "test_codes::test_too_slow_when_the_body_does_not_end",
    "invalid JSON": "test_bad_requests::test_gate_refuses_when_the_body_is_not_strict_json[cut JSON]",
    "invalid UTF-8": "test_bad_requests::test_gate_refuses_when_the_body_is_not_strict_json[invalid UTF-8]",
    "NaN": "test_bad_requests::test_gate_refuses_when_the_body_is_not_strict_json[NaN]",
    "10,000-deep JSON": "test_bad_requests::test_gate_refuses_when_the_body_is_not_strict_json[10,000 levels]",
    "duplicate JSON keys in arguments": (
        "test_bad_requests::test_gate_refuses_when_the_body_is_not_strict_json[a duplicate key]"
    ),
}
RAISING = ("gateway", "pdp", "bundles", "cli")
TABLE = ROOT / "gateway" / "edge" / "problem.py"


@cache
def _tree(module: str) -> ast.Module:
    return ast.parse((HERE / f"{module}.py").read_text(encoding="utf-8"))


def _test(node: str) -> tuple[ast.FunctionDef | None, ast.Module]:
    module, _, name = node.partition("[")[0].partition("::")
    tree = _tree(module)
    found = [each for each in tree.body if isinstance(each, ast.FunctionDef) and each.name == name]
    return found[0] if found else None, tree


def _texts(node: ast.AST) -> set[str]:
    return {each.value for each in ast.walk(node) if isinstance(each, ast.Constant) and isinstance(each.value, str)}


def _case_ids(function: ast.FunctionDef, tree: ast.Module) -> set[str]:
    """The texts of the tables that a test's decorators name, its cases' ids among them."""
    named = {each.id for mark in function.decorator_list for each in ast.walk(mark) if isinstance(each, ast.Name)}
    found: set[str] = set()
    for statement in tree.body:
        if isinstance(statement, ast.Assign) and any(_is_named(target, named) for target in statement.targets):
            found |= _texts(statement.value)
    return found


def _is_named(target: ast.expr, names: set[str]) -> bool:
    return isinstance(target, ast.Name) and target.id in names


def _named_in_source(code: str) -> Iterator[str]:
    for package in RAISING:
        for path in sorted((ROOT / package).rglob("*.py")):
            if path != TABLE and code in _texts(ast.parse(path.read_text(encoding="utf-8"))):
                yield str(path.relative_to(ROOT))


def test_every_code_is_produced_by_a_test_or_cannot_occur_by_now() -> None:
    assert sorted(PRODUCED.keys() & NOT_YET.keys()) == []
    assert sorted(CODES.keys() - PRODUCED.keys() - NOT_YET.keys()) == [], "produce these through a socket"
    assert sorted((PRODUCED.keys() | NOT_YET.keys()) - CODES.keys()) == [], "these are no codes"


@pytest.mark.parametrize("code", sorted(PRODUCED))
def test_named_test_expects_the_code_and_its_status_when_it_is_said_to_produce_it(code: str) -> None:
    function, _ = _test(PRODUCED[code])
    assert function is not None, f"there is no {PRODUCED[code]}"
    compared = [each for each in ast.walk(function) if isinstance(each, ast.Compare)]
    expected = [each for compare in compared for each in compare.comparators if isinstance(each, ast.Tuple)]
    wanted = [CODES[code].status, code]
    assert any([getattr(part, "value", None) for part in each.elts] == wanted for each in expected), wanted


@pytest.mark.parametrize("code", sorted(NOT_YET))
def test_code_is_raised_nowhere_when_it_is_said_that_it_cannot_occur(code: str) -> None:
    assert NOT_YET[code]
    assert list(_named_in_source(code)) == [], "it can occur now: produce it through a socket"


@pytest.mark.parametrize("item", sorted(BAD_REQUESTS))
def test_named_test_exists_when_the_list_of_bad_requests_names_it(item: str) -> None:
    node = BAD_REQUESTS[item]
    function, tree = _test(node)
    assert function is not None, f"there is no {node}"
    case = node.partition("[")[2].removesuffix("]")
    assert not case or case in _case_ids(function, tree), f"there is no case {case}"
