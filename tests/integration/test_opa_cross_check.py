"""The cross-check before a real OPA: what is decided alike, what is not, and an error that only OPA makes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry

from bundles.keys import public_pem
from cli.init import starter_config
from gateway.config import load_config
from gateway.cross_checking import CrossChecker, CrossCheckParts
from gateway.watching import DecisionWatch
from pdp.cross_check import CrossDifference
from pdp.decided import Decided
from pdp.documents import Decision, Effect, PolicyInput, Reason
from tests.bundles.parts import good_files, signed, signing_key, verified
from tests.gateway.store.build import OpenStore, open_store
from tests.integration.opa_process import OpaProcess
from tests.pdp.parts import QUESTION

RULES = b"""package tidegate

decision := {"effect": effect, "reasons": reasons, "obligations": {}}

default effect := "DENY"

effect := "ALLOW" if "reader" in input.subject.properties.roles

effect := "DENY" if "torn" in input.subject.properties.roles

reasons contains {"code": role, "rule": "policies.x", "message": ""} if some role in input.subject.properties.roles
"""
RAW = signed({name: raw for name, raw in good_files().items() if "/" not in name} | {"lib/tidegate/d.rego": RULES})


class Held:
    """A quarantine that remembers."""

    def __init__(self) -> None:
        self.begun: list[CrossDifference] = []

    @property
    def is_held(self) -> bool:
        return bool(self.begun)

    async def begin(self, difference: CrossDifference) -> None:
        self.begun.append(difference)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, opa_path: Path) -> Iterator[OpaProcess]:
    """OPA with the bundle, verification on."""
    with OpaProcess.start(tmp_path_factory.mktemp("opa"), RAW, public_pem(signing_key())) as running:
        yield running


@pytest.fixture
async def opened(tmp_path: Path) -> AsyncIterator[OpenStore]:
    """A store."""
    async with open_store(tmp_path) as made:
        yield made


def asked_as(*roles: str) -> PolicyInput:
    return QUESTION._replace(subject=QUESTION.subject._replace(roles=roles))


def told(effect: Effect, *roles: str) -> Decision:
    return Decision(effect, tuple(Reason(role, "policies.x", "") for role in sorted(roles)))


CASES: dict[str, tuple[tuple[str, ...], Decision, str | None]] = {
    "both let a reader": (("reader",), told(Effect.ALLOW, "reader"), None),
    "both deny a stranger": ((), told(Effect.DENY), None),
    "both name all roles in any order": (("z", "reader", "a"), told(Effect.ALLOW, "a", "reader", "z"), None),
    "ours lets a stranger": ((), told(Effect.ALLOW), "tightening"),
    "ours lost a reason": (("reader", "z"), told(Effect.ALLOW, "reader"), "reasons"),
    "ours decides what OPA finds contradictory": (
        ("reader", "torn"),
        told(Effect.ALLOW, "reader", "torn"),
        "tightening",
    ),
}


@pytest.mark.parametrize(("roles", "ours", "kind"), CASES.values(), ids=CASES.keys())
@pytest.mark.parametrize("listener", ["url", "socket_url"], ids=["loopback", "Unix socket"])
async def test_cross_check_tells_with_a_real_opa_when(
    server: OpaProcess, opened: OpenStore, listener: str, roles: tuple[str, ...], ours: Decision, kind: str | None
) -> None:
    bundle, held, watch, said = verified(RAW), Held(), DecisionWatch(), list[tuple[str, Any]]()
    settings = {"opa": getattr(server, listener), "share": 1, "on_difference": "quarantine"}
    config = load_config(yaml.safe_dump({**starter_config(), "cross_check": settings}), Path("/base"), {})
    checker = CrossChecker(
        CrossCheckParts(opened.writer, CollectorRegistry(), watch, held, lambda *line: said.append(line))
    )
    await checker.configure(config, bundle)
    decided = Decided(ours, bundle.revision, bundle.digest, bundle.sequence, "wasm", "d1", "sha256:in", 0.0)
    watch.asked(asked_as(*roles), decided)
    await checker.close()
    assert [difference.kind.value for difference in held.begun] == ([] if kind is None else [kind])
    assert [what for what, _ in said] == ([] if kind is None else ["cross_check_difference"])
