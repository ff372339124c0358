"""The plane and the lease: no answer without one that holds, and answers again when it does."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bundles.trusted_set import TrustedBundle
from pdp.documents import Effect
from pdp.errors import PolicyStale, PolicyUnavailable
from pdp.prepared import Answer, PolicyPlane
from pdp.wasm.host import WasmEngine
from tests.pdp.parts import ALLOW, QUESTION, bundle_of


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


async def test_nothing_is_decided_when_the_bundle_is_not_the_tenants(rules: TrustedBundle, engine: WasmEngine) -> None:
    tenants = {"globex"}
    plane = PolicyPlane(engine, decides_for=tenants.__contains__)
    await plane.load(rules)
    document = {"subject": {"properties": {"tenant": "acme"}}}
    for question in (plane.decide(QUESTION), plane.decide_document(document), plane.decide_document({"subject": {}})):
        with pytest.raises(PolicyUnavailable) as refused:
            await question
        assert refused.value.code == "policy_unavailable"
    assert not plane.may_decide("acme") and not plane.stands(rules.digest, "acme")
    assert plane.may_decide() and plane.may_decide("globex") and plane.stands(rules.digest, "globex")
    tenants.add("acme")
    decided = await plane.decide(QUESTION)
    assert plane.stands(decided.bundle_digest, "acme")
    await plane.close()


class Clocks:
    """A wall clock and a lease, set by hand."""

    def __init__(self) -> None:
        self.wall = 1000.0
        self.leased = True


class Waited:
    """An engine that is waited for; the lease ends, or not, while it thinks."""

    def __init__(self, clocks: Clocks, *, ends: bool) -> None:
        self._clocks = clocks
        self._ends = ends
        self.name = "waited"

    async def connect(self, bundle: TrustedBundle) -> Waited:
        """It answers for every bundle."""
        return self

    async def ask(self, input_bytes: bytes) -> Answer:
        """Let everything."""
        self._clocks.leased = not self._ends
        return Answer(ALLOW)

    async def close(self) -> None:
        """Nothing to free."""


FELL = {
    "nothing was loaded": "unloaded",
    "another bundle is in force": "another",
    "the lease has ended": "unleased",
    "the bundle has expired": "expired",
    "the plane is closed": "closed",
}


@pytest.mark.parametrize("what", FELL.values(), ids=FELL.keys())
async def test_decision_no_longer_stands_when(what: str) -> None:
    clocks = Clocks()
    plane = PolicyPlane(Waited(clocks, ends=False), now=lambda: clocks.wall, lease=lambda: clocks.leased)
    bundle = replace(bundle_of(b""), expires_at=2000)
    if what != "unloaded":
        await plane.load(bundle)
        assert plane.stands(bundle.digest) and plane.may_decide()
    if what == "another":
        await plane.load(replace(bundle, digest="sha256:another"))
    elif what == "closed":
        await plane.close()
    clocks.leased = what != "unleased"
    clocks.wall = 2000.0 if what == "expired" else clocks.wall
    assert not plane.stands(bundle.digest)
    assert plane.may_decide() is (what == "another")


@pytest.mark.parametrize("ends", [False, True], ids=["while it holds", "after its end"])
async def test_answer_that_was_waited_for_counts_only_when_it_comes_while_the_lease_holds(ends: bool) -> None:
    clocks = Clocks()
    plane = PolicyPlane(Waited(clocks, ends=ends), lease=lambda: clocks.leased)
    await plane.load(bundle_of(b""))
    if not ends:
        assert (await plane.decide(QUESTION)).decision.effect is Effect.ALLOW
        return
    with pytest.raises(PolicyStale):
        await plane.decide(QUESTION)
