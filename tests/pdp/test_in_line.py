"""Decisions of one turn of the loop, and decision documents that were read before."""

from __future__ import annotations

import asyncio
from hashlib import sha256

import pytest

from pdp.decided import REFUSED_BY, Decided
from pdp.documents import Effect, encode_input
from pdp.errors import EngineFailed, InputRefused, PolicyUnavailable
from pdp.prepared import QUIET_TURNS, READ_MAX_BYTES, READ_MAX_COUNT, PolicyPlane
from tests.pdp.parts import ALLOW, QUESTION, asked
from tests.pdp.test_prepared import DENY, Simulated, loaded, revision


async def test_questions_are_answered_together_when_one_turn_of_the_loop_asks_them() -> None:
    seen: list[bytes] = []

    def answer(raw: bytes) -> bytes:
        seen.append(raw)
        return ALLOW

    plane = await loaded(Simulated(answer))
    questions = [asked(call=f"call-{number}") for number in range(5)]
    decided = await asyncio.gather(*(plane.decide(question) for question in questions))
    assert seen == [encode_input(question) for question in questions]
    assert [one.input_digest for one in decided] == [f"sha256:{sha256(raw).hexdigest()}" for raw in seen]
    assert len({one.decision_id for one in decided}) == 5


async def turns_until_decided(asking: asyncio.Task[Decided]) -> int:
    """How often the loop turned until the task was done."""
    for turns in range(10):
        if asking.done():
            return turns
        await asyncio.sleep(0)
    raise AssertionError("nothing was decided")


async def quiet() -> tuple[Simulated, PolicyPlane]:
    """A plane that has been asked one question a turn for long enough."""
    engine = Simulated()
    plane = await loaded(engine)
    for _ in range(QUIET_TURNS):
        await plane.decide(QUESTION)
    return engine, plane


async def test_question_is_answered_at_once_when_the_turns_before_asked_one_each() -> None:
    plane = await loaded(Simulated())
    waited = [await turns_until_decided(asyncio.create_task(plane.decide(QUESTION))) for _ in range(QUIET_TURNS + 2)]
    assert waited[QUIET_TURNS:] == [1, 1]
    assert min(waited[:QUIET_TURNS]) > 1


async def test_questions_are_gathered_again_when_a_turn_asked_several_at_once() -> None:
    _, plane = await quiet()
    together = [asyncio.create_task(plane.decide(QUESTION)) for _ in range(3)]
    assert [await turns_until_decided(asking) for asking in together] == [1, 0, 0]
    await asyncio.sleep(0)
    assert await turns_until_decided(asyncio.create_task(plane.decide(QUESTION))) > 1


async def test_next_question_is_answered_when_one_failed_at_once() -> None:
    def fail(_: bytes) -> bytes:
        raise EngineFailed("by the test")

    engine, plane = await quiet()
    with pytest.raises(AttributeError):
        await plane.decide(asked(resource=None))
    engine.answer = fail
    with pytest.raises(EngineFailed):
        await plane.decide(QUESTION)
    engine.answer = lambda _: ALLOW
    assert (await plane.decide(QUESTION)).decision.effect is Effect.ALLOW


async def test_others_are_answered_when_one_question_of_the_turn_is_refused() -> None:
    plane = await loaded(Simulated())
    questions = [QUESTION, asked(args={"n": float("nan")}), QUESTION]
    results = await asyncio.gather(*(plane.decide(question) for question in questions), return_exceptions=True)
    assert [type(result) for result in results] == [Decided, InputRefused, Decided]


async def test_others_are_answered_when_the_engine_failed_at_one_question_of_the_turn() -> None:
    answers = iter((ALLOW, None, ALLOW))

    def answer(_: bytes) -> bytes:
        given = next(answers)
        if given is None:
            raise EngineFailed("by the test")
        return given

    plane = await loaded(Simulated(answer))
    results = await asyncio.gather(*(plane.decide(QUESTION) for _ in range(3)), return_exceptions=True)
    assert [type(result) for result in results] == [Decided, EngineFailed, Decided]


async def test_others_are_answered_when_a_fault_of_ours_stops_one_question_of_the_turn() -> None:
    plane = await loaded(Simulated())
    questions = [asked(resource=None), QUESTION]
    results = await asyncio.gather(*(plane.decide(question) for question in questions), return_exceptions=True)
    assert [type(result) for result in results] == [AttributeError, Decided]


async def test_others_are_answered_when_one_gave_up_waiting() -> None:
    plane = await loaded(Simulated())
    first = asyncio.create_task(plane.decide(QUESTION), name="first")
    second = asyncio.create_task(plane.decide(QUESTION), name="second")
    await asyncio.sleep(0)
    first.cancel()
    assert (await second).decision.effect is Effect.ALLOW
    with pytest.raises(asyncio.CancelledError):
        await first


async def test_questions_are_unavailable_when_the_policy_is_closed_in_their_turn() -> None:
    plane = await loaded(Simulated())
    asking = asyncio.create_task(plane.decide(QUESTION), name="asking")
    closing = asyncio.create_task(plane.close(), name="closing")
    await closing
    with pytest.raises(PolicyUnavailable):
        await asking


async def test_decision_is_read_once_when_the_same_document_comes_again() -> None:
    plane = await loaded(Simulated())
    first, second = await plane.decide(QUESTION), await plane.decide(QUESTION)
    assert first.decision is second.decision
    assert first.decision_id != second.decision_id


async def test_decision_is_read_anew_when_another_bundle_came_into_force() -> None:
    held = b'{"effect":"REQUIRE_HITL","obligations":{"approval":{"chains":["one-approver"]}},"reasons":[]}'
    plane = await loaded(Simulated(lambda _: held))
    assert (await plane.decide(QUESTION)).decision.effect is Effect.REQUIRE_HITL
    await plane.load(revision("r2", data={"chains": {}, "connectors": {}}))
    denied = (await plane.decide(QUESTION)).decision
    assert (denied.effect, denied.reasons[0].rule) == (Effect.DENY, REFUSED_BY)


async def test_a_denial_is_told_from_an_allowance_when_one_was_read_before() -> None:
    engine = Simulated()
    plane = await loaded(engine)
    assert (await plane.decide(QUESTION)).decision.effect is Effect.ALLOW
    engine.answer = lambda _: DENY
    assert (await plane.decide(QUESTION)).decision.effect is Effect.DENY


def document(code: str, size: int) -> bytes:
    """A denial of exactly `size` bytes."""
    empty = DENY.replace(b'"no"', b'"%b"' % code.encode())
    return empty.replace(b'"m"', b'"%b"' % (b"m" * (size - len(empty) + 1)))


@pytest.mark.parametrize(("size", "kept"), [(READ_MAX_BYTES, True), (READ_MAX_BYTES + 1, False)])
async def test_a_document_is_remembered_when_it_is_no_longer_than_the_bound(size: int, kept: bool) -> None:
    plane = await loaded(Simulated(lambda _: document("long", size)))
    first, second = await plane.decide(QUESTION), await plane.decide(QUESTION)
    assert first.decision == second.decision
    assert (first.decision is second.decision) is kept


async def test_documents_are_remembered_when_they_are_no_more_than_the_bound() -> None:
    engine = Simulated()
    plane = await loaded(engine)
    for number in range(READ_MAX_COUNT):
        engine.answer = lambda _, text=f"n{number}": document(text, 200)  # type: ignore[misc]
        await plane.decide(QUESTION)
    known = await plane.decide(QUESTION)
    assert (await plane.decide(QUESTION)).decision is known.decision
    engine.answer = lambda _: document("more", 200)
    past = await plane.decide(QUESTION)
    assert (await plane.decide(QUESTION)).decision is not past.decision
