"""Performs the commands of a call's flow that send nothing: reading the request, identity, controls, policy, people, records.

Guarantees and errors as `gateway.flow.driver` has them, which builds on this.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic

from aiohttp import web

from gateway.edge.body import body_at_hand, read_body
from gateway.edge.identity import NeedsKeys
from gateway.edge.jwks import identify
from gateway.edge.server import has_left
from gateway.flow import commands as c
from gateway.flow import events as e
from gateway.flow.services import Reach, Services
from gateway.flow.values import InstancePlan, Trace
from gateway.store.port import StoreEffect
from gateway.watching import Asked


class ControlsDriver:
    """What a call needs before and beside its dispatch."""

    __slots__ = ("_asked", "_in_force", "_reach", "_request", "_services", "_trace")

    def __init__(
        self,
        services: Services,
        reach: Reach,
        trace: Trace,
        request: web.BaseRequest | None,
        in_force: Callable[[], Reach],
    ) -> None:
        self._services = services
        self._reach = reach
        self._in_force = in_force
        self._trace = trace
        self._request = request
        self._asked: Asked | None = None

    # -- request -------------------------------------------------------------------------------------------------

    def _body_at_hand(self, command: c.ReadBody) -> e.Event | None:
        body = body_at_hand(self._request, command.max_bytes) if self._request is not None else b""
        return e.BodyRead(body) if body is not None else None

    async def _read_body(self, command: c.ReadBody) -> e.Event:
        if self._request is None:
            return e.BodyRead(b"")
        with self._services.places.left(self._trace):
            return e.BodyRead(await read_body(self._request, command.max_bytes))

    def _verify_known(self, command: c.VerifyToken) -> e.Event | None:
        try:
            return e.Identified(self._reach.verifier.verify(command.token, self._services.clock()))
        except NeedsKeys:
            return None

    async def _verify(self, command: c.VerifyToken) -> e.Event:
        return e.Identified(
            await identify(self._reach.verifier, self._reach.keys, command.token, self._services.clock())
        )

    def _redeem(self, command: c.RedeemTicket) -> e.Event:
        claim = self._services.tickets.redeem(
            command.ticket,
            instance=command.instance,
            action=command.action,
            path=command.path,
            now=self._services.clock(),
        )
        self._trace.issued_by = claim.issued_by_call
        return e.Identified(claim.subject)

    # -- controls and policy ----------------------------------------------------------------------------------------

    def _switches(self, command: c.ReadSwitches) -> e.Event:
        stands = not command.decided_by or self._services.policy.stands(command.decided_by, command.tenant)
        switches = self._services.switches.of(command.tenant)
        return e.SwitchesRead(switches, stands, self._moved(command.plan))

    def _moved(self, plan: InstancePlan | None) -> e.Moved | None:
        """Go by the configuration in force from here on; the flow refuses what it no longer lets through."""
        if plan is None or self._in_force().plans.get(plan.name) is plan:
            return None
        self._reach = self._in_force()
        return e.Moved(self._reach.plans.get(plan.name))

    async def _claim(self, command: c.LookUpClaim) -> e.Event:
        return e.ClaimRead(await self._services.store.claim(command.log, command.scope))

    async def _load_answer(self, command: c.LoadAnswer) -> e.Event:
        return e.AnswerLoaded(await self._services.store.answer(command.log, command.call_id))

    async def _load_used(self, command: c.LoadUsedApproval) -> e.Event:
        return e.UsedApprovalLoaded(await self._services.approvals.used_by(command.log, command.call_id))

    async def _ask(self, command: c.AskPolicy) -> e.Event:
        services = self._services
        decided = await services.policy.decide(command.policy_input)
        services.metrics.observe_decision(decided.engine, decided.seconds, decided.cached)
        if services.watch.active:
            self._asked = services.watch.asked(command.policy_input, decided)
        return e.PolicyAnswered(decided)

    # -- approvals and records --------------------------------------------------------------------------------------

    async def _open(self, command: c.OpenOrAttach) -> e.Event:
        approval = await self._services.approvals.open_or_attach(command.held)
        if approval.held.call == command.held.call:
            self._services.metrics.approvals_created.inc()
        return e.ApprovalRead(approval, self._services.clock())

    async def _await_approval(self, command: c.AwaitApproval) -> e.Event:
        waiting = self._services.metrics.callers_waiting
        waiting.inc()
        try:
            approval = await self._services.approvals.wait(
                command.log, command.approval_id, command.seconds, self._caller_connected
            )
        finally:
            waiting.dec()
        now, moved = self._services.clock(), self._moved(command.plan)
        return e.ApprovalRead(approval, now, self._caller_connected(), moved)

    def _caller_connected(self) -> bool:
        return self._request is None or self._request.transport is not None

    def _caller_left(self, idle_seconds: float) -> bool:
        return self._request is not None and has_left(self._request, idle_seconds)

    async def _append(self, command: c.AppendRecord) -> e.Event:
        started = monotonic()
        ledger = self._services.outcomes if command.after_side_effect else self._services.writer
        appended = await ledger.append(command.draft, effects=self._effects(command))
        self._services.metrics.observe_append(monotonic() - started)
        return e.RecordAppended(appended.seq)

    def _effects(self, command: c.AppendRecord) -> tuple[StoreEffect, ...]:
        effects = command.effects
        if self._asked is not None:
            effects, self._asked = (*effects, *self._services.watch.kept(self._asked, command.draft)), None
        return effects

    async def _append_intent(self, command: c.AppendIntent) -> e.Event:
        effects = command.effects
        if command.approval is not None:
            call = command.draft.call
            effects = (*effects, self._services.approvals.consumption(command.approval, command.action_digest, call))
        return await self._append(c.AppendRecord(command.draft, effects))
