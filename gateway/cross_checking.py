"""The cross-check of one gate: a share of its decisions, put to an OPA server after the answer, compared, recorded.

Guarantees: a call never waits for it; the queue is bounded, and what does not fit is dropped and counted; OPA's answer counts
only if it comes from the revision in force, and an OPA that is down or behind is counted and never a difference. A difference
is counted, logged and recorded in the log of its call; where configuration says so, its bundle decides no more. Leaves
comparing to `pdp.cross_check`, keeping a quarantine to `gateway.quarantining`.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from time import time
from typing import Final, Protocol

from prometheus_client import CollectorRegistry

from bundles.canonical import JsonValue
from bundles.trusted_set import TrustedBundle
from gateway.approvals.render import rfc3339
from gateway.config import GatewayConfig
from gateway.ledger.record import RecordDraft, RecordMalformed
from gateway.ledger.writer import LedgerUnavailable, LedgerWriter
from gateway.operations.cross_check_metrics import (
    FAULT,
    OTHER_REVISION,
    REPLACED,
    UNREACHABLE,
    UNRECORDED,
    CrossCheckMetrics,
)
from gateway.policy_settings import CrossCheck
from gateway.store.port import SaveDifference
from gateway.watching import DecisionWatch
from pdp.cross_check import CrossDifference, Rulebook, cross_difference
from pdp.decided import Decided
from pdp.documents import PolicyInput, encode_input
from pdp.errors import EngineBehind, EngineErred, EngineFailed, EngineUndefined
from pdp.opa_server import OpaServerEngine, OpaServerPolicy
from pdp.shadow import Answered

LINGER_SECONDS: Final = 0.05
"""How long questions gather before the first of them is put to OPA: by then its answer is out."""
DEADLINE_SECONDS: Final = 5.0
"""How long one question may take: nobody waits for its answer."""
CLOSE_SECONDS: Final = 2.0
KIND: Final = "engine"
"""The kind that differences between engines are kept under, beside those of a shadow bundle."""

Say = Callable[[str, dict[str, object]], None]
"""Takes what happened and the fields of its log line."""


class QuarantinePort(Protocol):
    """Whoever has a bundle decide no more."""

    @property
    def is_held(self) -> bool:
        """Whether nothing decides because of it."""

    async def begin(self, difference: CrossDifference) -> None:
        """Have the difference's bundle decide no more."""


@dataclass(frozen=True, slots=True)
class CrossCheckParts:
    """What a cross-check works with. `chance` gives numbers from 0 to 1, `wall` Unix seconds."""

    writer: LedgerWriter
    registry: CollectorRegistry
    watch: DecisionWatch
    quarantine: QuarantinePort
    say: Say
    chance: Callable[[], float] = random.random
    wall: Callable[[], float] = time


@dataclass(frozen=True, slots=True)
class _Loaded:
    bundle: TrustedBundle
    policy: OpaServerPolicy
    rulebook: Rulebook
    settings: CrossCheck


class CrossChecker:
    """Belongs to one event loop; `configure` puts a configuration and a bundle in force."""

    def __init__(self, parts: CrossCheckParts) -> None:
        self._parts = parts
        self.metrics = CrossCheckMetrics(parts.registry, lambda: parts.quarantine.is_held)
        self._loaded: _Loaded | None = None
        self._waiting: deque[Answered] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._draining: asyncio.Task[None] | None = None
        self._differences = 0
        self._last: float | None = None
        self._trouble = ""

    async def configure(self, config: GatewayConfig, bundle: TrustedBundle | None) -> None:
        """Compare as `config` says with what `bundle` decides; with neither, nothing."""
        settings = config.document.cross_check
        old, self._loaded = self._loaded, None
        if settings is not None and bundle is not None:
            chains = bundle.data.get("chains")
            rulebook = Rulebook(chains if isinstance(chains, dict) else {}, bundle.cacheable)
            policy = await OpaServerEngine(settings.opa, deadline_seconds=DEADLINE_SECONDS).connect(bundle)
            self._loaded = _Loaded(bundle, policy, rulebook, settings)
        self._parts.watch.compare(self if self._loaded is not None else None)
        if old is not None:
            await old.policy.close()

    def offer(self, question: PolicyInput, decided: Decided) -> None:
        """Take a share of the questions that were answered; drop and count one when too many wait.

        An answer that was given again says what was right when it was made, so it is not compared.
        """
        loaded = self._loaded
        if loaded is None or decided.cached or self._parts.chance() >= loaded.settings.share:
            return
        if len(self._waiting) >= loaded.settings.queue_max:
            self.metrics.dropped.inc()
            return
        self._waiting.append(Answered(question, decided))
        if self._timer is None and self._draining is None:
            self._timer = asyncio.get_running_loop().call_later(LINGER_SECONDS, self._begin)

    def document(self) -> dict[str, JsonValue] | None:
        """How it stands, if it is asked for: for `/v1/enforcement` and `/v1/shadow`."""
        loaded = self._loaded
        if loaded is None:
            return None
        return {
            "engine": loaded.policy.name,
            "share": loaded.settings.share,
            "on_difference": loaded.settings.on_difference,
            "bundle": loaded.bundle.digest,
            "differences": self._differences,
            "last_difference_at": rfc3339(int(self._last * 1000)) if self._last is not None else None,
            "trouble": self._trouble or None,
        }

    async def settle(self) -> None:
        """Compare whatever waits now."""
        if self._timer is not None:
            self._begin()
        while self._draining is not None:
            await asyncio.wait((self._draining,))

    async def close(self) -> None:
        """Take nothing more, finish what can be finished in `CLOSE_SECONDS`, leave OPA."""
        self._parts.watch.compare(None)
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_SECONDS):
                await self.settle()
        if self._draining is not None:
            self._draining.cancel()
            await asyncio.wait((self._draining,))
        loaded, self._loaded = self._loaded, None
        if loaded is not None:
            await loaded.policy.close()

    def _begin(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._draining = asyncio.get_running_loop().create_task(self._drain(), name="cross-check")

    async def _drain(self) -> None:
        """Compare one after the other until none waits; whatever goes wrong with one is counted and said."""
        try:
            while self._waiting:
                answered = self._waiting.popleft()
                try:
                    await self._compare(answered)
                except Exception as failed:  # boundary: the next one is compared whatever happened to this one
                    self.metrics.failed[FAULT].inc()
                    self._parts.say("cross_check_failed", {"error": str(failed)})
        finally:
            self._draining = None

    async def _compare(self, answered: Answered) -> None:
        loaded = self._loaded
        if loaded is None or answered.decided.bundle_digest != loaded.bundle.digest:
            self.metrics.failed[REPLACED].inc()
            return
        try:
            document = await _asked(loaded.policy, encode_input(answered.question))
        except EngineFailed as failed:
            why = OTHER_REVISION if isinstance(failed, EngineBehind) else UNREACHABLE
            self.metrics.failed[why].inc()
            self._say_trouble(failed.detail)
            return
        self._say_trouble("")
        self.metrics.compared.inc()
        difference = cross_difference(*answered, document, loaded.rulebook)
        if difference is not None:
            await self._differed(loaded, difference)

    def _say_trouble(self, detail: str) -> None:
        """Log that OPA cannot be compared with, and that it can be again; once each."""
        if detail != self._trouble:
            self._trouble = detail
            self._parts.say("cross_check_trouble" if detail else "cross_check_goes_on", {"error": detail or None})

    async def _differed(self, loaded: _Loaded, difference: CrossDifference) -> None:
        """The alarm; a quarantine comes before its record, which takes longer."""
        self._differences += 1
        self._last = self._parts.wall()
        self.metrics.differences[difference.kind].inc()
        quarantines = loaded.settings.on_difference == "quarantine"
        self._parts.say(
            "cross_check_difference",
            {
                "call": difference.call,
                "kind": difference.kind.value,
                "bundle": difference.bundle,
                "input_digest": difference.input_digest,
                "ours": difference.ours,
                "theirs": difference.theirs,
                "quarantines": quarantines,
            },
        )
        try:
            if quarantines:
                await self._parts.quarantine.begin(difference)
        finally:
            await self._record(loaded, difference, quarantines=quarantines)

    async def _record(self, loaded: _Loaded, difference: CrossDifference, *, quarantines: bool) -> None:
        bundle, log = loaded.bundle, (difference.tenant, difference.workspace)
        draft = RecordDraft(
            log=log,
            kind="bundle",
            ids={"call": difference.call},
            subject={},
            action={
                "name": "tidegate.cross_check.difference",
                "kind": difference.kind.value,
                "engine": loaded.policy.name,
                "quarantines": quarantines,
            },
            decision=None,
            policy={"bundle": bundle.digest, "revision": bundle.revision[:256], "sequence": bundle.sequence},
            digests={"input": difference.input_digest, "ours": difference.ours, "theirs": difference.theirs},
            actor="gateway",
        )
        kept = SaveDifference(log, difference.call, KIND, difference.data, loaded.settings.keep_seconds)
        try:
            await self._parts.writer.append(draft, effects=(kept,))
        except (LedgerUnavailable, RecordMalformed) as failed:
            self.metrics.failed[UNRECORDED].inc()
            self._parts.say("cross_check_unrecorded", {"call": difference.call, "error": failed.detail})


async def _asked(policy: OpaServerPolicy, question: bytes) -> bytes | None:
    """The decision document, or `None` where OPA has none for certain; raises `EngineFailed` where nobody can tell.

    An error that comes back names no revision. So it counts only if it comes twice, with the revision confirmed between.
    """
    try:
        return (await policy.ask(question)).document
    except EngineUndefined:
        return None
    except EngineErred:
        await policy.confirm()
    try:
        return (await policy.ask(question)).document
    except (EngineErred, EngineUndefined):
        return None
