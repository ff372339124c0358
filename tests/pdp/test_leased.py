"""The plane and the lease: no answer without one that holds, and answers again when it does."""

from __future__ import annotations

import pytest

from bundles.trusted_set import TrustedBundle
from pdp.documents import Effect
from pdp.errors import PolicyStale
from pdp.prepared import PolicyPlane
from pdp.wasm.host import WasmEngine
from tests.pdp.parts import QUESTION


async def test_decide_is_stale_when_the_lease_has_ended_and_answers_when_it_holds_again(
    rules: TrustedBundle, engine: WasmEngine
) -> None:
    holds = True
    plane = PolicyPlane(engine, lease=lambda: holds)
    await plane.load(rules)
    before = await plane.decide(QUESTION)
    holds = False
    for _ in range(2):
        with pytest.raises(PolicyStale) as refused:
            await plane.decide(QUESTION)
        assert refused.value.code == "policy_stale"
    with pytest.raises(PolicyStale):
        await plane.decide_document({"v": 1})
    holds = True
    assert (await plane.decide(QUESTION)).decision == before.decision
    assert before.decision.effect in Effect
    await plane.close()
