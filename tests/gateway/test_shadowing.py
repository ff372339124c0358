"""The shadow's queue and what becomes of its differences, with a real store and a real policy."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import orjson
import pytest
import yaml
from prometheus_client import CollectorRegistry

from bundles.keys import generate_signing_key, public_pem
from bundles.trusted_set import TrustedBundle
from gateway.bundle_settings import trusted_bundle
from gateway.config import GatewayConfig, load_config
from gateway.shadowing import DIFFERENCES_A_RECORD_MAX, TENANTS_MAX_COUNT, ShadowRunner
from gateway.watching import Asked, DecisionWatch
from pdp.decided import Decided
from pdp.documents import Decision, Effect, PolicyInput, Reason
from pdp.replay import read_recorded
from tests.gateway.store.build import OpenStore, draft, open_store
from tests.pdp.parts import QUESTION

DENIED = Decision(Effect.DENY, (Reason("no", "policies.servicenow.deny", "m"),))
LOG = ("acme", "ops")


def config_of(directory: Path, shadow: dict[str, object] | None, keep_seconds: int = 0) -> GatewayConfig:
    document = yaml.safe_load((directory / "tidegate.yaml").read_text(encoding="utf-8"))
    document["records"] = {"inputs_keep_seconds": keep_seconds}
    if shadow is not None:
        document["shadow"] = shadow
    return load_config(yaml.safe_dump(document), directory, {})


@dataclass
class Shadowed:
    """A runner with its store, what it said and its metrics."""

    runner: ShadowRunner
    opened: OpenStore
    watch: DecisionWatch
    registry: CollectorRegistry
    directory: Path
    bundles: dict[str, TrustedBundle]
    said: list[tuple[str, str]] = field(default_factory=list)

    def count(self, name: str, **labels: str) -> float:
        return self.registry.get_sample_value(f"tidegate_shadow_{name}_total", labels) or 0.0

    async def configure(self, shadow: dict[str, object] | None, keep_seconds: int = 0) -> None:
        config = await asyncio.to_thread(config_of, self.directory, shadow, keep_seconds)
        await self.runner.configure(config, self.bundles)


@asynccontextmanager
async def shadowed(tmp_path: Path, starter: Path) -> AsyncIterator[Shadowed]:
    directory = tmp_path / "gate"
    await asyncio.to_thread(shutil.copytree, starter, directory)
    config = await asyncio.to_thread(config_of, directory, None)
    bundle = await asyncio.to_thread(trusted_bundle, config, config.document.full_bundle, 0)
    async with open_store(tmp_path) as opened:
        watch, registry, said = DecisionWatch(), CollectorRegistry(), []  # type: ignore[var-annotated]
        runner = ShadowRunner(opened.writer, registry, watch, lambda code, detail: said.append((code, detail)))
        yield Shadowed(runner, opened, watch, registry, directory, {bundle.name: bundle}, said)
        await runner.close()


def question(call: str = "c1", tenant: str = "acme") -> PolicyInput:
    return QUESTION._replace(call=call, subject=QUESTION.subject._replace(tenant=tenant))


def decided(decision: Decision = DENIED) -> Decided:
    return Decided(decision, "r0", "sha256:active", 1, "wasm", "d1", "sha256:ff", 0.0)


SOURCE: dict[str, object] = {"source": "file:bundle.tar.gz"}


async def test_nothing_is_done_when_nothing_is_configured(tmp_path: Path, starter_directory: Path) -> None:
    async with shadowed(tmp_path, starter_directory) as one:
        await one.configure(None)
        assert not one.watch.active
        assert one.watch.asked(question(), decided()) is None
        status = one.runner.status("acme")
        assert (status.bundle, status.error_code) == (None, None)


async def test_difference_is_stored_with_a_record_of_its_log(tmp_path: Path, starter_directory: Path) -> None:
    async with shadowed(tmp_path, starter_directory) as one:
        await one.configure(SOURCE)
        assert one.watch.active
        one.watch.asked(question(), decided())
        await one.runner.settle()
        (row,) = await one.opened.store.differences(LOG, None, 10, None)
        records = [orjson.loads(record.data) for record in await one.opened.store.records(LOG, 0, 10)]
    assert (row.call, row.kind) == ("c1", "loosening")
    assert b"printer" not in row.data
    assert records[0]["action"] == {"name": "tidegate.shadow.compare", "loosening": 1}
    assert records[0]["policy"]["bundle"] == orjson.loads(row.data)["shadow"]
    assert one.count("compared") == 1 and one.count("differences", kind="loosening") == 1


async def test_nothing_is_stored_when_only_reasons_differ(tmp_path: Path, starter_directory: Path) -> None:
    allowed = Decision(Effect.ALLOW, (Reason("other", "policies.servicenow.allow", "m"),))
    async with shadowed(tmp_path, starter_directory) as one:
        await one.configure(SOURCE)
        one.runner.offer(question(), decided(allowed))
        await one.runner.settle()
        assert await one.opened.store.records(LOG, 0, 10) == ()
        assert one.count("differences", kind="reasons") == 1


async def test_question_is_dropped_and_counted_when_too_many_wait(tmp_path: Path, starter_directory: Path) -> None:
    async with shadowed(tmp_path, starter_directory) as one:
        await one.configure({**SOURCE, "queue_max": 3})
        for number in range(5):
            one.runner.offer(question(f"c{number}"), decided())
        await one.runner.settle()
        counts = one.runner.status("acme").counts
        rows = await one.opened.store.differences(LOG, None, 10, None)
        assert (counts.offered, counts.dropped, one.count("dropped")) == (5, 2, 2)
        assert sorted(row.call for row in rows) == ["c0", "c1", "c2"]
        one.runner.offer(question("c9"), decided())
        await one.runner.settle()
        assert one.count("dropped") == 2 and one.count("compared") == 4


async def test_differences_are_stored_in_several_records_when_they_are_many(
    tmp_path: Path, starter_directory: Path
) -> None:
    async with shadowed(tmp_path, starter_directory) as one:
        await one.configure(SOURCE)
        for number in range(DIFFERENCES_A_RECORD_MAX + 1):
            one.runner.offer(question(f"c{number}"), decided())
        await one.runner.settle()
        assert len(await one.opened.store.records(LOG, 0, 10)) == 2
        assert await one.opened.store.difference_counts(LOG) == {"loosening": DIFFERENCES_A_RECORD_MAX + 1}


async def test_differences_of_tenants_are_kept_apart(tmp_path: Path, starter_directory: Path) -> None:
    async with shadowed(tmp_path, starter_directory) as one:
        await one.configure(SOURCE)
        one.runner.offer(question("mine"), decided())
        one.runner.offer(question("theirs", "rival"), decided())
        await one.runner.settle()
        for log, call in ((LOG, "mine"), (("rival", "ops"), "theirs")):
            assert [row.call for row in await one.opened.store.differences(log, None, 10, None)] == [call]
        assert one.runner.status("rival").counts.offered == 1
        assert one.runner.status("nobody").counts.offered == 0


async def test_tenants_are_counted_together_when_there_are_very_many(tmp_path: Path, starter_directory: Path) -> None:
    async with shadowed(tmp_path, starter_directory) as one:
        for number in range(TENANTS_MAX_COUNT + 5):
            one.runner.offer(question(tenant=f"t{number}"), decided())
        assert one.runner.status("").counts.offered == 5
        assert one.count("dropped") == TENANTS_MAX_COUNT + 5


async def test_differences_are_counted_as_failed_when_they_cannot_be_stored(
    tmp_path: Path, starter_directory: Path
) -> None:
    async with shadowed(tmp_path, starter_directory) as one:
        await one.configure(SOURCE)
        await one.opened.writer.close()
        one.runner.offer(question(), decided())
        await one.runner.settle()
        assert one.count("failed") == 1
        assert [code for code, _ in one.said] == ["shadow_unstored"]


async def test_queue_goes_on_when_a_batch_fails(tmp_path: Path, starter_directory: Path) -> None:
    async with shadowed(tmp_path, starter_directory) as one:
        await one.configure(SOURCE)
        one.runner.offer(question(), decided()._replace(decision=None))  # type: ignore[arg-type]
        await one.runner.settle()
        assert [code for code, _ in one.said] == ["shadow_failed"] and one.count("failed") == 1
        one.runner.offer(question(), decided())
        await one.runner.settle()
        assert one.count("compared") == 1


@pytest.mark.parametrize(
    ("content", "code"),
    [
        pytest.param(None, "bundle_missing", id="absent"),
        pytest.param(b"", "bundle_archive_invalid", id="empty"),
        pytest.param(b"no archive", "bundle_archive_invalid", id="no archive"),
    ],
)
async def test_shadow_is_said_and_shown_and_no_more_when_it_is(
    tmp_path: Path, starter_directory: Path, content: bytes | None, code: str
) -> None:
    async with shadowed(tmp_path, starter_directory) as one:
        if content is not None:
            await asyncio.to_thread((one.directory / "broken").write_bytes, content)
        await one.configure({"source": "file:broken"})
        status = one.runner.status("acme")
        assert (status.bundle, status.error_code) == (None, code)
        assert [said for said, _ in one.said] == [code]
        assert not one.watch.active


async def test_shadow_is_refused_when_another_key_signed_it(tmp_path: Path, starter_directory: Path) -> None:
    async with shadowed(tmp_path, starter_directory) as one:
        key = one.directory / "keys" / "bundle.pub.pem"
        other = await asyncio.to_thread(_another_public_key, tmp_path)
        await asyncio.to_thread(key.write_bytes, other)
        await one.configure(SOURCE)
        assert one.runner.status("acme").error_code == "bundle_signature_invalid"


def _another_public_key(directory: Path) -> bytes:
    return public_pem(generate_signing_key(directory / "other.pem"))


async def test_shadow_is_replaced_and_taken_away_by_configurations(tmp_path: Path, starter_directory: Path) -> None:
    async with shadowed(tmp_path, starter_directory) as one:
        await one.configure(SOURCE)
        first = one.runner.status("acme").bundle
        await one.configure({**SOURCE, "queue_max": 1})
        assert one.runner.status("acme").bundle == first
        one.runner.offer(question(), decided())
        await one.runner.settle()
        assert one.count("compared") == 1
        await one.configure(None)
        assert one.runner.status("acme").bundle is None and not one.watch.active


async def test_question_is_kept_with_its_record_when_asked_for(tmp_path: Path, starter_directory: Path) -> None:
    async with shadowed(tmp_path, starter_directory) as one:
        await one.configure(None, keep_seconds=60)
        asked = one.watch.asked(question(), decided())
        assert asked == Asked(question(), decided())
        await one.opened.writer.append(draft("refusal"), effects=one.watch.kept(asked, draft("refusal")))
        kept = await one.opened.store.kept_input(LOG, "c1")
    assert kept is not None
    recorded = read_recorded(kept.about, kept.document)
    assert (recorded.decision["effect"], recorded.document["context"]["call"]) == ("DENY", "c1")
