"""A call's driver over real sockets: scripted flows on one side, upstreams as plain socket servers on the other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from aiohttp import web

from bundles.manifest import Auth
from gateway.approvals.service import ApprovalLimits, ApprovalService
from gateway.connectors.credentials import CredentialInjector, SecretReader
from gateway.connectors.rewrite import RewriteTarget
from gateway.connectors.rewriters import Rewriters
from gateway.connectors.tickets import TicketBook
from gateway.egress.dialer import UpstreamPools
from gateway.egress.exchange import UpstreamTimeouts
from gateway.flow import commands as c
from gateway.flow import events as e
from gateway.flow.driver import CallDriver
from gateway.flow.services import Reach, Services, Target
from gateway.flow.switches import SwitchBoard
from gateway.flow.values import Finished, Trace
from gateway.ledger.record import Appended, RecordDraft
from gateway.operations.metrics import Metrics
from gateway.store.port import StoreEffect, SwitchRow
from tests.gateway.egress.upstreams import LOOPBACK, Script, upstream
from tests.gateway.flow.playbook import NOW, SUBJECT, plan
from tests.gateway.flow.test_same_request import CALL

SECRET = "tok-of-the-instance"
DISPATCH = c.Dispatch(CALL, CALL.outbound)
NOTHING = Finished(200, (), b"")


class Ledger:
    """Takes every record and remembers what would have become durable with it."""

    def __init__(self) -> None:
        self.effects: list[tuple[StoreEffect, ...]] = []
        self.kept: list[RecordDraft] = []

    async def append(self, draft: RecordDraft, *, effects: Sequence[StoreEffect] = ()) -> Appended:
        self.effects.append(tuple(effects))
        return Appended(draft.log, len(self.effects), "0" * 64)

    def record(self, draft: RecordDraft, effects: Sequence[StoreEffect] = ()) -> None:
        self.kept.append(draft)


@dataclass
class World:
    """What a driver is surrounded by, and what a test may change under it."""

    driver: CallDriver
    trace: Trace
    ledger: Ledger
    board: SwitchBoard
    services: Services = cast(Services, None)
    reach: Reach = cast(Reach, None)
    decides: bool = True
    rows: list[SwitchRow] = field(default_factory=list)

    def may_decide(self, tenant: str | None = None) -> bool:
        return self.decides and tenant in (None, SUBJECT.tenant)

    async def switches(self) -> tuple[SwitchRow, ...]:
        return tuple(self.rows)

    async def set_switch(self, scope: str, tenant: str = SUBJECT.tenant) -> None:
        self.rows.append(SwitchRow(tenant, scope, "incident", "carol", int(NOW * 1000)))
        await self.board.refresh(cast(Any, self))


@asynccontextmanager
async def driven(
    script: Script, *, stream_max_seconds: float = 60.0, request: web.BaseRequest | None = None
) -> AsyncIterator[World]:
    """A driver of one call of the playbook's subject to an upstream that follows `script`."""
    async with upstream(script) as served:
        on = plan()
        injector = CredentialInjector(
            Auth(kind="bearer"), {"token": "env:TOKEN"}, SecretReader({"TOKEN": SECRET}, Path("/")), clock=lambda: NOW
        )
        base = f"http://127.0.0.1:{served.port}"
        rewriters = Rewriters(on.manifest, RewriteTarget("desk", base, "http://gate/c/desk"), ())
        target = Target(base, injector, "desk", LOOPBACK, rewriters, on.table)
        pools, board, ledger = UpstreamPools(), SwitchBoard(), Ledger()
        trace = Trace("call-1", "desk", "desk", subject=SUBJECT, action=CALL.action.name, mode="write")
        anything = cast(Any, None)
        approvals = ApprovalService(
            anything,
            anything,
            clock=lambda: int(NOW * 1000),
            random_bytes=bytes,
            tenant_key=lambda _: b"",
            limits=ApprovalLimits(wait_max_seconds=600, open_per_subject_max=32),
        )
        reach = Reach(
            anything,
            anything,
            {"desk": target},
            UpstreamTimeouts(connect_seconds=60.0),
            stream_max_seconds,
            {"desk": on},
        )
        world = World(cast(CallDriver, None), trace, ledger, board)
        services = Services(
            store=anything,
            writer=cast(Any, ledger),
            approvals=approvals,
            policy=cast(Any, world),
            pools=pools,
            tickets=TicketBook(bytes),
            switches=board,
            metrics=Metrics(),
            outcomes=cast(Any, ledger),
            clock=lambda: NOW,
        )
        world.services, world.reach = services, reach
        world.driver = CallDriver(services, reach, trace, request, lambda: world.reach)
        try:
            yield world
        finally:
            await world.driver.close()
            await pools.close()


@dataclass
class Asked:
    """What a scripted flow was answered."""

    events: list[e.Event] = field(default_factory=list)


def asking(asked: Asked, *steps: c.Command | Callable[[], None]) -> e.Flow[Finished]:
    """A flow that yields these commands and keeps the answers; what can be called is called in between."""
    for step in steps:
        if callable(step):
            step()
        else:
            asked.events.append((yield step))
    return NOTHING


def streaming(max_bytes: int = 0, *, prefix: bytes = b"", complete: bool = True) -> e.Flow[Finished]:
    """A flow that passes its answer on; `complete`: whether it lets the answer end properly."""
    yield DISPATCH
    yield c.BeginStream(200, ())
    relayed = e.expect((yield c.RelayAnswer(prefix, max_bytes)), e.AnswerRelayed)
    yield c.EndStream(complete=complete and relayed.cut is None)
    return Finished(200, (), b"", code=relayed.cut or "", streamed=True)


class Pieces:
    """An upstream that sends its head, then each piece when the test says so, then closes."""

    def __init__(self, *pieces: bytes, head: bytes = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n") -> None:
        self._head = head
        self._pieces = pieces
        self._allowed = asyncio.Semaphore(0)

    def release(self, count: int = 1) -> None:
        """Let `count` more steps happen: each piece is one, the end is the last."""
        for _ in range(count):
            self._allowed.release()

    async def script(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: bytes) -> None:
        """The upstream's side."""
        writer.write(self._head)
        for piece in self._pieces:
            await self._allowed.acquire()
            writer.write(piece)
            await writer.drain()
        await self._allowed.acquire()
        writer.close()
