"""What a driver lets of an answer reach the flow: nothing coded, and no secret of the instance in any spelling."""

from __future__ import annotations

import base64
from collections.abc import Callable

import pytest

from gateway.approvals.model import ApprovalState
from gateway.errors import Refusal
from gateway.flow import commands as c
from gateway.flow import events as e
from gateway.flow.describe import Recorder
from gateway.store.port import ConsumeApproval
from tests.gateway.egress.upstreams import answering
from tests.gateway.flow.driven import DISPATCH, SECRET, Asked, Pieces, asking, driven
from tests.gateway.flow.playbook import KEY, approval
from tests.gateway.flow.test_call import open_approval
from tests.gateway.flow.test_same_request import CALL

READ = c.ReadAnswer(1000)


def _answer(*lines: str, body: str = "{}") -> bytes:
    head = ["HTTP/1.1 200 OK", f"Content-Length: {len(body)}", *lines]
    return ("\r\n".join(head) + "\r\n\r\n" + body).encode()


async def _whole(raw: bytes, *steps: c.Command) -> list[e.Event]:
    asked = Asked()
    async with driven(answering(raw)) as world:
        await world.driver.run(asking(asked, DISPATCH, *steps))
    return asked.events


async def test_driver_reads_a_plain_answer() -> None:
    began, read = await _whole(_answer("Content-Type: application/json; charset=utf-8", "X-Kind: a"), READ)
    assert isinstance(began, e.AnswerBegan)
    assert (began.status, began.length, began.media_type) == (200, 2, "application/json")
    assert ("x-kind", "a") in began.headers
    assert read == e.AnswerRead(b"{}", complete=True, leaked=False)


@pytest.mark.parametrize("coding", ["identity", "", " Identity "])
async def test_driver_reads_an_answer_when_its_coding_is(coding: str) -> None:
    events = await _whole(_answer(f"Content-Encoding: {coding}"), READ)
    assert events[-1] == e.AnswerRead(b"{}", complete=True, leaked=False)


@pytest.mark.parametrize("coding", ["gzip", "br", "zstd", "deflate", "GZIP", "identity, gzip", "x-own"])
async def test_driver_refuses_an_answer_unread_when_its_coding_is(coding: str) -> None:
    asked = Asked()
    async with driven(answering(_answer(f"Content-Encoding: {coding}"))) as world:
        with pytest.raises(Refusal, match="compressed") as caught:
            await world.driver.run(asking(asked, DISPATCH, READ))
        assert (caught.value.code, world.trace.sent, world.driver.is_clear) == ("upstream_failed", True, True)
    assert asked.events == []


SPELLINGS: dict[str, str] = {
    "as it is": SECRET,
    "with the scheme before it": f"Bearer {SECRET}",
    "in base64": base64.b64encode(SECRET.encode()).decode(),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
async def test_driver_refuses_an_answer_when_a_header_holds_the_secret(spelling: str) -> None:
    async with driven(answering(_answer(f"X-Echo: <{SPELLINGS[spelling]}>"))) as world:
        with pytest.raises(Refusal, match="credential of the instance") as caught:
            await world.driver.run(asking(Asked(), DISPATCH, READ))
        assert (caught.value.code, world.trace.sent, world.driver.is_clear) == ("upstream_failed", True, True)


@pytest.mark.parametrize("spelling", SPELLINGS)
async def test_driver_says_that_it_leaked_and_gives_no_byte_when_the_body_holds_the_secret(spelling: str) -> None:
    _, read = await _whole(_answer(body=f'{{"echo":"{SPELLINGS[spelling]}"}}'), READ)
    assert read == e.AnswerRead(b"", complete=True, leaked=True)


def _steps(pieces: Pieces, count: int, *commands: c.Command) -> tuple[c.Command | Callable[[], None], ...]:
    """Dispatch; let the upstream go on only then, so that the body is not at hand; then the commands."""
    return (DISPATCH, lambda: pieces.release(count), *commands)


CUT_AT = [1, len(SECRET) // 2, len(SECRET) - 1]


@pytest.mark.parametrize("at", CUT_AT, ids=["after its first byte", "in its middle", "before its last byte"])
async def test_driver_finds_the_secret_when_the_body_comes_in_pieces_cut(at: int) -> None:
    pieces = Pieces(b"before " + SECRET[:at].encode(), SECRET[at:].encode() + b" after")
    asked = Asked()
    async with driven(pieces.script) as world:
        await world.driver.run(asking(asked, *_steps(pieces, 3, READ)))
    assert asked.events[-1] == e.AnswerRead(b"", complete=True, leaked=True)


async def test_driver_reads_a_body_in_pieces_when_it_only_begins_like_the_secret() -> None:
    pieces = Pieces(b"before " + SECRET[:-1].encode(), b"! after " + SECRET[:4].encode())
    asked = Asked()
    async with driven(pieces.script) as world:
        await world.driver.run(asking(asked, *_steps(pieces, 3, READ)))
    expected = b"before " + SECRET[:-1].encode() + b"! after " + SECRET[:4].encode()
    assert asked.events[-1] == e.AnswerRead(expected, complete=True, leaked=False)


async def test_driver_fails_to_read_when_there_is_no_answer() -> None:
    asked = Asked()
    async with driven(answering(b"")) as world:
        await world.driver.run(asking(asked, READ))
    assert asked.events == [e.DispatchFailed("failed", "upstream_failed", "there is no answer to read")]


async def test_intent_uses_the_approval_up_when_it_stands_on_one() -> None:
    held = open_approval(ApprovalState.APPROVED).approval
    async with driven(answering(b"")) as world:
        draft = Recorder(CALL, world.trace, KEY).draft("intent")
        intent = c.AppendIntent(draft, (), approval(held.held, ApprovalState.APPROVED), "sha256:d")
        await world.driver.run(asking(Asked(), intent, c.AppendIntent(draft, (), None, "")))
        consumed, plain = world.ledger.effects
    assert consumed == (ConsumeApproval(log=held.log, approval="app-1", action_digest="sha256:d", call="call-1"),)
    assert plain == ()
