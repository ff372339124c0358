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


HasLeft = Callable[[float], bool]


def _never_left(_idle_seconds: float) -> bool:
    """Nobody can leave."""
    return False


class StreamGuard:
    """Guards one stream from when it is made until `close`; `stop` is called once, when the stream may not go on.

    **Security**: security rule 12: within 5 s, `POLL_SECONDS` of the switches included.
    """

    __slots__ = ("_deadline", "_has_left", "_late_code", "_seen", "_services", "_stop", "_task", "_trace")

    def __init__(
        self,
        services: Services,
        trace: Trace,
        longest: tuple[float, str],
        stop: Callable[[Refusal], None],
        has_left: HasLeft = _never_left,
    ) -> None:
        """`longest` is how many seconds the stream may live, and the code of its end then. `has_left` says whether the
        caller has left, given for how many seconds nothing has come."""
        self._services = services
        self._trace = trace
        self._seen = monotonic()
        self._deadline = self._seen + longest[0]
        self._late_code = longest[1]
        self._has_left = has_left
        self._stop = stop
        self._task = create_task(self._watch(), name="stream-guard")

    def check(self) -> None:
        """A piece has come. Raise `Refusal` when the stream may not go on: its longest life, a switch, or policy that may
        not decide."""
        self._seen = now = monotonic()
        self._check(now)

    def _check(self, now: float) -> None:
        trace = self._trace
        if now > self._deadline:
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
            now = monotonic()
            try:
                self._check(now)
                if self._has_left(now - self._seen):
                    raise refusal("upstream_failed", GONE)
            except Refusal as ended:
                self._stop(ended)
                return


def why_left() -> str:
    """Why nobody reads the current task's stream any more: what cancels a call is the end of the gate's grace."""
    task = current_task()
    return GIVEN_UP if task is not None and task.cancelling() else GONE
