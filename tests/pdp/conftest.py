"""Policies compiled once a run."""

from __future__ import annotations

from pathlib import Path

import pytest

from bundles.trusted_set import TrustedBundle
from pdp.wasm.host import WasmEngine
from tests.pdp.parts import RULES, bundle_of, compile_rego


@pytest.fixture(scope="session")
def rules_wasm(opa_path: Path) -> bytes:
    """The small policy of the tests, compiled."""
    return compile_rego(opa_path, {"rules.rego": RULES})


@pytest.fixture(scope="session")
def engine() -> WasmEngine:
    """An embedded engine without a cache."""
    return WasmEngine()


@pytest.fixture
def rules(rules_wasm: bytes) -> TrustedBundle:
    """The small policy as a verified bundle."""
    return bundle_of(rules_wasm)
