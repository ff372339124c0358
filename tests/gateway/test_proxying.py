"""Calls that are given up half way: what is known of their end is recorded, and they are counted out."""

from __future__ import annotations

import asyncio
import io
from types import SimpleNamespace
from typing import Any, cast

import pytest

from gateway.errors import Refusal
from gateway.flow import commands as c
from gateway.flow import events as e
from gateway.flow.describe import Recorder
from gateway.flow.values import Finished, FlowLimits, Trace
from gateway.operations.log import LineLog
from gateway.proxying import CallRunner
from gateway.running import Running
from tests.gateway.egress.upstreams import hang
from tests.gateway.flow.driven import NOTHING, Pieces, World, driven
from tests.gateway.flow.playbook import KEY
from tests.gateway.flow.test_same_request import CALL


def _runner(world: World, calls_max: int = 1) -> CallRunner:
    limits = SimpleNamespace(calls_max=calls_max)
    config = SimpleNamespace(document=SimpleNamespace(limits=limits))
    assembly = SimpleNamespace(reach=world.reach, limits=FlowLimits(hold_max_seconds=600), config=config)
    running = SimpleNamespace(
        services=world.services,
        assembly=assembly,
        tenant_keys=SimpleNamespace(record_key=lambda _: KEY),
        chains=dict,
        reach=lambda: world.reach,
    )
    log = LineLog(io.BytesIO())
    log.close()
    return CallRunner(cast(Running, running), log)


def _waiting(trace: Trace, reached: asyncio.Event, *, intended: bool) -> e.Flow[Finished]:
    """A call that waits where it is not going to be waited for."""
    trace.intended = intended
    reached.set()
    try:
        yield c.Pause(60)
    except Refusal as refused:
        draft = Recorder(CALL, trace, KEY).draft("outcome", code=refused.code)
        trace.settled = True
        yield c.AppendRecord(draft, after_side_effect=True)
        raise
    return NOTHING


async def _cancelled(world: World, *, intended: bool) -> list[str | None]:
    """The codes that are recorded of a call that is cancelled where it waits."""
    runner, reached = _runner(world), asyncio.Event()
    asked = runner.asked(lambda _: _waiting(world.trace, reached, intended=intended), world.trace)
    running = asyncio.ensure_future(asked)
    await reached.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert "tidegate_calls_in_flight 0.0" in world.services.metrics.exposition().decode()
    return [cast(Any, draft.action).decode().partition('"code":"')[2].partition('"')[0] for draft in world.ledger.kept]


async def test_outcome_is_unknown_when_a_call_is_cancelled_whose_intent_is_durable() -> None:
    async with driven(hang) as world:
        assert await _cancelled(world, intended=True) == ["outcome_unknown"]


async def test_nothing_is_recorded_when_a_call_is_cancelled_before_its_intent() -> None:
    async with driven(hang) as world:
        assert await _cancelled(world, intended=False) == []


async def test_call_is_throttled_and_not_counted_in_when_there_are_as_many_as_may_be() -> None:
    async with driven(hang) as world:
        runner = _runner(world, calls_max=0)
        reached = asyncio.Event()
        outcome = await runner.asked(lambda _: _waiting(world.trace, reached, intended=True), world.trace)
        assert isinstance(outcome, Refusal)
        assert (outcome.code, reached.is_set()) == ("throttled", False)
        text = world.services.metrics.exposition().decode()
        assert 'code="throttled"' in text


async def test_end_of_a_stream_is_recorded_when_it_is_cancelled_while_nothing_comes() -> None:
    pieces = Pieces(b"one")
    told: list[e.AnswerRelayed] = []

    def flow() -> e.Flow[Finished]:
        yield c.Dispatch(CALL, CALL.outbound)
        yield c.BeginStream(200, ())
        told.append(e.expect((yield c.RelayAnswer(b"", 0)), e.AnswerRelayed))
        yield c.AppendRecord(Recorder(CALL, Trace("call-1", "desk", "desk"), KEY).draft("call", status=200))
        yield c.EndStream(complete=False)
        return NOTHING

    async with driven(pieces.script) as world:
        running = flow()
        assert isinstance(await world.driver.run(running), c.BeginStream)
        pieces.release()
        stream = world.driver.stream(running)
        assert await anext(stream) == b"one"
        reading = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        assert [(relayed.length, relayed.cut) for relayed in told] == [(3, "the gate gave the stream up")]
        assert [draft.kind for draft in world.ledger.kept] == ["call"]
        pieces.release()
