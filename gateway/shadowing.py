"""The shadow bundle of one gate: asked after the answer, in a thread of its own, compared, counted, stored.

Guarantees: a call never waits for it and never changes by it; the queue is bounded, and what does not fit is dropped and
counted; a shadow that cannot be loaded, fails or falls behind leaves enforcement as it is. Differences are stored with a
record in the log of the calls they are about. Leaves comparing to `pdp.shadow`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from time import time
from typing import Final

from prometheus_client import CollectorRegistry

from bundles.errors import BundleError
from bundles.trusted_set import TrustedBundle, VerifyBundle, verify_bundle
from gateway.bundle_settings import merged_bundle, read_bundle_files, trust_policy
from gateway.config import ConfigError, GatewayConfig
from gateway.ledger.record import LogId, RecordDraft, RecordMalformed
from gateway.ledger.writer import LedgerUnavailable, LedgerWriter
from gateway.operations.shadow_metrics import ShadowMetrics
from gateway.policy_settings import Shadow
from gateway.store.port import SaveDifference
from gateway.watching import DecisionWatch
from pdp.aside import AsidePolicy
from pdp.decided import Decided
from pdp.documents import PolicyInput
from pdp.errors import PdpError
from pdp.replay import Kind
from pdp.shadow import Answered, Compared, Difference, compare

LINGER_SECONDS: Final = 0.05
"""How long questions gather before the first of them is put again: by then its answer is out."""
BATCH_MAX_COUNT: Final = 128
DIFFERENCES_A_RECORD_MAX: Final = 64
TENANTS_MAX_COUNT: Final = 256
_OTHERS: Final = ""

Say = Callable[[str, str], None]
"""Takes a stable code and words for the log."""


@dataclass(slots=True)
class Counts:
    """What became of one tenant's questions since the gate started."""

    offered: int = 0
    dropped: int = 0


@dataclass(frozen=True, slots=True)
class _Loaded:
    bundle: TrustedBundle
    policy: AsidePolicy
    settings: Shadow


@dataclass(frozen=True, slots=True)
class ShadowStatus:
    """What is compared with, or why nothing is."""

    bundle: TrustedBundle | None
    error_code: str | None
    error_detail: str
    counts: Counts = field(default_factory=Counts)


class ShadowRunner:
    """Belongs to one event loop; `configure` puts a configuration in force."""

    def __init__(
        self,
        writer: LedgerWriter,
        registry: CollectorRegistry,
        watch: DecisionWatch,
        say: Say,
        verify: VerifyBundle = verify_bundle,
    ) -> None:
        self._writer = writer
        self._metrics = ShadowMetrics(registry)
        self._watch = watch
        self._say = say
        self._verify = verify
        self._loaded: _Loaded | None = None
        self._error: tuple[str, str] | None = None
        self._waiting: deque[Answered] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._draining: asyncio.Task[None] | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="shadow")
        self._counts: dict[str, Counts] = {}

    async def configure(self, config: GatewayConfig, bundles: Mapping[str, TrustedBundle]) -> None:
        """Keep inputs and shadow calls as `config` says; `bundles` are those in force, by name.

        A shadow that cannot be loaded is logged and shown, no more.
        """
        settings = config.document.shadow
        fresh: _Loaded | None = None
        self._error = None
        if settings is not None:
            try:
                fresh = await asyncio.to_thread(_load, config, (settings, self._verify), bundles, self._loaded)
            except (ConfigError, BundleError, PdpError) as failed:
                self._error = (failed.code, failed.detail)
                self._say(failed.code, failed.detail)
        old, self._loaded = self._loaded, fresh
        shadow = self if fresh is not None else None
        self._watch.configure(keep_seconds=config.document.records.inputs_keep_seconds, shadow=shadow)
        if old is not None and (fresh is None or old.policy is not fresh.policy):
            await asyncio.get_running_loop().run_in_executor(self._thread, old.policy.close)

    def offer(self, question: PolicyInput, decided: Decided) -> None:
        """Take a question that was answered; drop and count it when too many wait."""
        counts = self._counts_of(question.subject.tenant)
        counts.offered += 1
        loaded = self._loaded
        if loaded is None or len(self._waiting) >= loaded.settings.queue_max:
            counts.dropped += 1
            self._metrics.dropped.inc()
            return
        self._waiting.append(Answered(question, decided))
        if self._timer is None and self._draining is None:
            self._timer = asyncio.get_running_loop().call_later(LINGER_SECONDS, self._begin)

    def status(self, tenant: str) -> ShadowStatus:
        """What is compared with, and how much of a tenant's was offered and dropped."""
        code, detail = self._error if self._error is not None else (None, "")
        bundle = self._loaded.bundle if self._loaded is not None else None
        return ShadowStatus(bundle, code, detail, self._counts.get(tenant, Counts()))

    async def settle(self) -> None:
        """Compare whatever waits now."""
        if self._timer is not None:
            self._begin()
        while self._draining is not None:
            await asyncio.wait((self._draining,))

    async def close(self) -> None:
        """Take nothing more, finish what waits, free the bundle."""
        self._watch.configure(keep_seconds=0, shadow=None)
        await self.settle()
        loaded, self._loaded = self._loaded, None
        if loaded is not None:
            await asyncio.get_running_loop().run_in_executor(self._thread, loaded.policy.close)
        self._thread.shutdown(wait=False)

    def _counts_of(self, tenant: str) -> Counts:
        counts = self._counts.get(tenant)
        if counts is None:
            name = tenant if len(self._counts) < TENANTS_MAX_COUNT else _OTHERS
            counts = self._counts.setdefault(name, Counts())
        return counts

    def _begin(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._draining = asyncio.get_running_loop().create_task(self._drain(), name="shadow-compare")

    async def _drain(self) -> None:
        """Compare batch after batch until none waits; whatever goes wrong with one is counted and said."""
        try:
            while self._waiting and self._loaded is not None:
                batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), BATCH_MAX_COUNT))]
                try:
                    await self._compared(self._loaded, batch)
                except Exception as failed:
                    self._metrics.failed.inc(len(batch))
                    self._say("shadow_failed", str(failed))
            self._waiting.clear()
        finally:
            self._draining = None

    async def _compared(self, loaded: _Loaded, batch: Sequence[Answered]) -> None:
        digest = loaded.bundle.digest
        loop = asyncio.get_running_loop()
        found: Compared = await loop.run_in_executor(self._thread, compare, loaded.policy, batch, digest)
        self._metrics.compared.inc(found.compared)
        self._metrics.failed.inc(found.failed)
        by_log: dict[LogId, list[Difference]] = {}
        for difference in found.differences:
            self._metrics.differences[difference.kind].inc()
            if difference.kind is not Kind.REASONS:
                by_log.setdefault((difference.tenant, difference.workspace), []).append(difference)
        for log, differences in by_log.items():
            for start in range(0, len(differences), DIFFERENCES_A_RECORD_MAX):
                await self._store(loaded, log, differences[start : start + DIFFERENCES_A_RECORD_MAX])

    async def _store(self, loaded: _Loaded, log: LogId, differences: Sequence[Difference]) -> None:
        bundle, keep_seconds = loaded.bundle, loaded.settings.keep_seconds
        kinds = {kind.value: sum(each.kind is kind for each in differences) for kind in self._metrics.differences}
        draft = RecordDraft(
            log=log,
            kind="bundle",
            ids={},
            subject={},
            action={"name": "tidegate.shadow.compare", **{kind: count for kind, count in kinds.items() if count}},
            decision=None,
            policy={"bundle": bundle.digest, "revision": bundle.revision[:256], "sequence": bundle.sequence},
            digests={},
            actor="gateway",
        )
        effects = tuple(
            SaveDifference(log, each.call, each.kind.value, each.data, keep_seconds) for each in differences
        )
        try:
            await self._writer.append(draft, effects=effects)
        except (LedgerUnavailable, RecordMalformed) as failed:
            self._metrics.failed.inc(len(differences))
            self._say("shadow_unstored", failed.detail)


def _load(
    config: GatewayConfig,
    wanted: tuple[Shadow, VerifyBundle],
    bundles: Mapping[str, TrustedBundle],
    old: _Loaded | None,
) -> _Loaded:
    """Verify the configured shadow, put the data bundles in force beside it, prepare it. Blocks on disk and processor.

    **Security**: it must be signed as the bundle in force must be; its sequence may be any, since it decides nothing.
    """
    settings, verify = wanted
    full = config.document.full_bundle
    raw, cosignatures = read_bundle_files(config, full.model_copy(update={"source": settings.source}))
    trust = trust_policy(config, full)
    bundle = verify(raw, trust, now=int(time()), highest_sequence=0, cosignatures=cosignatures)
    merged = merged_bundle(config, {**bundles, full.name: bundle})
    if old is not None and old.bundle.digest == merged.digest:
        return _Loaded(merged, old.policy, settings)
    return _Loaded(merged, AsidePolicy(merged), settings)
