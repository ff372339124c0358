"""Uploads under a driver: one that stands still ends like a stream does, wherever it stands."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field
from typing import cast

import pytest
from aiohttp import web

from gateway.errors import Refusal
from gateway.flow import commands as c
from gateway.flow import events as e
from tests.gateway.egress.upstreams import Script, answering
from tests.gateway.flow.driven import Asked, Pieces, World, asking, driven
from tests.gateway.flow.playbook import SUBJECT
from tests.gateway.flow.test_same_request import CALL

_LARGE = CALL.action.model_copy(
    update={"arguments": CALL.action.arguments.model_copy(update={"body_max_bytes": 128 << 20})}
)
UPLOAD = c.Dispatch(CALL._replace(action=_LARGE), CALL.outbound._replace(body=None, streamed=True))
PIECE = b"x" * 65_536
SECONDS = 5.0
"""Within which every stream ends (security rule 12)."""


@dataclass
class Upload:
    """A request whose caller sends its pieces one after the other and then, if `stalls`, nothing more."""

    pieces: int
    stalls: bool = True
    content_length: int | None = None
    transport: object = None
    total_bytes: int = 1
    headers: dict[str, str] = field(default_factory=dict)
    standing: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def content(self) -> Upload:
        return self

    def is_eof(self) -> bool:
        return False

    def at_eof(self) -> bool:
        return not self.pieces

    async def readany(self) -> bytes:
        if self.pieces:
            self.pieces -= 1
            return PIECE
        if self.stalls:
            self.standing.set()
            await asyncio.Event().wait()
        return b""

    async def stands(self) -> None:
        """Return when nothing moves: the caller sends no more, or nobody takes it."""
        left = -1
        while not self.standing.is_set() and left != self.pieces:
            left = self.pieces
            with suppress(TimeoutError):
                async with asyncio.timeout(0.2):
                    await self.standing.wait()

    @property
    def request(self) -> web.BaseRequest:
        return cast(web.BaseRequest, self)


async def _reading(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: bytes) -> None:
    """A service that takes everything and says nothing."""
    await reader.read()


async def _change(world: World, change: str) -> None:
    if change == "policy":
        world.decides = False
    elif change == "switch":
        await world.set_switch(f"tenant/{SUBJECT.tenant}")


async def _ended(script: Script, upload: Upload, change: str, *more: c.Command, longest: float = 60.0) -> str:
    """The code that an upload ends with after a change, once nothing moves any more."""
    async with driven(script, stream_max_seconds=longest, request=upload.request) as world:
        running = asyncio.ensure_future(world.driver.run(asking(Asked(), UPLOAD, *more)))
        await upload.stands()
        await _change(world, change)
        async with asyncio.timeout(SECONDS):
            with pytest.raises(Refusal) as caught:
                await running
        assert world.trace.sent
    return caught.value.code


@pytest.mark.parametrize(("change", "code"), [("switch", "killed"), ("policy", "policy_stale"), ("age", "too_slow")])
async def test_stalled_upload_ends_when_there_is_a_change_of(change: str, code: str) -> None:
    assert await _ended(_reading, Upload(1), change, longest=0.5 if change == "age" else 60.0) == code


@pytest.mark.parametrize(("change", "code"), [("switch", "killed"), ("policy", "policy_stale"), ("age", "too_slow")])
async def test_upload_ends_that_the_service_does_not_take_when_there_is_a_change_of(change: str, code: str) -> None:
    endless, deaf = Upload(1_000), Pieces(head=b"")
    assert await _ended(deaf.script, endless, change, longest=0.5 if change == "age" else 60.0) == code
    assert endless.pieces
    deaf.release()


async def test_stalled_upload_ends_when_its_answer_has_begun_and_does_not_come() -> None:
    early = Pieces(b"never sent")
    assert await _ended(early.script, Upload(1), "switch", c.ReadAnswer(1_000)) == "killed"
    early.release(2)


async def test_upload_is_answered_when_it_comes_whole() -> None:
    asked = Asked()

    async def taking(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: bytes) -> None:
        received = b""
        while not received.endswith(b"0\r\n\r\n"):
            received += await reader.read(65_536)
        await answering(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")(reader, writer, head)

    async with driven(taking, request=Upload(2, stalls=False).request) as world:
        await world.driver.run(asking(asked, UPLOAD, c.ReadAnswer(1_000)))
        await world.set_switch(f"tenant/{SUBJECT.tenant}")
    assert asked.events[-1] == e.AnswerRead(b"ok", complete=True, leaked=False)
