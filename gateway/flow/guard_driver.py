"""Whether one stream may go on: looked at with each piece of it, and each second, also while nothing comes.

Guarantees: whoever is asked or told hears of the first reason only. Leaves to `gateway.flow.driver` how a stream is
stopped, and to the flow what is recorded of it.
"""

from __future__ import annotations

from asyncio import create_task, current_task, sleep
from collections.abc import Callable
from time import monotonic

from gateway.edge.problem import refusal
from gateway.errors import Refusal
from gateway.flow.services import Services
from gateway.flow.values import Trace

GUARD_SECONDS = 1.0
LONGEST_LIFE = "the stream reached its longest life"
KILLED = "a kill switch ended the stream"
STALE = "the policy that let the stream begin may no longer decide"
GONE = "the caller closed the connection"
GIVEN_UP = "the gate gave the stream up"


class StreamGuard:
    """Guards one stream from when it is made until `close`; `stop` is called once, when the stream may not go on.

    **Security**: page 12 rule 12: within 5 s, `POLL_SECONDS` of the switches included.
    """

    __slots__ = ("_deadline", "_late_code", "_services", "_stop", "_task", "_trace")

    def __init__(
        self,
        services: Services,
        trace: Trace,
        longest_seconds: float,
        late_code: str,
        stop: Callable[[Refusal], None],
    ) -> None:
        self._services = services
        self._trace = trace
        self._deadline = monotonic() + longest_seconds
        self._late_code = late_code
        self._stop = stop
        self._task = create_task(self._watch(), name="stream-guard")

    def check(self) -> None:
        """Raise `Refusal` when the stream may not go on: its longest life, a switch, or policy that may not decide."""
        trace = self._trace
        if monotonic() > self._deadline:
            raise refusal(self._late_code, LONGEST_LIFE)
        if trace.subject is not None and self._services.switches.covers(trace.subject, trace):
            raise refusal("killed", KILLED)
        if not self._services.policy.may_decide(trace.subject.tenant if trace.subject is not None else None):
            raise refusal("policy_stale", STALE)

    def close(self) -> None:
        """The stream has ended."""
        self._task.cancel()

    async def _watch(self) -> None:
        while True:
            await sleep(GUARD_SECONDS)
            try:
                self.check()
            except Refusal as ended:
                self._stop(ended)
                return


def why_left() -> str:
    """Why nobody reads the current task's stream any more: what cancels a call is the end of the gate's grace."""
    task = current_task()
    return GIVEN_UP if task is not None and task.cancelling() else GONE
