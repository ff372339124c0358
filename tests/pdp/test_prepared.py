"""The policy in force: swaps, probes, failures, and what becomes of a question meanwhile."""

from __future__ import annotations

import asyncio
import hashlib
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bundles.trusted_set import Probe, TrustedBundle
from pdp.decided import REFUSED_BY
from pdp.documents import Effect, encode_input
from pdp.errors import EngineFailed, InputRefused, PdpError, PolicyRefused, PolicyStale, PolicyUnavailable
from pdp.prepared import Answer, PolicyPlane
from pdp.probes import PROBES_MAX_COUNT
from pdp.wasm.data import encode_data
from pdp.wasm.host import WasmEngine
from tests.pdp.parts import ALLOW, QUESTION, RULES, asked, bundle_of, compile_rego, in_environment

DENY = b'{"effect":"DENY","obligations":{},"reasons":[{"code":"no","rule":"r","message":"m"}]}'


class Simulated:
    """An engine that answers as told; a failed policy stands again after ``renew``."""

    name = "simulated"

    def __init__(self, answer: Callable[[bytes], bytes] = lambda _: ALLOW) -> None:
        self.answer = answer
        self.may_renew = threading.Event()
        self.may_renew.set()
        self.may_prepare = threading.Event()
        self.may_prepare.set()
        self.made: list[SimulatedPolicy] = []
        self.renewal: PdpError | None = None

    def prepare(self, bundle: TrustedBundle) -> SimulatedPolicy:
        self.may_prepare.wait(5)
        if bundle.revision == "refused":
            raise PolicyRefused("by the test", code="policy_wasm_invalid")
        policy = SimulatedPolicy(self, bundle.revision)
        self.made.append(policy)
        return policy


class SimulatedPolicy:
    name = "simulated"

    def __init__(self, engine: Simulated, revision: str) -> None:
        self.engine = engine
        self.revision = revision
        self.ready = True
        self.closed = False
        self.asked_on: set[int] = set()

    def decide(self, input_bytes: bytes) -> bytes:
        if self.closed:
            raise EngineFailed("closed")
        self.asked_on.add(threading.get_ident())
        try:
            return self.engine.answer(input_bytes)
        except EngineFailed:
            self.ready = False
            raise

    def renew(self) -> None:
        self.engine.may_renew.wait(5)
        if self.closed:
            raise EngineFailed("closed")
        if self.engine.renewal is not None:
            raise self.engine.renewal
        self.ready = True

    def close(self) -> None:
        self.closed = True
        self.ready = False


def revision(name: str, **changes: Any) -> TrustedBundle:
    """A bundle of that revision, without a module."""
    return bundle_of(None, revision=name, **changes)


async def loaded(engine: Simulated, **clocks: Callable[[], float]) -> PolicyPlane:
    """A plane with revision r1 in force."""
    plane = PolicyPlane(engine, **clocks)  # type: ignore[arg-type]
    await plane.load(revision("r1"))
    return plane


async def test_decide_is_unavailable_when_nothing_was_loaded() -> None:
    plane = PolicyPlane(Simulated())
    assert plane.current() is None
    with pytest.raises(PolicyUnavailable) as refused:
        await plane.decide(QUESTION)
    assert refused.value.code == "policy_unavailable"
    await plane.close()


async def test_decide_says_everything_a_record_needs_when_policy_answers(
    rules: TrustedBundle, engine: WasmEngine
) -> None:
    ticks = iter((10.0, 10.5))
    plane = PolicyPlane(engine, seconds=lambda: next(ticks), new_id=lambda: "d-1")
    await plane.load(rules)
    decided = await plane.decide(in_environment("prod"))
    assert decided.decision.effect is Effect.REQUIRE_HITL
    assert decided.decision.approval is not None
    assert (decided.bundle_revision, decided.bundle_digest, decided.bundle_sequence) == ("r1", rules.digest, 1)
    assert (decided.engine, decided.decision_id, decided.seconds) == ("wasm", "d-1", 0.5)
    raw = encode_input(in_environment("prod"))
    assert decided.input_digest == f"sha256:{hashlib.sha256(raw).hexdigest()}"
    await plane.close()


async def test_decide_document_decides_alike_when_the_question_is_a_whole_document(
    rules: TrustedBundle, engine: WasmEngine
) -> None:
    plane = PolicyPlane(engine)
    await plane.load(rules)
    document = {"subject": {"properties": {"environment": "dev", "roles": ["triage"]}}}
    assert (await plane.decide_document(document)).decision.effect is Effect.ALLOW
    assert len((await plane.decide_document(document)).decision_id) == 32
    await plane.close()


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        pytest.param(b"true", "decision_malformed", id="true for a decision"),
        pytest.param(
            b'{"effect":"PERMIT","reasons":[],"obligations":{}}', "decision_malformed", id="an unknown effect"
        ),
        pytest.param(
            b'{"effect":"REQUIRE_HITL","reasons":[],"obligations":{"approval":{"chains":["gone"]}}}',
            "decision_malformed",
            id="a chain the bundle lacks",
        ),
        pytest.param(
            b'{"effect":"ALLOW","reasons":[],"obligations":{"log":1}}', "decision_malformed", id="an unknown obligation"
        ),
        pytest.param(
            b'{"effect":"ALLOW","reasons":[],"obligations":{"redact":["/a"]}}', "not_supported", id="a redaction"
        ),
    ],
)
async def test_decide_denies_with_a_reason_when_the_answer_does_not_count(answer: bytes, code: str) -> None:
    plane = await loaded(Simulated(lambda _: answer))
    decision = (await plane.decide(QUESTION)).decision
    assert decision.effect is Effect.DENY
    assert [(reason.code, reason.rule) for reason in decision.reasons] == [(code, REFUSED_BY)]


async def test_decide_refuses_when_the_question_may_not_reach_an_engine() -> None:
    plane = await loaded(Simulated())
    with pytest.raises(InputRefused):
        await plane.decide(asked(args={"n": float("nan")}))


@pytest.mark.parametrize(("now", "stale"), [(99.9, False), (100.0, True), (1e9, True)])
async def test_decide_is_stale_when_the_bundle_expired(now: float, stale: bool) -> None:
    plane = PolicyPlane(Simulated(), now=lambda: now)
    await plane.load(revision("r1", expires_at=100))
    if stale:
        with pytest.raises(PolicyStale):
            await plane.decide(QUESTION)
    else:
        assert (await plane.decide(QUESTION)).decision.effect is Effect.ALLOW


# --- loading


async def test_load_swaps_and_frees_the_old_one_when_the_new_one_is_sound() -> None:
    engine = Simulated()
    plane = await loaded(engine)
    await plane.load(revision("r2"))
    active = plane.current()
    assert active is not None
    assert active.bundle.revision == "r2"
    assert [policy.closed for policy in engine.made] == [True, False]
    assert (await plane.decide(QUESTION)).bundle_revision == "r2"
    await plane.close()
    assert engine.made[1].closed


async def test_load_keeps_the_old_one_when_the_new_one_is_refused() -> None:
    plane = await loaded(Simulated())
    with pytest.raises(PolicyRefused):
        await plane.load(revision("refused"))
    assert (await plane.decide(QUESTION)).bundle_revision == "r1"


async def test_questions_are_answered_by_the_old_one_when_the_new_one_is_being_prepared() -> None:
    engine = Simulated()
    plane = await loaded(engine)
    engine.may_prepare.clear()
    loading = asyncio.create_task(plane.load(revision("r2")), name="load")
    for _ in range(5):
        await asyncio.sleep(0)
        assert (await plane.decide(QUESTION)).bundle_revision == "r1"
    engine.may_prepare.set()
    await loading
    assert (await plane.decide(QUESTION)).bundle_revision == "r2"


async def test_load_frees_what_was_prepared_when_it_is_cancelled() -> None:
    engine = Simulated()
    plane = await loaded(engine)
    engine.may_prepare.clear()
    loading = asyncio.create_task(plane.load(revision("r2")), name="load")
    await asyncio.sleep(0.01)
    loading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await loading
    engine.may_prepare.set()
    while len(engine.made) < 2 or not engine.made[1].closed:
        await asyncio.sleep(0.001)
    assert (await plane.decide(QUESTION)).bundle_revision == "r1"


def probe(decision: object, question: object = None) -> tuple[Probe, ...]:
    """One recorded answer."""
    return (Probe("cases/update.json", question if question is not None else {"v": 1}, decision),)  # type: ignore[arg-type]


async def test_load_accepts_a_probe_when_only_the_order_of_a_set_differs() -> None:
    reasons = [{"code": code, "rule": "r", "message": "m"} for code in ("a", "b")]
    answer = b'{"reasons":[{"message":"m","rule":"r","code":"b"},{"code":"a","rule":"r","message":"m"}],"effect":"DENY","obligations":{}}'
    plane = PolicyPlane(Simulated(lambda _: answer))
    await plane.load(revision("r1", probes=probe({"effect": "DENY", "reasons": reasons, "obligations": {}})))
    assert plane.current() is not None


@pytest.mark.parametrize(
    ("answer", "recorded", "question"),
    [
        pytest.param(ALLOW, {"effect": "DENY", "reasons": [], "obligations": {}}, None, id="another effect"),
        pytest.param(
            ALLOW, {"effect": "ALLOW", "reasons": [], "obligations": {"redact": []}}, None, id="another obligation"
        ),
        pytest.param(ALLOW, {"effect": "ALLOW", "reasons": [None], "obligations": {}}, None, id="another reason"),
        pytest.param(b"not json", {"effect": "ALLOW"}, None, id="an answer that is not JSON"),
        pytest.param(b"[]", {"effect": "ALLOW"}, None, id="an answer that is no object"),
        pytest.param(ALLOW, {"effect": "ALLOW"}, {"n": float("inf")}, id="a question that may not be asked"),
        pytest.param(None, {"effect": "ALLOW", "reasons": [], "obligations": {}}, None, id="no answer"),
    ],
)
async def test_load_refuses_when_a_probe_is_decided_otherwise(
    answer: bytes | None, recorded: object, question: object
) -> None:
    def answering(_: bytes) -> bytes:
        if answer is None:
            raise EngineFailed("by the test")
        return answer

    engine = Simulated(answering)
    plane = await loaded(engine)
    with pytest.raises(PolicyRefused) as refused:
        await plane.load(revision("r2", probes=probe(recorded, question)))
    assert refused.value.code == "policy_probe_mismatch"
    active = plane.current()
    assert active is not None
    assert active.bundle.revision == "r1"
    assert engine.made[1].closed


async def test_load_refuses_when_there_is_one_probe_too_many() -> None:
    plane = PolicyPlane(Simulated())
    await plane.load(
        revision("r1", probes=probe({"effect": "ALLOW", "reasons": [], "obligations": {}}) * PROBES_MAX_COUNT)
    )
    with pytest.raises(PolicyRefused):
        await plane.load(revision("r2", probes=probe({}) * (PROBES_MAX_COUNT + 1)))


async def test_load_refuses_a_compiled_policy_when_its_probe_says_otherwise(
    rules_wasm: bytes, engine: WasmEngine
) -> None:
    recorded = {"effect": "ALLOW", "reasons": [], "obligations": {}}
    plane = PolicyPlane(engine)
    with pytest.raises(PolicyRefused, match="cases/update.json"):
        await plane.load(bundle_of(rules_wasm, probes=probe(recorded)))
    assert plane.current() is None


# --- failures


async def test_the_next_question_is_answered_when_one_made_the_engine_fail() -> None:
    broken = True

    def answering(_: bytes) -> bytes:
        if broken:
            raise EngineFailed("out of fuel")
        return ALLOW

    engine = Simulated(answering)
    plane = await loaded(engine)
    with pytest.raises(EngineFailed) as failed:
        await plane.decide(QUESTION)
    assert failed.value.code == "engine_failed"
    broken = False
    assert (await plane.decide(QUESTION)).decision.effect is Effect.ALLOW
    assert engine.made[0].asked_on == {threading.get_ident()}


async def test_the_loop_goes_on_when_an_instance_is_made_anew() -> None:
    engine = Simulated(lambda raw: _fail_on(b"poison", raw))
    plane = await loaded(engine)
    engine.may_renew.clear()
    with pytest.raises(EngineFailed):
        await plane.decide(asked(call="poison"))
    waiting = [asyncio.create_task(plane.decide(QUESTION), name=f"ask-{number}") for number in range(20)]
    for _ in range(10):
        await asyncio.sleep(0)
    assert not any(task.done() for task in waiting)
    engine.may_renew.set()
    assert {(await task).decision.effect for task in waiting} == {Effect.ALLOW}


def _fail_on(sign: bytes, raw: bytes) -> bytes:
    if sign in raw:
        raise EngineFailed("poisoned")
    return ALLOW


async def test_others_are_answered_when_many_questions_at_once_make_the_engine_fail() -> None:
    plane = await loaded(Simulated(lambda raw: _fail_on(b"poison", raw)))
    calls = ["poison" if number % 3 == 0 else f"call-{number}" for number in range(60)]
    results = await asyncio.gather(*(plane.decide(asked(call=call)) for call in calls), return_exceptions=True)
    for call, result in zip(calls, results, strict=True):
        assert isinstance(result, EngineFailed) is (call == "poison")


@pytest.mark.parametrize("failure", [EngineFailed("no memory"), PolicyRefused("gone")])
async def test_decide_fails_when_the_instance_cannot_be_made_anew(failure: PdpError) -> None:
    engine = Simulated(lambda raw: _fail_on(b"poison", raw))
    plane = await loaded(engine)
    engine.renewal = failure
    with pytest.raises(EngineFailed):
        await plane.decide(asked(call="poison"))
    for _ in range(2):
        with pytest.raises(EngineFailed):
            await plane.decide(QUESTION)
    engine.renewal = None
    assert (await plane.decide(QUESTION)).decision.effect is Effect.ALLOW


async def test_a_waiting_question_is_answered_by_the_new_policy_when_the_old_one_is_swapped_away() -> None:
    engine = Simulated(lambda raw: _fail_on(b"poison", raw))
    plane = await loaded(engine)
    engine.may_renew.clear()
    with pytest.raises(EngineFailed):
        await plane.decide(asked(call="poison"))
    waiting = asyncio.create_task(plane.decide(QUESTION), name="ask")
    await asyncio.sleep(0)
    loading = asyncio.create_task(plane.load(revision("r2")), name="load")
    while (active := plane.current()) is None or active.bundle.revision != "r2":
        await asyncio.sleep(0.001)
    engine.may_renew.set()
    await loading
    assert (await waiting).bundle_revision == "r2"


async def test_a_runaway_policy_is_refused_and_the_next_decision_is_right_when_the_engine_is_real(
    opa_path: object, engine: WasmEngine
) -> None:
    rego = (
        RULES
        + b'\nreasons contains {"code": "x", "rule": "r", "message": concat("", big)} if {\n'
        + (
            b'\tbig := {concat("-", [a, b, c, d]) | some a in input.args.w; some b in input.args.w; some c in input.args.w;'
            b" some d in input.args.w}\n}\n"
        )
    )
    plane = PolicyPlane(engine)
    await plane.load(bundle_of(compile_rego(opa_path, {"a.rego": rego})))  # type: ignore[arg-type]
    for _ in range(3):
        with pytest.raises(EngineFailed):
            await plane.decide(asked(args={"w": [str(number) for number in range(60)]}))
        assert (await plane.decide(QUESTION)).decision.effect is Effect.ALLOW
    await plane.close()


async def test_a_swap_loses_no_question_when_it_happens_under_load(rules_wasm: bytes, engine: WasmEngine) -> None:
    plane = PolicyPlane(engine)
    await plane.load(bundle_of(rules_wasm, revision="r0"))
    seen: list[str] = []
    stop = False

    async def ask() -> None:
        while not stop:
            decided = await plane.decide(QUESTION)
            assert decided.decision.effect is Effect.ALLOW
            seen.append(decided.bundle_revision)
            await asyncio.sleep(0)

    asking = [asyncio.create_task(ask(), name=f"ask-{number}") for number in range(8)]
    data = {"chains": {}, "rows": {f"k{row}": ["x" * 20] * 5 for row in range(2_000)}}
    for number in range(1, 4):
        await plane.load(bundle_of(rules_wasm, revision=f"r{number}", data=data))
    stop = True
    await asyncio.gather(*asking)
    assert seen == sorted(seen)
    await plane.close()


class Remote:
    """A remote engine that answers as told and gives its own ids."""

    def __init__(self) -> None:
        self.name = "remote"
        self.closed = 0

    async def connect(self, bundle: TrustedBundle) -> Remote:
        return self

    async def ask(self, input_bytes: bytes) -> Answer:
        return Answer(DENY, "theirs")

    async def close(self) -> None:
        self.closed += 1


async def test_the_engines_own_id_is_kept_when_it_gives_one() -> None:
    remote = Remote()
    plane = PolicyPlane(remote)
    await plane.load(revision("r1"))
    decided = await plane.decide(QUESTION)
    assert (decided.decision_id, decided.engine, decided.decision.effect) == ("theirs", "remote", Effect.DENY)
    await plane.close()
    assert remote.closed == 1


@pytest.mark.parametrize("question", [None, {"n": float("nan")}])
async def test_load_disconnects_when_a_remote_engine_decides_a_probe_otherwise(question: object) -> None:
    remote = Remote()
    plane = PolicyPlane(remote)
    with pytest.raises(PolicyRefused):
        await plane.load(revision("r1", probes=probe({"effect": "ALLOW"}, question)))
    assert remote.closed == 1


async def test_old_policy_is_freed_in_another_thread_when_a_new_one_is_in_force() -> None:
    freed_on: list[int] = []

    class Freed(SimulatedPolicy):
        def close(self) -> None:
            freed_on.append(threading.get_ident())
            super().close()

    class Engine(Simulated):
        def prepare(self, bundle: TrustedBundle) -> SimulatedPolicy:
            return Freed(self, bundle.revision)

    plane = await loaded(Engine())
    await plane.load(bundle_of(b"", revision="r2"))
    assert len(freed_on) == 1 and freed_on[0] != threading.get_ident()
    await plane.close()
    assert len(freed_on) == 2


async def test_data_decides_alike_when_it_comes_as_text(opa_path: Path, engine: WasmEngine) -> None:
    rule = b"""package tidegate

decision := {"effect": effect, "reasons": [], "obligations": {}}

default effect := "DENY"

effect := "ALLOW" if data.owners.teams[input.subject.id].limit == 2
"""
    wasm = compile_rego(opa_path, {"rule.rego": rule})
    owners = {"teams": {"triage-1": {"limit": 2}, "triage-2": {"limit": 3}}}
    files = {"policies/rule.rego": rule}
    parsed = bundle_of(wasm, files=files, data={"chains": {}, "owners": owners})
    as_text = bundle_of(wasm, files=files, data={"chains": {}}, texts={"owners": encode_data(owners)})
    for bundle in (parsed, as_text):
        plane = PolicyPlane(engine)
        await plane.load(bundle)
        subjects = (QUESTION.subject._replace(id=name) for name in ("triage-1", "triage-2", "triage-3"))
        effects = [(await plane.decide(asked(subject=subject))).decision.effect for subject in subjects]
        assert effects == [Effect.ALLOW, Effect.DENY, Effect.DENY]
        await plane.close()
