"""The policy in force: prepared beside the old one, warmed with its probes, swapped in one assignment, asked.

Guarantees that a bundle answers only after it gave every recorded answer again, that a refused bundle leaves the old
one in force, and that an answer which is no acceptable decision becomes a denial. Preparing and mending happen in
threads, so the event loop never waits for either; questions to the embedded engine are answered in line, those of one
turn of the loop together, each bounded by its fuel. Leaves freshness to the caller beyond the bundle's own ``exp``.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from pdp.decided import REFUSED_BY, ActiveBundle, Decided
from pdp.decision_cache import DecisionCache, Instant, asks_for_caching, cache_seconds_of, question_key
from pdp.documents import Decision, Effect, PolicyInput, Reason, encode_document, encode_input, parse_decision
from pdp.errors import (
    DecisionRefused,
    EngineFailed,
    InputRefused,
    PdpError,
    PolicyRefused,
    PolicyStale,
    PolicyUnavailable,
)
from pdp.fresh_ids import FreshIds
from pdp.probes import check_answer, check_count
from pdp.value import Value

if TYPE_CHECKING:
    from bundles.canonical import JsonValue
    from bundles.trusted_set import TrustedBundle
    from pdp.engine import PolicyEngine, PreparedPolicy

QUIET_TURNS = 8
"""How many turns of the loop in a row must have asked one question each before the next is answered at once."""
READ_MAX_COUNT = 1_024
READ_MAX_BYTES = 4_096
"""How many decision documents are remembered with what they say, and how long each may be."""


class Answer(Value, frozen=True):
    """One decision document's bytes, and the engine's own id for it where it gives one."""

    document: bytes
    decision_id: str | None = None
    cached: bool | None = None


class RemotePolicy(Protocol):
    """One bundle as an engine outside this process answers for it."""

    @property
    def name(self) -> str:
        """The engine's name."""

    async def ask(self, input_bytes: bytes) -> Answer:
        """Answer one question; raises ``EngineFailed``."""

    async def close(self) -> None:
        """Let questions under way finish, then free the connection."""


@runtime_checkable
class RemoteEngine(Protocol):
    """An engine outside this process."""

    async def connect(self, bundle: TrustedBundle) -> RemotePolicy:
        """Make sure that it can answer for ``bundle``; raises ``PolicyRefused``."""


@dataclass(frozen=True, slots=True)
class ReadyPolicy:
    """A policy that passed its probes: in force, or ready to be."""

    active: ActiveBundle
    policy: RemotePolicy
    chains: Mapping[str, JsonValue]
    in_line: _InProcess | None
    """The policy, where it answers without being waited for."""
    read: dict[bytes, Decision] = field(default_factory=dict)
    """What decision documents of this bundle say: policies give the same few again and again."""

    def parsed(self, document: bytes) -> Decision:
        """What a document says, kept for when it comes again; one that is no acceptable decision is a denial."""
        try:
            decision = parse_decision(document, chains=self.chains, cacheable=self.active.bundle.cacheable)
        except DecisionRefused as refused:
            return Decision(Effect.DENY, (Reason(refused.reason_code, REFUSED_BY, refused.detail),))
        if len(self.read) < READ_MAX_COUNT and len(document) <= READ_MAX_BYTES:
            self.read[document] = decision
        return decision


class PolicyPlane:
    """Holds the one policy in force and answers questions with it. Belongs to one event loop."""

    def __init__(
        self,
        engine: PolicyEngine | RemoteEngine,
        *,
        now: Callable[[], float] = time.time,
        seconds: Callable[[], float] = time.perf_counter,
        new_id: Callable[[], str] | None = None,
        lease: Callable[[], bool] | None = None,
        decides_for: Callable[[str], bool] | None = None,
    ) -> None:
        """``now`` gives Unix seconds, ``seconds`` a steady clock for durations, ``lease`` says if it still holds,
        ``decides_for`` whether the bundle is a tenant's."""
        self._engine = engine
        self._now = now
        self._seconds = seconds
        self._lease = lease
        self._decides_for = decides_for
        self._new_id = new_id if new_id is not None else FreshIds()
        self._loading = asyncio.Lock()
        self._in_force: ReadyPolicy | None = None
        self._waiting: list[tuple[PolicyInput, asyncio.Future[Decided | None]]] = []
        self._quiet_turns = 0
        self._asked_at_once = 0

    async def load(self, bundle: TrustedBundle) -> None:
        """Prepare ``bundle``, run its probes, put it in force; raises ``PolicyRefused`` and keeps the old one."""
        await self.put_in_force(await self.prepare(bundle))

    async def prepare(self, bundle: TrustedBundle) -> ReadyPolicy:
        """Make ``bundle`` ready beside what is in force: for ``put_in_force`` or ``discard``. Raises ``PolicyRefused``."""
        async with self._loading:
            check_count(bundle.probes)
            policy = await self._prepared(bundle)
            if bundle.cacheable and asks_for_caching(bundle.rego):
                policy = _Cached(policy, lambda: Instant(self._now(), self._seconds()))
            chains = bundle.data.get("chains")
            known = chains if isinstance(chains, dict) else {}
            in_line = policy if isinstance(policy, _InProcess) else None
            return ReadyPolicy(ActiveBundle(bundle, policy.name), policy, known, in_line)

    async def put_in_force(self, ready: ReadyPolicy) -> None:
        """Decide with it from this moment on: nothing can fail before that. Afterwards the old one is freed."""
        replaced, self._in_force = self._in_force, ready
        if replaced is not None:
            await replaced.policy.close()

    async def discard(self, ready: ReadyPolicy) -> None:
        """Free what was prepared and is not to come into force."""
        await ready.policy.close()

    async def decide(self, policy_input: PolicyInput) -> Decided:
        """Answer one question.

        Raises ``PolicyUnavailable``, ``PolicyStale``, ``EngineFailed`` or ``InputRefused``; an answer that is no
        acceptable decision comes back as a denial with ``decision_malformed`` or ``not_supported`` as its reason.
        """
        self._check_tenant(policy_input.subject.tenant)
        force = self._in_force
        if force is not None and force.in_line is not None and force.in_line.ready:
            at_once = self._quiet_turns >= QUIET_TURNS
            decided = self._decided_at_once(policy_input) if at_once else await self._decided_together(policy_input)
            if decided is not None:
                return decided
        started = self._seconds()
        return await self._decided(encode_input(policy_input), started)

    async def decide_document(self, document: Mapping[str, Any]) -> Decided:
        """Answer a question that is a whole input document already, as simulation and replay have it."""
        self._check_tenant(_tenant_of(document))
        started = self._seconds()
        return await self._decided(encode_document(document), started)

    def current(self) -> ActiveBundle | None:
        """What is in force, if anything."""
        return self._in_force.active if self._in_force is not None else None

    def stands(self, bundle_digest: str, tenant: str | None = None) -> bool:
        """Whether a decision of that bundle (for a tenant) is still one: it is in force and may decide."""
        force = self._in_force
        return force is not None and force.active.bundle.digest == bundle_digest and self.may_decide(tenant)

    def may_decide(self, tenant: str | None = None) -> bool:
        """Whether a question (of a tenant) could be answered now: a bundle is in force that neither expired nor lost its
        lease, and it is the tenant's."""
        if self._in_force is None or self._is_stale(self._in_force) is not None:
            return False
        return tenant is None or self._decides_for is None or self._decides_for(tenant)

    async def withdraw(self, bundle_digest: str) -> bool:
        """Decide with that bundle no more from this moment on; whether it was in force."""
        force = self._in_force
        if force is None or force.active.bundle.digest != bundle_digest:
            return False
        self._in_force = None
        await force.policy.close()
        return True

    async def close(self) -> None:
        """Free the policy in force; afterwards every question raises ``PolicyUnavailable``."""
        async with self._loading:
            replaced, self._in_force = self._in_force, None
            if replaced is not None:
                await replaced.policy.close()

    async def _prepared(self, bundle: TrustedBundle) -> RemotePolicy:
        if isinstance(self._engine, RemoteEngine):
            return await _connect_and_warm(self._engine, bundle)
        work = asyncio.get_running_loop().run_in_executor(None, _prepare_and_warm, self._engine, bundle)
        try:
            return _InProcess(await asyncio.shield(work))
        except asyncio.CancelledError:
            work.add_done_callback(_close_unwanted)
            raise

    def _decided_at_once(self, policy_input: PolicyInput) -> Decided | None:
        """An answer without a turn of the loop, as long as turns ask one question each."""
        if not self._asked_at_once:
            asyncio.get_running_loop().call_soon(self._end_turn)
        self._asked_at_once += 1
        return self._decided_in_line(policy_input)

    def _end_turn(self) -> None:
        self._note_turn(self._asked_at_once)
        self._asked_at_once = 0

    def _note_turn(self, questions: int) -> None:
        self._quiet_turns = min(self._quiet_turns + 1, QUIET_TURNS) if questions == 1 else 0

    def _decided_together(self, policy_input: PolicyInput) -> asyncio.Future[Decided | None]:
        """An answer in line with all others that this turn of the loop asks for; None when it must be waited for."""
        loop = asyncio.get_running_loop()
        if not self._waiting:
            loop.call_soon(self._decide_waiting)
        answered: asyncio.Future[Decided | None] = loop.create_future()
        self._waiting.append((policy_input, answered))
        return answered

    def _decide_waiting(self) -> None:
        """Answer one question after the other: the engine's code stays in the processor's caches."""
        waiting, self._waiting = self._waiting, []
        self._note_turn(len(waiting))
        for policy_input, answered in waiting:
            if answered.done():
                continue
            try:
                answered.set_result(self._decided_in_line(policy_input))
            except Exception as failed:  # boundary: whoever asked gets it, and the others their answers
                answered.set_exception(failed)

    def _decided_in_line(self, policy_input: PolicyInput) -> Decided | None:
        force = self._in_force
        if force is None or force.in_line is None or not force.in_line.ready:
            return None
        started = self._seconds()
        input_bytes = encode_input(policy_input)
        self._check_current(force)
        return self._accepted(force, force.in_line.answer(input_bytes), input_bytes, started)

    async def _decided(self, input_bytes: bytes, started: float) -> Decided:
        force, answer = await self._asked(input_bytes)
        return self._accepted(force, answer, input_bytes, started)

    def _accepted(self, force: ReadyPolicy, answer: Answer, input_bytes: bytes, started: float) -> Decided:
        bundle = force.active.bundle
        decision = force.read.get(answer.document)
        if decision is None:
            decision = force.parsed(answer.document)
        return Decided(
            decision,
            bundle.revision,
            bundle.digest,
            bundle.sequence,
            force.active.engine,
            answer.decision_id or self._new_id(),
            "sha256:" + hashlib.sha256(input_bytes).hexdigest(),
            self._seconds() - started,
            answer.cached,
        )

    async def _asked(self, input_bytes: bytes) -> tuple[ReadyPolicy, Answer]:
        while True:
            force = self._in_force
            if force is None:
                raise PolicyUnavailable("no bundle is loaded")
            self._check_current(force)
            try:
                answer = await force.policy.ask(input_bytes)
            except EngineFailed:
                # Closed by a swap while this question waited: the policy now in force answers it.
                if self._in_force is force:
                    raise
                continue
            # It was waited for: an answer that comes after the end of the lease is none.
            self._check_current(force)
            return force, answer

    def _check_tenant(self, tenant: object) -> None:
        if self._decides_for is not None and not (isinstance(tenant, str) and self._decides_for(tenant)):
            raise PolicyUnavailable("no bundle decides for this tenant")

    def _check_current(self, force: ReadyPolicy) -> None:
        stale = self._is_stale(force)
        if stale is not None:
            raise PolicyStale(stale)

    def _is_stale(self, force: ReadyPolicy) -> str | None:
        """Why the bundle may not decide now, if it may not."""
        expires_at = force.active.bundle.expires_at
        if expires_at is not None and self._now() >= expires_at:
            return "the bundle has expired"
        if self._lease is not None and not self._lease():
            return "the bundle's freshness lease has ended"
        return None


class _InProcess:
    """A prepared policy asked in line on the loop's thread, mended in another."""

    def __init__(self, policy: PreparedPolicy) -> None:
        self._policy = policy
        self._mending: asyncio.Task[None] | None = None
        self._closed = False

    @property
    def name(self) -> str:
        return self._policy.name

    async def ask(self, input_bytes: bytes) -> Answer:
        while not self._policy.ready and not self._closed:
            await self._mended()
        return self.answer(input_bytes)

    @property
    def ready(self) -> bool:
        """Whether a question can be answered at once."""
        return self._policy.ready and not self._closed

    def answer(self, input_bytes: bytes) -> Answer:
        """Answer one question at once; raises ``EngineFailed``, and mends what failed behind it."""
        if self._closed:
            raise EngineFailed("the policy is closed")
        try:
            return Answer(self._policy.decide(input_bytes))
        except EngineFailed:
            self._start_mending()
            raise

    async def close(self) -> None:
        """Answer no more at once; freeing what 20 MB of data take lasts long enough to be done in a thread."""
        self._closed = True
        if self._mending is not None:
            await asyncio.wait((self._mending,))
        await asyncio.to_thread(self._policy.close)

    def _start_mending(self) -> asyncio.Task[None]:
        if self._mending is None or self._mending.done():
            self._mending = asyncio.create_task(asyncio.to_thread(self._policy.renew), name="pdp-mend-policy")
            # Whoever waits sees the failure; without anybody waiting the next question does.
            self._mending.add_done_callback(_seen)
        return self._mending

    async def _mended(self) -> None:
        try:
            await asyncio.shield(self._start_mending())
        except PolicyRefused as refused:
            raise EngineFailed(refused.detail) from refused


class _Cached:
    """A policy that is not asked again what its own decision lets be answered again.

    It lives as long as its bundle is in force; lease and `exp` are checked before each question, kept answers included.
    """

    def __init__(self, policy: RemotePolicy, now: Callable[[], Instant]) -> None:
        self._policy = policy
        self._now = now
        self._cache = DecisionCache()

    @property
    def name(self) -> str:
        return self._policy.name

    async def ask(self, input_bytes: bytes) -> Answer:
        key = question_key(input_bytes)
        if key is None:
            return await self._policy.ask(input_bytes)
        kept = self._cache.get(key, self._now())
        if kept is not None:
            return Answer(kept, cached=True)
        asked_at = self._now()
        answer = await self._policy.ask(input_bytes)
        self._cache.put(key, answer.document, cache_seconds_of(answer.document), asked_at)
        return Answer(answer.document, answer.decision_id, cached=False)

    async def close(self) -> None:
        await self._policy.close()


def _tenant_of(document: Mapping[str, Any]) -> object:
    """The tenant that a question claims for its subject."""
    subject = document.get("subject")
    facts = subject.get("properties") if isinstance(subject, dict) else None
    return facts.get("tenant") if isinstance(facts, dict) else None


def _seen(task: asyncio.Task[None]) -> None:
    if not task.cancelled():
        task.exception()


def _close_unwanted(work: asyncio.Future[PreparedPolicy]) -> None:
    if not work.cancelled() and work.exception() is None:
        work.result().close()


def _prepare_and_warm(engine: PolicyEngine, bundle: TrustedBundle) -> PreparedPolicy:
    policy = engine.prepare(bundle)
    try:
        for probe in bundle.probes:
            check_answer(probe, policy.decide(encode_document(probe.input)))
    except (EngineFailed, InputRefused) as failed:
        policy.close()
        raise _unanswered(failed) from failed
    except BaseException:
        policy.close()
        raise
    return policy


async def _connect_and_warm(engine: RemoteEngine, bundle: TrustedBundle) -> RemotePolicy:
    policy = await engine.connect(bundle)
    try:
        for probe in bundle.probes:
            check_answer(probe, (await policy.ask(encode_document(probe.input))).document)
    except (EngineFailed, InputRefused) as failed:
        await policy.close()
        raise _unanswered(failed) from failed
    except BaseException:
        await policy.close()
        raise
    return policy


def _unanswered(failed: PdpError) -> PolicyRefused:
    """A probe that got no answer refuses the bundle as one with a wrong answer does."""
    return PolicyRefused(f"a probe got no answer: {failed.detail}", code="policy_probe_mismatch")
