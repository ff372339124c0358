"""Decisions given again: only where bundle and decision say so, never past lease, `exp` or a swap, and said so."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from bundles.trusted_set import TrustedBundle
from pdp.documents import Effect, PolicyInput, SubjectFacts
from pdp.errors import PolicyStale
from pdp.prepared import PolicyPlane
from tests.pdp.parts import QUESTION, asked, bundle_of


class Counting:
    """An engine that counts how often it is asked, and answers as told."""

    name = "counting"
    ready = True

    def __init__(self, **obligations: Any) -> None:
        self.effect = "ALLOW"
        self.obligations = obligations
        self.asked = 0

    def prepare(self, bundle: TrustedBundle) -> Counting:
        del bundle
        return self

    def decide(self, input_bytes: bytes) -> bytes:
        del input_bytes
        self.asked += 1
        reasons = [{"code": "why", "rule": "r", "message": "m"}]
        return orjson.dumps({"effect": self.effect, "obligations": self.obligations, "reasons": reasons})

    def renew(self) -> None:
        """Nothing to mend."""

    def close(self) -> None:
        """Nothing to free."""


def caching(**changed: Any) -> TrustedBundle:
    """A bundle that may be cached and whose policy asks for it."""
    files = {"policies/a/a.rego": b'package policies.a\n\ncache contains {"seconds": 60}\n'}
    return bundle_of(b"", cacheable=True, files=files, **changed)


class Clocks:
    """A wall clock, a steady one and a lease, set by hand."""

    def __init__(self) -> None:
        self.wall = 1000.0
        self.steady = 10.0
        self.leased = True

    def plane(self, engine: Counting) -> PolicyPlane:
        """A plane on these clocks."""
        return PolicyPlane(
            engine,  # type: ignore[arg-type]
            now=lambda: self.wall,
            seconds=lambda: self.steady,
            lease=lambda: self.leased,
        )

    def pass_seconds(self, seconds: float) -> None:
        """Time goes by."""
        self.wall += seconds
        self.steady += seconds


@pytest.fixture
def clocks() -> Clocks:
    """Clocks at some instant."""
    return Clocks()


async def decided(plane: PolicyPlane, question: PolicyInput = QUESTION) -> tuple[Effect, bool]:
    """Effect of a question, and whether the answer was given again."""
    answer = await plane.decide(question)
    return answer.decision.effect, bool(answer.cached)


async def test_decision_is_given_again_to_an_equal_question(clocks: Clocks) -> None:
    engine = Counting(cache_seconds=60)
    plane = clocks.plane(engine)
    await plane.load(caching())
    first = await plane.decide(QUESTION)
    again = await plane.decide(asked(call="another", time_unix=QUESTION.time_unix + 5))
    assert (engine.asked, first.cached, again.cached) == (1, False, True)
    assert again.decision == first.decision
    assert again.decision_id != first.decision_id, "each call has a decision of its own"
    assert again.input_digest != first.input_digest, "and the digest of its own question"


async def test_decision_says_that_none_is_kept_when_the_bundle_does_not_ask_for_it(clocks: Clocks) -> None:
    plane = clocks.plane(Counting())
    await plane.load(bundle_of(b"", cacheable=True))
    assert (await plane.decide(QUESTION)).cached is None


async def test_decision_is_made_anew_for_another_question(clocks: Clocks) -> None:
    engine = Counting(cache_seconds=60)
    plane = clocks.plane(engine)
    await plane.load(caching())
    foreign = QUESTION.subject._replace(tenant="globex")
    for question in (QUESTION, asked(args={"n": 2}), asked(ticket="T9"), asked(subject=foreign)):
        assert (await decided(plane, question))[1] is False
    assert engine.asked == 4


async def test_decision_is_never_given_again_when_the_bundle_may_not_be_cached(clocks: Clocks) -> None:
    engine = Counting()
    plane = clocks.plane(engine)
    await plane.load(bundle_of(b""))
    assert [await decided(plane) for _ in range(3)] == [(Effect.ALLOW, False)] * 3
    assert engine.asked == 3


async def test_decision_is_made_each_time_when_no_policy_mentions_caching(clocks: Clocks) -> None:
    engine = Counting(cache_seconds=60)
    plane = clocks.plane(engine)
    silent = {"policies/a/a.rego": b"package policies.a", "lib/tidegate/a.rego": b"# cache"}
    await plane.load(bundle_of(b"", cacheable=True, files=silent))
    assert [(await decided(plane))[1] for _ in range(2)] == [False, False]
    assert engine.asked == 2


async def test_decision_is_malformed_when_it_asks_for_caching_that_the_bundle_may_not_have(clocks: Clocks) -> None:
    plane = clocks.plane(Counting(cache_seconds=60))
    await plane.load(bundle_of(b""))
    answer = await plane.decide(QUESTION)
    assert (answer.decision.effect, answer.decision.reasons[0].code) == (Effect.DENY, "decision_malformed")


UNCACHED: dict[str, tuple[str, dict[str, Any]]] = {
    "does not ask for it": ("ALLOW", {}),
    "asks for no time": ("ALLOW", {"cache_seconds": 0}),
    "is a denial": ("DENY", {"cache_seconds": 60}),
    "is a hold": ("REQUIRE_HITL", {"cache_seconds": 60, "approval": {"chains": ["one-approver"]}}),
    "is no decision": ("PERHAPS", {"cache_seconds": 60}),
}


@pytest.mark.parametrize(("effect", "obligations"), UNCACHED.values(), ids=UNCACHED.keys())
async def test_decision_is_made_each_time_when_it(clocks: Clocks, effect: str, obligations: dict[str, Any]) -> None:
    engine = Counting(**obligations)
    engine.effect = effect
    plane = clocks.plane(engine)
    await plane.load(caching())
    assert [(await decided(plane))[1] for _ in range(2)] == [False, False]
    assert engine.asked == 2


async def test_decision_is_made_anew_when_its_time_is_over(clocks: Clocks) -> None:
    engine = Counting(cache_seconds=60)
    plane = clocks.plane(engine)
    await plane.load(caching())
    said = []
    for seconds in (0.0, 59.9, 0.1, 59.0):
        clocks.pass_seconds(seconds)
        said.append((await decided(plane))[1])
    assert said == [False, True, False, True]


async def test_kept_decision_counts_for_nothing_when_the_lease_has_ended(clocks: Clocks) -> None:
    plane = clocks.plane(Counting(cache_seconds=60))
    await plane.load(caching())
    await plane.decide(QUESTION)
    clocks.leased = False
    with pytest.raises(PolicyStale):
        await plane.decide(QUESTION)


async def test_kept_decision_counts_for_nothing_when_the_bundle_has_expired(clocks: Clocks) -> None:
    plane = clocks.plane(Counting(cache_seconds=60))
    await plane.load(caching(expires_at=1030))
    await plane.decide(QUESTION)
    clocks.pass_seconds(30)
    with pytest.raises(PolicyStale):
        await plane.decide(QUESTION)


async def test_kept_decision_counts_for_nothing_when_another_bundle_is_in_force(clocks: Clocks) -> None:
    engine = Counting(cache_seconds=60)
    plane = clocks.plane(engine)
    await plane.load(caching())
    await plane.decide(QUESTION)
    await plane.load(caching(revision="r2", digest="sha256:" + "1" * 64))
    assert await decided(plane) == (Effect.ALLOW, False)
    assert engine.asked == 2


async def test_kept_decision_is_no_other_subjects(clocks: Clocks) -> None:
    engine = Counting(cache_seconds=60)
    plane = clocks.plane(engine)
    await plane.load(caching())
    subject: SubjectFacts = QUESTION.subject
    for changed in (subject, subject._replace(id="other"), subject._replace(roles=("x",)), subject._replace(acr="phr")):
        assert (await decided(plane, asked(subject=changed)))[1] is False
