"""Streams under a driver: they end properly only when all of it may go and the flow says so."""

from __future__ import annotations

import hashlib

import pytest

from gateway.flow import commands as c
from gateway.flow import events as e
from gateway.flow.driver import CallDriver, StreamCut
from gateway.flow.values import Finished
from tests.gateway.flow.driven import DISPATCH, SECRET, Pieces, World, driven, streaming
from tests.gateway.flow.playbook import SUBJECT

ACTION = f"tenant/{SUBJECT.tenant}/action/desk.item.update"


async def _begun(world: World, flow: e.Flow[Finished]) -> CallDriver:
    assert isinstance(await world.driver.run(flow), c.BeginStream)
    return world.driver


async def test_stream_is_passed_on_and_ends_properly() -> None:
    pieces = Pieces(b"one ", b"two")
    told: list[e.AnswerRelayed] = []

    def flow() -> e.Flow[Finished]:
        yield DISPATCH
        yield c.BeginStream(200, ())
        told.append(e.expect((yield c.RelayAnswer(b"zero ", 0)), e.AnswerRelayed))
        yield c.EndStream(complete=True)
        return Finished(200, (), b"")

    async with driven(pieces.script) as world:
        running = flow()
        driver = await _begun(world, running)
        pieces.release(3)
        got = b"".join([piece async for piece in driver.stream(running)])
    assert got == b"zero one two"
    assert told == [e.AnswerRelayed(12, hashlib.sha256(got).hexdigest(), None)]


async def _until_cut(world: World, flow: e.Flow[Finished]) -> bytes:
    """Everything that left before the stream was cut; fails when it was not."""
    got: list[bytes] = []
    driver = await _begun(world, flow)
    with pytest.raises(StreamCut):
        async for piece in driver.stream(flow):
            got.append(piece)
    return b"".join(got)


async def test_stream_ends_with_all_its_bytes_when_they_only_begin_like_the_secret() -> None:
    pieces = Pieces(b"before ", SECRET[:-1].encode())
    async with driven(pieces.script) as world:
        flow = streaming()
        driver = await _begun(world, flow)
        pieces.release(3)
        assert b"".join([piece async for piece in driver.stream(flow)]) == b"before " + SECRET[:-1].encode()


@pytest.mark.parametrize("at", [0, 1, len(SECRET) - 1, len(SECRET)], ids=["whole", "after one", "before one", "alone"])
async def test_stream_is_cut_before_the_secret_when_it_comes(at: int) -> None:
    pieces = Pieces(b"before " + SECRET[:at].encode(), SECRET[at:].encode() + b" after")
    async with driven(pieces.script) as world:
        pieces.release(3)
        got = await _until_cut(world, streaming())
    assert b"before ".startswith(got)


async def test_stream_is_cut_when_it_is_longer_than_the_action_allows() -> None:
    pieces = Pieces(b"12345", b"6")
    async with driven(pieces.script) as world:
        pieces.release(3)
        assert len(await _until_cut(world, streaming(5))) <= 5


async def test_stream_ends_properly_when_it_is_just_as_long_as_the_action_allows() -> None:
    pieces = Pieces(b"345", b"67")
    async with driven(pieces.script) as world:
        flow = streaming(7, prefix=b"12")
        driver = await _begun(world, flow)
        pieces.release(3)
        assert b"".join([piece async for piece in driver.stream(flow)]) == b"1234567"


async def _stopped_by(change: str) -> bytes:
    """What leaves of two pieces when something changes between them."""
    pieces = Pieces(b"one", b"two")
    async with driven(pieces.script) as world:
        flow = streaming()
        driver = await _begun(world, flow)
        pieces.release()
        got: list[bytes] = []
        with pytest.raises(StreamCut):
            async for piece in driver.stream(flow):
                got.append(piece)
                if change == "policy":
                    world.decides = False
                else:
                    await world.set_switch(change)
                pieces.release(2)
    return b"".join(got)


@pytest.mark.parametrize(
    "change", [ACTION, f"tenant/{SUBJECT.tenant}", f"tenant/{SUBJECT.tenant}/subject/bot", "policy"]
)
async def test_stream_is_cut_before_its_next_piece_when_there_is_a_change_of(change: str) -> None:
    assert await _stopped_by(change) == b"one"


@pytest.mark.parametrize("scope", [f"tenant/{SUBJECT.tenant}/action/desk.item.list", "tenant/rival"])
async def test_stream_goes_on_when_a_switch_is_set_for(scope: str) -> None:
    pieces = Pieces(b"one", b"two")
    async with driven(pieces.script) as world:
        flow = streaming()
        driver = await _begun(world, flow)
        pieces.release(3)
        await world.set_switch(scope, scope.split("/")[1])
        assert b"".join([piece async for piece in driver.stream(flow)]) == b"onetwo"


@pytest.mark.parametrize("change", ["switch", "policy"])
async def test_idle_stream_is_cut_when_nothing_comes_and_there_is_a_change_of(change: str) -> None:
    pieces = Pieces(b"never sent")
    async with driven(pieces.script) as world:
        if change == "policy":
            world.decides = False
        else:
            await world.set_switch(ACTION)
        assert await _until_cut(world, streaming()) == b""
        pieces.release(2)


async def test_stream_is_cut_when_its_longest_life_is_over() -> None:
    pieces = Pieces(b"one")
    async with driven(pieces.script, stream_max_seconds=0.0) as world:
        pieces.release(2)
        assert await _until_cut(world, streaming()) == b""


async def test_stream_is_cut_though_all_of_it_left_when_the_flow_does_not_let_it_end() -> None:
    pieces = Pieces(b"one")
    async with driven(pieces.script) as world:
        pieces.release(2)
        assert await _until_cut(world, streaming(complete=False)) == b"one"
