"""Answers Envoy's questions: reads one, runs its flow, says yes or no.

Guarantees: every question is answered once, counted once and logged once; what goes wrong here is a denial, never an
error that `failure_mode_allow` could take for a yes; a question that nobody waits for any more is brought to its end, and
its record says how it ended, but it is not handed over. Leaves the connection to `server`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from time import monotonic, time
from typing import NamedTuple, Protocol

from gateway.edge.problem import problem_body, problem_headers, refusal
from gateway.envoy.check_request import CheckRequest, read_check
from gateway.envoy.check_response import allowed, denied
from gateway.envoy.door_flow import door_flow
from gateway.envoy.question import check_route, header_changes, proxy_request, request_head, route_instance
from gateway.errors import Refusal
from gateway.flow.call import absent_flow
from gateway.flow.events import Flow
from gateway.flow.values import Finished, FlowContext, InstancePlan, Trace
from gateway.proxying import call_headers, new_call_id

_LOG = logging.getLogger(__name__)

FlowIn = Callable[[FlowContext], Flow[Finished]]


@dataclass(slots=True)
class _Wish:
    """Whether somebody still waits for the answer, and until when (by the monotonic clock)."""

    until: float
    withdrawn: bool = False

    def holds(self) -> bool:
        return not self.withdrawn and monotonic() < self.until


class Standing(NamedTuple):
    """What of the configuration in force a question is read by."""

    plans: Mapping[str, InstancePlan]
    headers_max_count: int
    uri_max_bytes: int


class Runner(Protocol):
    """Runs the flows of calls, counts and logs them: `gateway.proxying.CallRunner`."""

    async def asked(self, flow_in: FlowIn, trace: Trace) -> Finished | Refusal:
        """Run a call that is carried out elsewhere; its end, counted and logged."""

    def settled(self, trace: Trace, code: str, status: int, seconds: float) -> None:
        """Count and log what ended before it was a call."""


class ExtAuthzService:
    """Decides questions with the gate's own runner, over whatever configuration stands when each arrives."""

    def __init__(self, standing: Callable[[], Standing], runner: Runner, clock: Callable[[], float] = time) -> None:
        self._standing = standing
        self._runner = runner
        self._clock = clock
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
        standing = self._standing()
        try:
            asked = read_check(raw, headers_max_count=standing.headers_max_count)
            flow_in = self._flow(asked, standing, wish, trace)
        except Refusal as refused:  # before there was a call: nobody is identified, nothing is recorded
            self._runner.settled(trace, refused.code, refused.status, monotonic() - started)
            return _denial(refused, trace)
        outcome = await self._runner.asked(flow_in, trace)
        if isinstance(outcome, Refusal):
            return _denial(outcome, trace)
        changes = header_changes(asked.headers, outcome.headers)
        headers = call_headers(trace)
        return allowed(set_headers=changes.put, remove_headers=changes.remove, answer_headers=headers)

    def _flow(self, asked: CheckRequest, standing: Standing, wish: _Wish, trace: Trace) -> FlowIn:
        """The flow of a question. Raises `Refusal` for one that is no request to an instance."""
        check_route(asked.route)
        head = request_head(asked, uri_max_bytes=standing.uri_max_bytes)
        name = route_instance(asked)
        plan = standing.plans.get(name)
        trace.instance = name
        if plan is None:
            return lambda context: absent_flow(head, trace)
        trace.connector = plan.manifest.connector
        request = proxy_request(asked, head, plan, call_id=trace.call_id, now=self._clock())
        return lambda context: door_flow(request, asked.body, trace, context, wish.holds)


def _denial(refused: Refusal, trace: Trace | None) -> bytes:
    """The refusal's problem document, with what the gate says about the call."""
    headers = tuple(problem_headers(refused).items())
    if trace is None:
        return denied(refused.status, headers, problem_body(refused))
    return denied(refused.status, (*headers, *call_headers(trace)), problem_body(refused, trace.call_id))
