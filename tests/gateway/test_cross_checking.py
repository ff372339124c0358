"""The cross-check's queue and what becomes of its differences: a real store, and a server that answers as it is told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import orjson
import pytest
import yaml
from aiohttp import web
from prometheus_client import CollectorRegistry

from cli.init import starter_config
from gateway.config import GatewayConfig, load_config
from gateway.cross_checking import CLOSE_SECONDS, KIND, CrossChecker, CrossCheckParts
from gateway.watching import DecisionWatch
from pdp.cross_check import CrossDifference
from pdp.decided import Decided
from pdp.documents import Decision, Effect, PolicyInput
from tests.gateway.store.build import OpenStore, open_store
from tests.pdp.parts import QUESTION, bundle_of

BUNDLE = bundle_of(b"")
LOG = ("acme", "ops")
ALLOW = {"effect": "ALLOW", "reasons": [], "obligations": {}}
DENY = {**ALLOW, "effect": "DENY"}
ALLOWED = Decision(Effect.ALLOW)


@dataclass
class Opa:
    """A policy server: what it answers, what it holds, what it was asked. `result` None leaves the result out."""

    result: Any = field(default_factory=lambda: ALLOW)
    revision: str = "r1"
    statuses: list[int] = field(default_factory=list)
    asked: list[Any] = field(default_factory=list)
    released: asyncio.Event = field(default_factory=asyncio.Event)

    async def handle(self, request: web.Request) -> web.Response:
        await self.released.wait()
        self.asked.append((request.path, await request.json()))
        known = {"provenance": {"bundles": {"main": {"revision": self.revision}}}}
        if not request.path.endswith("/decision"):
            return web.json_response(known)
        if self.statuses:
            status = self.statuses.pop(0)
            if status != 200:
                return web.json_response({"code": "internal_error"}, status=status)
        return web.json_response(known if self.result is None else {"result": self.result, **known})


@dataclass
class Held:
    """A quarantine that remembers."""

    begun: list[CrossDifference] = field(default_factory=list)
    fails: bool = False

    @property
    def is_held(self) -> bool:
        return bool(self.begun)

    async def begin(self, difference: CrossDifference) -> None:
        self.begun.append(difference)
        if self.fails:
            raise OSError("no disk")


@dataclass
class Checked:
    """A checker with its server, store and metrics, and what it said."""

    checker: CrossChecker
    opa: Opa
    url: str
    held: Held
    opened: OpenStore
    watch: DecisionWatch
    registry: CollectorRegistry
    chances: list[float]
    said: list[tuple[str, dict[str, object]]]

    async def configure(self, bundle: Any = BUNDLE, **settings: Any) -> None:
        await self.checker.configure(config_of({"opa": self.url, "share": 1, **settings}), bundle)

    async def compare(self, decided: Decided, question: PolicyInput = QUESTION) -> None:
        self.watch.asked(question, decided)
        await self.checker.settle()

    def count(self, name: str, **labels: str) -> float:
        return self.registry.get_sample_value(f"tidegate_cross_check_{name}_total", labels) or 0.0

    def what(self) -> list[str]:
        return [what for what, _ in self.said]

    async def records(self) -> list[Any]:
        return [orjson.loads(record.data) for record in await self.opened.store.records(LOG, 0, 10)]


def config_of(cross_check: dict[str, Any] | None) -> GatewayConfig:
    return load_config(yaml.safe_dump({**starter_config(), "cross_check": cross_check}), Path("/base"), {})


def decided(decision: Decision = ALLOWED, **changes: Any) -> Decided:
    return Decided(decision, "r1", BUNDLE.digest, 1, "wasm", "d1", "sha256:in", 0.0)._replace(**changes)


@asynccontextmanager
async def checked(tmp_path: Path) -> AsyncIterator[Checked]:
    opa, held, chances, said = Opa(), Held(), list[float](), list[tuple[str, dict[str, object]]]()
    opa.released.set()
    application = web.Application()
    application.router.add_post("/v1/data/{path:.*}", opa.handle)
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    async with open_store(tmp_path) as opened:
        watch, registry = DecisionWatch(), CollectorRegistry()
        parts = CrossCheckParts(
            opened.writer,
            registry,
            watch,
            held,
            lambda what, fields: said.append((what, fields)),
            chance=lambda: chances.pop(0) if chances else 0.0,
            wall=lambda: 1_800_000_000.0,
        )
        checker = CrossChecker(parts)
        yield Checked(checker, opa, url, held, opened, watch, registry, chances, said)
        await checker.close()
        assert not watch.active
    await runner.cleanup()


async def test_nothing_is_done_when_nothing_is_configured(tmp_path: Path) -> None:
    async with checked(tmp_path) as one:
        await one.checker.configure(config_of(None), BUNDLE)
        one.checker.offer(QUESTION, decided())
        await one.checker.settle()
        assert not one.watch.active and one.opa.asked == [] and one.checker.document() is None
        await one.configure()
        assert one.watch.active
        await one.configure(bundle=None)
        assert not one.watch.active


async def test_nothing_differs_when_opa_decides_alike(tmp_path: Path) -> None:
    async with checked(tmp_path) as one:
        await one.configure(on_difference="quarantine")
        await one.compare(decided())
        assert one.count("compared") == 1 and one.said == [] and one.held.begun == []
        assert await one.records() == []
        ((path, question),) = one.opa.asked
        assert path == "/v1/data/tidegate/decision" and question["input"]["context"]["call"] == "call-1"


async def test_difference_is_counted_said_recorded_kept_and_shown(tmp_path: Path) -> None:
    async with checked(tmp_path) as one:
        await one.configure()
        one.opa.result = DENY
        await one.compare(decided())
        (record,) = await one.records()
        (row,) = await one.opened.store.differences(LOG, KIND, 10, None)
        shown = one.checker.document()
    assert one.count("differences", kind="tightening") == 1 and one.held.begun == []
    assert (record["kind"], record["ids"]) == ("bundle", {"call": "call-1"})
    action = {"name": "tidegate.cross_check.difference", "kind": "tightening", "engine": "opa", "quarantines": False}
    assert record["action"] == action
    assert record["policy"]["bundle"] == BUNDLE.digest
    assert record["digests"]["input"] == "sha256:in"
    told = orjson.loads(row.data)
    assert told["digests"] == {name: record["digests"][name] for name in ("ours", "theirs")}
    ((what, fields),) = one.said
    assert (what, fields["call"], fields["theirs"]) == ("cross_check_difference", "call-1", told["digests"]["theirs"])
    assert shown is not None
    assert (shown["differences"], shown["last_difference_at"]) == (1, "2027-01-15T08:00:00.000Z")


async def test_bundle_is_quarantined_when_it_is_asked_for(tmp_path: Path) -> None:
    async with checked(tmp_path) as one:
        await one.configure(on_difference="quarantine")
        one.opa.result = DENY
        await one.compare(decided())
        assert [difference.bundle for difference in one.held.begun] == [BUNDLE.digest]
        assert (await one.records())[0]["action"]["quarantines"] is True
        assert one.registry.get_sample_value("tidegate_bundle_quarantined") == 1


async def test_difference_is_recorded_though_the_quarantine_fails(tmp_path: Path) -> None:
    async with checked(tmp_path) as one:
        await one.configure(on_difference="quarantine")
        one.opa.result, one.held.fails = DENY, True
        await one.compare(decided())
        assert len(await one.records()) == 1
        assert one.count("failed", why="fault") == 1 and one.what()[-1] == "cross_check_failed"


async def test_opa_without_a_decision_differs(tmp_path: Path) -> None:
    async with checked(tmp_path) as one:
        await one.configure()
        one.opa.result = None
        await one.compare(decided())
        assert one.count("differences", kind="tightening") == 1


ERRORS: dict[str, tuple[list[int], float, float]] = {
    "it errs twice": ([500, 500], 1, 0),
    "it errs once": ([500, 200], 0, 0),
    "it errs and is gone": ([500, 503], 0, 1),
    "it is unavailable": ([503], 0, 1),
}


@pytest.mark.parametrize(("statuses", "differences", "failed"), ERRORS.values(), ids=ERRORS.keys())
async def test_error_of_opa_differs_only_when_it_comes_again(
    tmp_path: Path, statuses: list[int], differences: float, failed: float
) -> None:
    async with checked(tmp_path) as one:
        await one.configure()
        one.opa.statuses = statuses
        await one.compare(decided())
        assert one.count("differences", kind="tightening") == differences
        assert one.count("failed", why="unreachable") == failed
        assert one.count("compared") == 1 - failed


async def test_error_counts_as_another_revision_when_that_is_what_opa_holds(tmp_path: Path) -> None:
    async with checked(tmp_path) as one:
        await one.configure(on_difference="quarantine")
        one.opa.revision, one.opa.statuses = "r0", [500]
        await one.compare(decided())
        assert one.count("failed", why="other_revision") == 1 and one.held.begun == []


async def test_other_revision_is_counted_and_said_once_and_never_a_difference(tmp_path: Path) -> None:
    async with checked(tmp_path) as one:
        await one.configure(on_difference="quarantine")
        one.opa.revision, one.opa.result = "r0", DENY
        for _ in range(3):
            await one.compare(decided())
        shown = one.checker.document()
        assert shown is not None and "'r0'" in str(shown["trouble"])
        one.opa.revision, one.opa.result = "r1", ALLOW
        await one.compare(decided())
        assert one.count("failed", why="other_revision") == 3 and one.count("compared") == 1
        assert one.what() == ["cross_check_trouble", "cross_check_goes_on"] and one.held.begun == []


async def test_opa_that_is_down_is_counted_and_never_a_difference(tmp_path: Path) -> None:
    async with checked(tmp_path) as one:
        await one.checker.configure(
            config_of({"opa": f"unix://{tmp_path}/none.sock", "share": 1, "on_difference": "quarantine"}), BUNDLE
        )
        for _ in range(7):
            await one.compare(decided())
        assert one.count("failed", why="unreachable") == 7 and one.held.begun == []
        assert one.what()[0] == "cross_check_trouble" and "cross_check_difference" not in one.what()


SKIPPED = {
    "another bundle made it": decided(bundle_digest="sha256:another"),
    "it is an answer given again": decided(cached=True),
}


@pytest.mark.parametrize("skipped", SKIPPED.values(), ids=SKIPPED.keys())
async def test_decision_is_not_compared_when(tmp_path: Path, skipped: Decided) -> None:
    async with checked(tmp_path) as one:
        await one.configure()
        await one.compare(skipped)
        assert one.opa.asked == [] and one.count("compared") == 0
        assert one.count("failed", why="replaced") == (0 if skipped.cached else 1)


async def test_only_the_share_is_compared(tmp_path: Path) -> None:
    async with checked(tmp_path) as one:
        await one.configure(share=0.25)
        one.chances[:] = [0.0, 0.2499, 0.25, 0.9]
        for _ in range(4):
            await one.compare(decided())
        assert one.count("compared") == 2


async def test_question_is_dropped_and_counted_when_too_many_wait(tmp_path: Path) -> None:
    async with checked(tmp_path) as one:
        await one.configure(queue_max=3)
        one.opa.released.clear()
        for _ in range(5):
            one.watch.asked(QUESTION, decided())
        assert one.count("dropped") == 2
        one.opa.released.set()
        await one.checker.settle()
        assert one.count("compared") == 3


async def test_close_gives_up_what_an_opa_that_stands_still_does_not_answer(tmp_path: Path) -> None:
    async with checked(tmp_path) as one:
        await one.configure()
        one.opa.released.clear()
        for _ in range(3):
            one.watch.asked(QUESTION, decided())
        started = asyncio.get_running_loop().time()
        await one.checker.close()
        assert asyncio.get_running_loop().time() - started < 2 * CLOSE_SECONDS
        assert one.count("compared") == 0
        one.opa.released.set()


async def test_questions_that_wait_are_left_out_when_another_bundle_comes(tmp_path: Path) -> None:
    async with checked(tmp_path) as one:
        await one.configure()
        one.watch.asked(QUESTION, decided())
        await one.configure(bundle=replace(BUNDLE, digest="sha256:newer", revision="r2"))
        await one.checker.settle()
        assert one.count("failed", why="replaced") == 1 and one.opa.asked == []


async def test_question_is_counted_and_the_next_one_compared_when_it_cannot_be_put_again(tmp_path: Path) -> None:
    async with checked(tmp_path) as one:
        await one.configure()
        one.watch.asked(QUESTION._replace(args={"x": float("inf")}), decided())
        await one.compare(decided())
        assert one.count("failed", why="fault") == 1 and one.count("compared") == 1


async def test_difference_is_counted_as_unrecorded_when_the_ledger_does_not_take_it(tmp_path: Path) -> None:
    async with checked(tmp_path) as one:
        await one.configure()
        one.opa.result = DENY
        await one.opened.writer.close()
        await one.compare(decided())
        assert one.count("failed", why="unrecorded") == 1
        assert one.what() == ["cross_check_difference", "cross_check_unrecorded"]
