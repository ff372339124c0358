"""The exporter against a ledger and a collector in memory: nothing is lost, whatever the collector does."""

from __future__ import annotations

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

    def exporter(self, **settings: Any) -> DecisionLogExporter:
        """A new process's exporter."""
        wanted = DecisionLog.model_validate(
            {"name": "siem", "tenants": ["acme"], "service": "https://collector.example", **settings}
        )
        cursor = CursorFile(self.directory / "exports" / "siem.json")
        parts = ExporterParts(
            self.ledger, self.collector.post, cursor, lambda fault: {"fault": fault}, lambda: 0.0, self.said.append
        )
        return DecisionLogExporter(wanted, EventContext("main", {}, (), wanted.upload_max_bytes), parts)

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
