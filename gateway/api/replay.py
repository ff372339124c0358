"""``POST /v1/replay``: recorded calls of the caller's tenant and workspace, decided by another bundle.

Guarantees: only what was kept in the caller's own log is decided again, nothing is sent or changed; the bundle must be
signed as the one in force must be. One replay runs at a time, in a thread, over a bounded number of calls.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
from concurrent.futures import ThreadPoolExecutor
from time import time
from typing import Final

from bundles.canonical import JsonValue
from bundles.errors import BundleError
from bundles.trusted_set import TrustedBundle
from gateway.api.exchange import ApiExchange, answer
from gateway.api.management import authorize
from gateway.bundle_settings import merged_bundle, trust_policy
from gateway.config import ConfigError
from gateway.edge.answer import Answer
from gateway.edge.problem import refusal
from gateway.replaying import decide_again
from gateway.running import Running
from gateway.store.answers import AnswerBroken
from gateway.store.port import LIST_MAX_ITEMS, KeptInput
from gateway.store.sealing import SealBroken
from pdp.aside import AsidePolicy
from pdp.errors import PdpError
from pdp.replay import Report

LAST_DEFAULT: Final = 1_000
LAST_MAX: Final = 10_000
_MEMBERS: Final = frozenset({"last", "bundle"})


async def handle(running: Running, exchange: ApiExchange) -> Answer:
    """Answer a request to ``/v1/replay``."""
    if exchange.head.method != "POST":
        raise refusal("method_not_allowed", "only POST is allowed here")
    await authorize(running, exchange, "replay.run")
    given = await exchange.document(_MEMBERS)
    last = given.get("last", LAST_DEFAULT)
    if type(last) is not int or not 1 <= last <= LAST_MAX:
        message = f"a whole number from 1 to {LAST_MAX}"
        raise refusal("arguments_invalid", message, errors=[{"pointer": "/last", "message": message}])
    if running.replaying.locked():
        raise refusal("throttled", "a replay is running already")
    async with running.replaying:
        bundle = await _bundle(running, given)
        return answer(await _replayed(running, exchange, bundle, last))


async def _bundle(running: Running, given: dict[str, JsonValue]) -> TrustedBundle:
    """The bundle to decide with: the one that was sent, else the shadow."""
    if "bundle" not in given:
        status = running.shadow.status("") if running.shadow is not None else None
        if status is None or status.bundle is None:
            message = "no bundle was sent, and no shadow is loaded"
            raise refusal("arguments_invalid", message, errors=[{"pointer": "/bundle", "message": message}])
        return status.bundle
    try:
        raw = base64.b64decode(str(given["bundle"]), validate=True)
        return await asyncio.to_thread(_verified, running, raw)
    except (binascii.Error, ValueError, BundleError, ConfigError) as refused:
        message = f"no bundle that this gate would trust: {getattr(refused, 'code', 'not_base64')}"
        raise refusal("arguments_invalid", message, errors=[{"pointer": "/bundle", "message": message}]) from refused


class _Session:
    """One replay. Everything but making it happens in one thread, in order, whoever gives up waiting meanwhile."""

    def __init__(self, bundle: TrustedBundle) -> None:
        self._bundle = bundle
        self._policy: AsidePolicy | None = None
        self.report = Report()

    def load(self) -> None:
        """Prepare the bundle; raises ``PolicyRefused``."""
        self._policy = AsidePolicy(self._bundle)

    def decide(self, page: tuple[KeptInput, ...]) -> None:
        """Decide a page again."""
        if self._policy is not None:
            decide_again(self._policy, page, self.report)

    def close(self) -> None:
        """Free the bundle."""
        if self._policy is not None:
            self._policy.close()


async def _replayed(running: Running, exchange: ApiExchange, bundle: TrustedBundle, last: int) -> dict[str, JsonValue]:
    session, thread = _Session(bundle), ThreadPoolExecutor(1, thread_name_prefix="replay")
    loop = asyncio.get_running_loop()
    try:
        await loop.run_in_executor(thread, session.load)
        left, before = last, None
        while left > 0:
            page = await _page(running, exchange, min(left, LIST_MAX_ITEMS), before)
            if not page:
                break
            await loop.run_in_executor(thread, session.decide, page)
            left, before = left - len(page), page[-1].position
    except PdpError as refused:
        message = f"no bundle that this gate can load: {refused.code}"
        raise refusal("arguments_invalid", message, errors=[{"pointer": "/bundle", "message": message}]) from refused
    finally:
        thread.submit(session.close)
        thread.shutdown(wait=False)
    told: dict[str, JsonValue] = {"name": bundle.name, "revision": bundle.revision, "digest": bundle.digest}
    return {**session.report.document(), "bundle": {**told, "sequence": bundle.sequence}}


async def _page(running: Running, exchange: ApiExchange, count: int, before: int | None) -> tuple[KeptInput, ...]:
    try:
        return await running.services.store.kept_inputs(exchange.log, count, before)
    except (SealBroken, AnswerBroken) as broken:
        raise refusal("ledger_unavailable") from broken


def _verified(running: Running, raw: bytes) -> TrustedBundle:
    """A sent bundle, with the data bundles in force beside it. Blocks on disk and processor."""
    config = running.assembly.config
    full = config.document.full_bundle
    trusted = running.verify(raw, trust_policy(config, full), now=int(time()), highest_sequence=0)
    beside = {state.bundle.name: state.bundle for state in running.bundles()}
    return merged_bundle(config, {**beside, full.name: trusted})
