"""The library decides alike in OPA's Go engine and in Wasm, whatever elements a policy puts into its rules."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from bundles.compiler import Opa
from bundles.source import read_library
from pdp.agreement import agree

RULES = ("deny", "allow", "require_step_up", "require_hitl", "throttle", "route", "redact")
GOOD: dict[str, list[Any]] = {
    "deny": ["closed", {"code": "closed", "message": "it is late"}],
    "allow": ["anybody", {"code": "reader"}],
    "require_step_up": [{"code": "fresh", "acr_values": ["phr", "gold"], "max_age_seconds": 60}],
    "require_hitl": [
        {"code": "look", "chain": "one-approver"},
        {"code": "legal", "chain": "legal", "decide_within_seconds": 60, "on_approval": "dispatch"},
    ],
    "throttle": [{"code": "rate", "key": "a/b", "limit": 3, "window_seconds": 60}],
    "route": [{"code": "near", "target": "eu"}, {"code": "far", "target": "us", "fallback": ["eu"]}],
    "redact": [{"args": "/notes"}, {"response": "$.ssn"}],
}
ODD: list[Any] = [
    "", " ", 0, -1, 1.5, True, False, None, [], {}, ["x"], {"code": ""}, {"code": 1}, {"code": "c", "chain": ""},
    {"code": "c", "chain": "x", "decide_within_seconds": 0.5}, {"code": "c", "acr_values": "x", "max_age_seconds": 1},
    {"code": "c", "key": "k", "limit": 1e9, "window_seconds": 31622401}, {"args": "notes"}, {"target": "t"},
    {"code": "c", "message": ["m"]}, {"code": "é\u2028", "message": "\x00"}, 9007199254740991,
]  # fmt: skip
SEEDS_COUNT = 600


def _policies() -> dict[str, bytes]:
    """Packages whose rules hold what the arguments say: as sets, and as whatever value they are."""
    sets = "\n".join(f'{rule} contains x if some x in input.args["@"].{rule}' for rule in RULES)
    bare = "\n".join(f"{rule} := input.args.bare.{rule}" for rule in RULES)
    files = {
        f"policies/{name}/{name}.rego": f"package policies.{name}\n\n{sets.replace('@', name)}\n".encode()
        for name in ("crm", "common", "mail")
    }
    return files | {"policies/bare/bare.rego": f"package policies.bare\n\n{bare}\n".encode()}


def _rules(draw: random.Random, odd_share: float) -> dict[str, Any]:
    rules: dict[str, Any] = {}
    for rule in RULES:
        if draw.random() < (0.1 if rule == "deny" else 0.4):
            count = draw.choice((1, 1, 2))
            rules[rule] = [draw.choice(ODD if draw.random() < odd_share else GOOD[rule]) for _ in range(count)]
    return rules


def _input(seed: int) -> dict[str, Any]:
    draw = random.Random(seed)
    odd_share = draw.choice((0.0, 0.0, 0.1, 0.5))
    args: dict[str, Any] = {name: _rules(draw, odd_share) for name in ("crm", "common", "mail") if draw.random() < 0.6}
    if draw.random() < 0.1:
        args["bare"] = {draw.choice(RULES): draw.choice(ODD)}
    approval = {
        "state": draw.choice(("approved", "pending", 1)),
        "chains": draw.choice((["legal"], [], ["one-approver"])),
    }
    return {
        "subject": {"id": "a", "properties": {"roles": []}},
        "resource": {"properties": {"connector": draw.choice(("crm", "crm", "mail", "bare", "common", 2, None))}},
        "args": args,
        "context": {"approval": approval} if draw.random() < 0.4 else {},
    }


@pytest.fixture(scope="module")
def sources() -> dict[str, bytes]:
    """The library with the odd policies."""
    library, _ = read_library()
    return library | _policies()


def test_engines_agree_when_rules_hold_odd_elements(opa_path: Path, sources: dict[str, bytes]) -> None:
    opa = Opa(opa_path)
    wasm = opa.build_wasm(sources, entrypoints=["tidegate/decision"])
    inputs = [_input(seed) for seed in range(SEEDS_COUNT)]
    assert agree(sources, {}, wasm, inputs, opa_path) == []


def test_every_effect_is_reached_when_rules_are_drawn(opa_path: Path, sources: dict[str, bytes]) -> None:
    answers = Opa(opa_path).eval(sources, {}, [_input(seed) for seed in range(SEEDS_COUNT)])
    effects = {answer.value["effect"] for answer in answers if isinstance(answer.value, dict)}
    assert {answer.state for answer in answers} == {"defined"}
    assert effects == {"ALLOW", "DENY", "REQUIRE_HITL", "REQUIRE_STEP_UP", "THROTTLE", "ROUTE"}
