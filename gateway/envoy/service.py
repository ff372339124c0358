"""Answers Envoy's questions: reads one, runs its flow, says yes or no.

Guarantees: every question is answered once, counted once and logged once; what goes wrong here is a denial, never an
error that `failure_mode_allow` could take for a yes; a question that nobody waits for any more is brought to its end, and
its record says how it ended, but it is not handed over. Leaves the connection to `server`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic

from gateway.edge.problem import problem_body, problem_headers, refusal
from gateway.envoy.check_request import CheckRequest, read_check
from gateway.envoy.check_response import allowed, denied
from gateway.envoy.door_flow import door_flow
from gateway.envoy.question import check_route, header_changes, proxy_request, request_head, route_instance
from gateway.errors import Refusal
from gateway.flow.call import absent_flow
from gateway.flow.events import Flow
from gateway.flow.values import Finished, FlowContext, Trace
from gateway.proxying import CallRunner, call_headers, new_call_id
from gateway.running import Running

_LOG = logging.getLogger(__name__)

FlowIn = Callable[[FlowContext], Flow[Finished]]


@dataclass(slots=True)
class _Wish:
    """Whether somebody still waits for the answer, and until when (by the monotonic clock)."""

    until: float
    withdrawn: bool = False

    def holds(self) -> bool:
        return not self.withdrawn and monotonic() < self.until


class ExtAuthzService:
    """Decides questions with the gate's own runner, over whatever configuration is in force when each arrives."""

    def __init__(self, running: Running, runner: CallRunner) -> None:
        self._running = running
        self._runner = runner
        self._asking: set[asyncio.Task[bytes]] = set()

    async def check(self, raw: bytes, seconds: float) -> bytes:
        """The answer to one `CheckRequest` within `seconds`, both as octets."""
        wish = _Wish(monotonic() + seconds)
        task = asyncio.create_task(self._answered(raw, wish), name="ext-authz-question")
        self._asking.add(task)
        task.add_done_callback(self._asking.discard)
        try:
            await asyncio.wait({task}, timeout=seconds)
        finally:
            wish.withdrawn = not task.done()
        if task.done():
            return task.result()
        return _denial(refusal("too_slow", "the question was not decided within its deadline"), None)

    async def close(self, grace_seconds: float) -> None:
        """Let questions that are under way end; those that do not within the grace are dropped."""
        for task in [*(await asyncio.wait(self._asking, timeout=grace_seconds))[1]] if self._asking else []:
            task.cancel()

    async def _answered(self, raw: bytes, wish: _Wish) -> bytes:
        trace = Trace(new_call_id(), "", "")
        try:
            return await self._decided(raw, wish, trace)
        except Exception:  # the boundary: an error of ours is a denial, and the call is not made
            _LOG.exception("a question of Envoy's failed")
            return _denial(refusal("engine_failed", "the gate could not handle this question"), trace)

    async def _decided(self, raw: bytes, wish: _Wish, trace: Trace) -> bytes:
        started = monotonic()
        limits = self._running.assembly.config.document.limits
        try:
            asked = read_check(raw, headers_max_count=limits.headers_max_count)
            outcome = await self._runner.asked(self._flow(asked, wish, trace), trace)
        except Refusal as refused:  # before there was a call: nobody is identified, nothing is recorded
            self._runner.settled(trace, refused.code, refused.status, monotonic() - started)
            return _denial(refused, trace)
        if isinstance(outcome, Refusal):
            return _denial(outcome, trace)
        changes = header_changes(asked.headers, outcome.headers)
        headers = call_headers(trace)
        return allowed(set_headers=changes.put, remove_headers=changes.remove, answer_headers=headers)

    def _flow(self, asked: CheckRequest, wish: _Wish, trace: Trace) -> FlowIn:
        """The flow of a question. Raises `Refusal` for one that is no request to an instance."""
        assembly = self._running.assembly
        check_route(asked.route)
        head = request_head(asked, uri_max_bytes=assembly.config.document.limits.uri_max_bytes)
        name = route_instance(asked)
        plan = assembly.plans.get(name)
        trace.instance = name
        if plan is None:
            return lambda context: absent_flow(head, trace)
        trace.connector = plan.manifest.connector
        clock = self._runner.services.clock
        request = proxy_request(asked, head, plan, call_id=trace.call_id, now=clock())
        return lambda context: door_flow(request, asked.body, trace, context, wish.holds)


def _denial(refused: Refusal, trace: Trace | None) -> bytes:
    """The refusal's problem document, with what the gate says about the call."""
    headers = tuple(problem_headers(refused).items())
    if trace is None:
        return denied(refused.status, headers, problem_body(refused))
    return denied(refused.status, (*headers, *call_headers(trace)), problem_body(refused, trace.call_id))
