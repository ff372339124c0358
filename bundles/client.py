"""Keeps one bundle current: asks a bundle service, checks what it answers, arms the lease, survives restarts.

Guarantees: a bundle is offered only after it passed every check of ``bundles.trusted_set`` together with a statement about
exactly it; the lease grows only after its record is on disk; whatever a service does costs bounded time and memory and
leaves the old bundle with its old lease. Leaves putting a bundle in force to :class:`Install`.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from bundles.canonical import sha256_hex
from bundles.client_deltas import DeltaTaker
from bundles.client_protocol import (
    ClientSettings,
    ClientStatus,
    ClientTrust,
    Fetch,
    Fetched,
    Offer,
    Transfer,
    check_fetched,
    cosignatures_in,
    delay_seconds,
    question_of,
    statement_in,
)
from bundles.client_state import ClientFiles, LeaseGuard
from bundles.delta import ApplyDelta, apply_delta
from bundles.errors import BundleError, BundleRefused, BundleUnavailable
from bundles.freshness import BundleIdentity, FreshnessStatement, verify_statement
from bundles.lease import Lease, highest_wall_of, restored
from bundles.service_protocol import DELTA_STATUS
from bundles.trusted_set import TrustedBundle, VerifyBundle, verify_bundle

OBSERVE_SECONDS: Final = 10.0
"""How often the wall time is remembered on disk while a lease holds."""
TAKING_SECONDS: Final = 2.0
"""How long a bundle on its way into force has once nobody follows any more."""

Install = Callable[[TrustedBundle], Awaitable[None]]
"""Puts a bundle in force, or raises :class:`BundleError` and leaves the old one."""


@dataclass(frozen=True, slots=True)
class ClientParts:
    """What a client works with; ``verify`` and ``rebuild`` are called in threads."""

    fetch: Fetch
    files: ClientFiles
    guard: LeaseGuard
    highest: Callable[[], Awaitable[int]]
    chance: Callable[[], float] = random.random
    steady: Callable[[], float] = time.monotonic
    verify: VerifyBundle = verify_bundle
    rebuild: ApplyDelta = apply_delta


class BundleClient:
    """One bundle of one service. Belongs to one event loop."""

    def __init__(self, trust: ClientTrust, settings: ClientSettings, parts: ClientParts) -> None:
        self._trust = trust
        self._settings = settings
        self._parts = parts
        self._held: BundleIdentity | None = None
        self._ask_whole = False
        self._writing = asyncio.Lock()
        self._failures = 0
        self._asked_at: float | None = None
        self._answered_at: float | None = None
        self._error: tuple[str, str, float] | None = None
        self._deltas = DeltaTaker(trust, parts.files, parts.steady, parts.rebuild)
        self._transfer: Transfer | None = None

    @property
    def held(self) -> BundleIdentity | None:
        """The bundle this client last committed or restored."""
        return self._held

    def status(self) -> ClientStatus:
        """How it stands."""
        statement = self._parts.guard.lease.statement
        code, detail, at = self._error if self._error is not None else (None, None, None)
        return ClientStatus(
            remaining_seconds=self._parts.guard.remaining_seconds(),
            issued_at=statement.issued_at if statement is not None else None,
            expires_at=statement.expires_at if statement is not None else None,
            asked_at=self._asked_at,
            answered_at=self._answered_at,
            failures=self._failures,
            error_code=code,
            error_detail=detail,
            error_at=at,
            transfer=self._transfer,
            deltas_refused=self._deltas.refused_count,
            delta_refusal=self._deltas.refusal,
        )

    async def restore(self) -> TrustedBundle | None:
        """The bundle last in force, if it is still trusted, and its lease as far as that still counts.

        A bundle whose lease has ended comes back too: it decides nothing, but the gate can start and wait with it.
        """
        lease = await self._restored_lease()
        self._parts.guard.replace(lease)
        try:
            bundle = await self._restored_bundle()
        except BundleError as fault:
            self._note(fault)
            bundle = None
        if bundle is None or lease.statement is None or lease.statement.bundle != _identity(bundle):
            # Without the bundle it is about, a statement is worth nothing; the highest time stays.
            self._parts.guard.replace(Lease(highest_wall_seconds=lease.highest_wall_seconds))
        self._held = _identity(bundle) if bundle is not None else None
        return bundle

    async def first(self, within_seconds: float) -> Offer:
        """Ask until a bundle comes; raises the last error when none came ``within_seconds``."""
        ends = self._parts.steady() + within_seconds
        while True:
            began = self._parts.steady()
            offer = await self._attempt()
            if offer is not None:
                return offer
            pause = self._delay(began)
            if self._parts.steady() + pause >= ends:
                code, detail, _ = self._error or ("bundle_service_answer", "no bundle came", 0.0)
                raise BundleUnavailable(code, detail)
            await asyncio.sleep(pause)

    async def run(self, install: Install, say: Callable[[BundleError], None]) -> None:
        """Ask for ever; put each new bundle in force; tell ``say`` of each failure. Ends only by cancellation."""
        observing = asyncio.create_task(self._observe_for_ever(say), name="bundle-observe-time")
        try:
            while True:
                began = self._parts.steady()
                offer = await self._attempt(say)
                if offer is not None:
                    await self._take(offer, install, say)
                await asyncio.sleep(self._delay(began))
        finally:
            observing.cancel()
            await asyncio.wait([observing])

    async def ask(self, say: Callable[[BundleError], None] | None = None) -> Offer | None:
        """Ask once: a new bundle comes back as an offer, an unchanged one extends the lease.

        Raises :class:`BundleRefused` or :class:`BundleUnavailable`; the lease then is as it was. A delta that is refused is
        only told to ``say``: the whole bundle is asked for instead, at once.
        """
        held = None if self._ask_whole else self._held
        left = self._parts.guard.remaining_seconds()
        may_wait = self._failures == 0 and left > 2 * self._settings.interval_seconds
        delta = held is not None and self._settings.deltas and self._deltas.is_wanted
        fetched = await self._parts.fetch(question_of(self._settings, held, may_wait=may_wait, delta=delta))
        check_fetched(fetched, asked_for_change=held is not None, asked_for_delta=delta)
        if fetched.status == DELTA_STATUS and held is not None:
            offer = await self._offered_by_delta(fetched, held, say)
            if offer is not None:
                return offer
            fetched = await self._parts.fetch(question_of(self._settings, held, may_wait=False))
            check_fetched(fetched, asked_for_change=True)
        if fetched.status == 304:
            await self._unchanged(fetched)
            return None
        digest = f"sha256:{await asyncio.to_thread(sha256_hex, fetched.unverified_body)}"
        if self._held is not None and digest == self._held.digest:
            await self._unchanged(fetched)
            return None
        return await self._offered(fetched, Transfer("whole", len(fetched.unverified_body)))

    async def commit(self, offer: Offer) -> None:
        """The bundle of ``offer`` is in force: keep it and begin its lease."""
        self._held, self._transfer = offer.statement.bundle, offer.transfer
        await asyncio.to_thread(self._parts.files.keep_bundle, offer.archive, offer.cosignatures)
        await self._arm(offer.statement)
        self._ask_whole = False

    # -- one question -------------------------------------------------------------------------------------------------

    async def _attempt(self, say: Callable[[BundleError], None] | None = None) -> Offer | None:
        """Ask once and remember how it went."""
        self._asked_at = self._parts.guard.clocks().wall_seconds
        try:
            offer = await self.ask(say)
        except BundleError as fault:
            self._failed(fault, say)
            return None
        self._answered_at = self._parts.guard.clocks().wall_seconds
        if offer is None:
            self._failures, self._error = 0, None
        return offer

    async def _take(self, offer: Offer, install: Install, say: Callable[[BundleError], None]) -> None:
        """Put an offer in force and keep it. Cancelling waits `TAKING_SECONDS`: once its sequence counts, a restart finds no
        other bundle that may decide."""
        taking = asyncio.create_task(self._taken(offer, install, say), name="bundle-take")
        try:
            await asyncio.shield(taking)
        except asyncio.CancelledError:
            await asyncio.wait([taking], timeout=TAKING_SECONDS)
            taking.cancel()
            await asyncio.wait([taking])
            raise

    async def _taken(self, offer: Offer, install: Install, say: Callable[[BundleError], None]) -> None:
        try:
            await install(offer.bundle)
            await self.commit(offer)
        except BundleError as fault:
            self._failed(fault, say)
            return
        self._failures, self._error = 0, None

    async def _unchanged(self, fetched: Fetched) -> None:
        """A statement about the bundle held; one about another makes the next question ask for the whole bundle."""
        if self._held is None:
            raise BundleUnavailable("bundle_service_answer", "nothing is held that could be unchanged")
        try:
            await self._arm(self._verified(statement_in(fetched), self._held))
        except BundleRefused:
            self._ask_whole = True
            raise
        self._ask_whole = False

    async def _offered_by_delta(
        self, fetched: Fetched, held: BundleIdentity, say: Callable[[BundleError], None] | None
    ) -> Offer | None:
        """The bundle that a delta leads to; ``None`` when the delta is refused.

        Once the digest is right these are the bytes of the whole bundle, so what is refused then is the bundle itself.
        """
        try:
            whole = await self._deltas.whole(fetched, held, now=self._parts.guard.clocks().wall_seconds)
        except BundleError as fault:
            self._deltas.refused(fault)
            if say is not None:
                say(fault)
            return None
        return await self._offered(whole, Transfer("delta", len(fetched.unverified_body)))

    async def _offered(self, fetched: Fetched, transfer: Transfer) -> Offer:
        archive, cosignatures = fetched.unverified_body, cosignatures_in(fetched)
        bundle = await asyncio.to_thread(self._trusted, archive, cosignatures, await self._parts.highest())
        if (
            self._held is not None
            and bundle.sequence == self._held.sequence
            and bundle.epoch == self._trust.bundle.epoch
        ):
            raise BundleRefused("bundle_sequence_reused", f"sequence {bundle.sequence} has another content here")
        statement = self._verified(statement_in(fetched), _identity(bundle))
        self._rearmed(statement)
        return Offer(bundle, statement, archive, cosignatures, transfer)

    def _trusted(self, archive: bytes, cosignatures: bytes | None, highest: int) -> TrustedBundle:
        now = int(self._parts.guard.clocks().wall_seconds)
        verify, trust = self._parts.verify, self._trust.bundle
        return verify(archive, trust, now=now, highest_sequence=highest, cosignatures=cosignatures)

    def _verified(self, token: str, about: BundleIdentity) -> FreshnessStatement:
        now = self._parts.guard.clocks().wall_seconds
        return verify_statement(token, self._trust.freshness_keys, about, now=now)

    # -- the lease ----------------------------------------------------------------------------------------------------

    def _rearmed(self, statement: FreshnessStatement) -> Lease:
        guard = self._parts.guard
        return guard.lease.armed(statement, guard.clocks(), longest_seconds=float(self._settings.lease_seconds))

    async def _arm(self, statement: FreshnessStatement) -> None:
        async with self._writing:
            lease = self._rearmed(statement)
            if lease is not self._parts.guard.lease:
                await asyncio.to_thread(self._parts.files.keep_lease, lease)
                self._parts.guard.replace(lease)

    async def _observe_for_ever(self, say: Callable[[BundleError], None]) -> None:
        while True:
            await asyncio.sleep(OBSERVE_SECONDS)
            try:
                await self.observe()
            except BundleError as fault:
                self._note(fault)
                say(fault)

    async def observe(self) -> None:
        """Remember on disk how far the wall clock has come."""
        async with self._writing:
            guard = self._parts.guard
            lease = guard.lease.observed(guard.clocks())
            if lease is not guard.lease:
                await asyncio.to_thread(self._parts.files.keep_lease, lease)
                guard.replace(lease)

    # -- restarts -----------------------------------------------------------------------------------------------------

    async def _restored_lease(self) -> Lease:
        raw: bytes | None = None
        try:
            raw = await asyncio.to_thread(self._parts.files.read_lease)
            if raw is None:
                return Lease()
            longest = float(self._settings.lease_seconds)
            return restored(raw, self._trust.freshness_keys, self._parts.guard.clocks(), longest_seconds=longest)
        except BundleError as fault:
            self._note(fault)
        try:
            return Lease(highest_wall_seconds=highest_wall_of(raw) if raw is not None else 0.0)
        except BundleError:
            return Lease()  # Unreadable altogether, as was noted above: no lease, so nothing is allowed by it.

    async def _restored_bundle(self) -> TrustedBundle | None:
        kept = await asyncio.to_thread(self._parts.files.read_bundle)
        if kept is None:
            return None
        return await asyncio.to_thread(self._trusted, *kept, await self._parts.highest())

    # -- how it went --------------------------------------------------------------------------------------------------

    def _delay(self, began: float) -> float:
        took = self._parts.steady() - began
        return delay_seconds(self._settings, failures=self._failures, took_seconds=took, chance=self._parts.chance())

    def _failed(self, fault: BundleError, say: Callable[[BundleError], None] | None) -> None:
        self._failures += 1
        self._note(fault)
        if say is not None:
            say(fault)

    def _note(self, fault: BundleError) -> None:
        self._error = (fault.code, fault.detail, self._parts.guard.clocks().wall_seconds)


def _identity(bundle: TrustedBundle) -> BundleIdentity:
    return BundleIdentity(bundle.name, bundle.digest, bundle.sequence)
