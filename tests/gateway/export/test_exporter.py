"""The exporter against a ledger and a collector in memory: nothing is lost, whatever the collector does."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from gateway.export.collector_client import DeliveryFailed
from gateway.export.cursor_file import CursorDamaged, CursorFile, Position
from gateway.export.events import EventContext
from gateway.export.exporter import BATCH_RECORDS, DecisionLogExporter, ExporterParts
from gateway.export.settings import UPLOAD_MIN_BYTES, DecisionLog
from tests.gateway.export.parts import LOG, MemoryCollector, MemoryLedger, draft

DOWN = DeliveryFailed("collector_unreachable", "nobody there")


class World:
    """A ledger, a collector and exporters between them that share a directory, as restarts do."""

    def __init__(self, directory: Path) -> None:
        self.ledger = MemoryLedger()
        self.collector = MemoryCollector()
        self.directory = directory
        self.said: list[dict[str, object]] = []
        self.waits: list[float] = []
        self.turns: dict[object, int] = {}
        self.turns_max = 0
        self.tasks = 0
        self.done = asyncio.Event()
        self.heard = asyncio.Event()

    def exporter(self, **settings: Any) -> DecisionLogExporter:
        """A new process's exporter."""
        wanted = DecisionLog.model_validate(
            {"name": "siem", "tenants": ["acme"], "service": "https://collector.example", **settings}
        )
        cursor = CursorFile(self.directory / "exports" / "siem.json")
        parts = ExporterParts(
            self.ledger,
            self.collector.post,
            cursor,
            lambda fault: {"fault": fault},
            lambda: 1.0,
            self.say,
            self.pause,
        )
        return DecisionLogExporter(wanted, EventContext("main", {}, (), wanted.upload_max_bytes), parts)

    def say(self, line: dict[str, object]) -> None:
        """A line for the log."""
        self.said.append(line)
        self.heard.set()

    async def pause(self, seconds: float) -> None:
        """Let each task go on at once for as many turns as the test wants; the test ends when all have had theirs."""
        task = asyncio.current_task()
        self.waits.append(seconds)
        self.turns[task] = self.turns.get(task, 0) + 1
        if self.turns[task] >= self.turns_max:
            self.tasks -= 1
            if not self.tasks:
                self.done.set()
            await asyncio.Event().wait()

    async def follow(self, turns: int, **settings: Any) -> DecisionLogExporter:
        """Let each task of a started exporter take so many turns."""
        exporter = self.exporter(**settings)
        self.turns_max, self.tasks = turns, 2 if settings["status_seconds"] else 1
        exporter.start()
        async with asyncio.timeout(20):
            await self.done.wait()
        await exporter.close()
        return exporter

    def decide(self, *decisions: str) -> None:
        """Decisions reach the ledger."""
        for decision in decisions:
            self.ledger.add(draft(decision=decision))


@pytest.fixture
def world(tmp_path: Path) -> World:
    """An empty world."""
    return World(tmp_path)


async def test_exporter_delivers_each_decision_once_and_goes_on_where_it_stopped(world: World) -> None:
    world.decide("d1", "d2")
    exporter = world.exporter()
    assert await exporter.drain() == 2
    assert await exporter.drain() == 0
    world.decide("d3")
    assert await world.exporter().drain() == 1
    assert world.collector.decisions == ["d1", "d2", "d3"]
    assert {path for path, _ in world.collector.uploads} == {"/logs"}


async def test_exporter_loses_nothing_when_the_collector_is_down_across_restarts(world: World) -> None:
    world.decide(*(f"d{number}" for number in range(BATCH_RECORDS + 7)))
    world.collector.failures = [DOWN, DOWN, DOWN]
    for _ in range(3):
        with pytest.raises(DeliveryFailed):
            await world.exporter().drain()
    assert world.collector.decisions == []
    await world.exporter().drain()
    assert world.collector.decisions == [f"d{number}" for number in range(BATCH_RECORDS + 7)]


async def test_exporter_goes_on_behind_what_was_taken_when_an_upload_in_the_middle_fails(world: World) -> None:
    world.decide(*(f"d{number}" for number in range(400)))
    await_third = [None, None, DOWN]

    class Third(MemoryCollector):
        async def post(self, path: str, body: bytes, *, compressed: bool) -> None:
            fault = await_third.pop(0) if await_third else None
            if fault is not None:
                raise fault
            await super().post(path, body, compressed=compressed)

    world.collector = Third()
    exporter = world.exporter(upload_max_bytes=UPLOAD_MIN_BYTES)
    with pytest.raises(DeliveryFailed):
        await exporter.drain()
    assert 0 < len(world.collector.decisions) < 400
    await world.exporter(upload_max_bytes=UPLOAD_MIN_BYTES).drain()
    assert world.collector.decisions == [f"d{number}" for number in range(400)]


async def test_exporter_sends_smaller_uploads_when_the_collector_finds_them_too_large(world: World) -> None:
    world.decide(*(f"d{number}" for number in range(BATCH_RECORDS)))
    world.collector.max_bytes = UPLOAD_MIN_BYTES
    exporter = world.exporter(upload_max_bytes=UPLOAD_MIN_BYTES * 4)
    for _ in range(2):
        with pytest.raises(DeliveryFailed):
            await exporter.drain()
    await exporter.drain()
    assert world.collector.decisions == [f"d{number}" for number in range(BATCH_RECORDS)]
    assert max(size for _, size in world.collector.uploads) <= UPLOAD_MIN_BYTES


async def test_exporter_keeps_tenants_apart(world: World) -> None:
    world.decide("d1")
    world.ledger.add(draft(decision="foreign"), ("globex", "ops"))
    world.ledger.add(draft(decision="d2"), ("acme", "lab"))
    await world.exporter().drain()
    assert sorted(world.collector.decisions) == ["d1", "d2"]
    await world.exporter(tenants=["*"]).drain()
    assert sorted(world.collector.decisions) == ["d1", "d2", "foreign"]


async def test_exporter_begins_anew_when_the_ledger_is_another_one(world: World) -> None:
    world.decide("d1", "d2")
    await world.exporter().drain()
    world.ledger = MemoryLedger()
    world.decide("e1", "e2", "e3")
    await world.exporter().drain()
    assert world.collector.decisions == ["d1", "d2", "e1", "e2", "e3"]
    assert [line["code"] for line in world.said] == ["cursor_unknown"]


async def test_exporter_begins_anew_when_the_ledger_was_restored_to_before_the_cursor(world: World) -> None:
    world.decide("d1", "d2", "d3")
    await world.exporter().drain()
    world.ledger = MemoryLedger()
    world.decide("d1")
    await world.exporter().drain()
    assert world.collector.decisions == ["d1", "d2", "d3", "d1"]


async def test_exporter_posts_below_its_partition_when_one_is_configured(world: World) -> None:
    world.decide("d1")
    exporter = world.exporter(partition="blue")
    await exporter.drain()
    await exporter.send_status()
    assert world.collector.uploads[0][0] == "/logs/blue"
    assert world.collector.documents == [("/status/blue", {"fault": ""})]


async def test_exporter_exports_nothing_when_its_cursor_is_damaged(world: World) -> None:
    world.decide("d1")
    path = world.directory / "exports" / "siem.json"
    path.parent.mkdir()
    path.write_bytes(b'{"v":1,"logs":[{')
    with pytest.raises(CursorDamaged):
        await world.exporter().drain()
    assert world.collector.decisions == []


@pytest.mark.parametrize("raw", [b"", b"[]", b"{}", b'{"logs": [{"tenant": "a"}]}', b'{"logs": 7}', b"\xff"])
def test_cursor_refuses_to_be_empty_when_its_file_is_damaged(tmp_path: Path, raw: bytes) -> None:
    path = tmp_path / "cursor.json"
    path.write_bytes(raw)
    with pytest.raises(CursorDamaged):
        CursorFile(path).load()


def test_cursor_is_read_again_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "cursor.json"
    cursor = CursorFile(path)
    cursor.load()
    assert cursor.position(LOG) == Position()
    cursor.advance(LOG, Position(7, "ab"))
    cursor.advance(("acme", "lab"), Position(1, "cd"))
    again = CursorFile(path)
    again.load()
    assert (again.position(LOG), again.position(("acme", "lab"))) == (Position(7, "ab"), Position(1, "cd"))


async def test_exporter_waits_longer_after_each_failure_and_says_each_cause_once(world: World) -> None:
    world.decide("d1")
    full = DeliveryFailed("collector_status_503", "busy", retry_after_seconds=9.0)
    world.collector.failures = [DOWN, DOWN, DOWN, full]
    exporter = await world.follow(5, status_seconds=0, delay_seconds=7)
    assert world.waits == [1.0, 2.0, 4.0, 9.0, 7.0]
    assert [line.get("code", line["what"]) for line in world.said] == [
        "collector_unreachable",
        "collector_status_503",
        "decision_log_resumed",
    ]
    assert (world.collector.decisions, exporter.fault, exporter.events) == (["d1"], "", 1)


async def test_exporter_reports_while_decisions_cannot_leave(world: World) -> None:
    world.decide("d1")
    await world.follow(1, status_seconds=30)
    assert sorted(world.waits) == [5.0, 30.0]
    assert [path for path, _ in world.collector.documents] == ["/status"]


async def test_exporter_goes_on_when_a_report_is_not_taken(world: World) -> None:
    class Deaf(MemoryCollector):
        async def post(self, path: str, body: bytes, *, compressed: bool) -> None:
            if path == "/status":
                raise DOWN
            await super().post(path, body, compressed=compressed)

    world.collector = Deaf()
    world.decide("d1")
    await world.follow(1, status_seconds=30)
    assert world.collector.decisions == ["d1"]
    assert [line["code"] for line in world.said] == ["collector_unreachable"]


async def test_exporter_says_so_when_its_cursor_cannot_be_written(world: World) -> None:
    world.decide("d1")
    (world.directory / "exports").write_text("a file where the folder should be")
    exporter = await world.follow(1, status_seconds=0)
    assert exporter.fault == "cursor_unwritable"


async def test_exporter_says_so_when_it_ends_by_a_bug(world: World) -> None:
    class Broken(MemoryLedger):
        async def logs(self) -> tuple[Any, ...]:
            raise ZeroDivisionError

    world.ledger = Broken()
    exporter = world.exporter(status_seconds=0)
    exporter.start()
    async with asyncio.timeout(20):
        await world.heard.wait()
    await exporter.close()
    assert exporter.fault == "exporter_ended"
    assert "ZeroDivisionError" in str(world.said[0]["error"])
