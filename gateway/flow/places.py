"""How many calls a gate works on at once.

Guarantees: no call begins beyond the limit that it is counted in under. Whoever is not identified yet holds no place while
its body comes: a few slow clients without a token would keep everybody out.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from gateway.edge.problem import refusal
from gateway.errors import Refusal
from gateway.flow.values import Trace


class Places:
    """The places of the calls that are being worked on."""

    __slots__ = ("_most", "taken")

    def __init__(self) -> None:
        self.taken = 0
        self._most = 0

    def take(self, most: int) -> None:
        """Count a call in. Raises `throttled` when `most` are counted in already."""
        if self.taken >= most:
            raise _full()
        self._most = most
        self.taken += 1

    def give_back(self) -> None:
        """Count a call out."""
        self.taken -= 1

    @contextmanager
    def left(self, trace: Trace) -> Iterator[None]:
        """Count the call of `trace` out meanwhile if nobody is identified in it yet.

        It is counted in again afterwards, whatever comes. Raises `throttled` then when it is one too many.

        **Security**: security rule 26; how long a body may take, and how many connections there are, bounds what waits.
        """
        if trace.subject is not None:
            yield
            return
        self.taken -= 1
        try:
            yield
        finally:
            self.taken += 1
        if self.taken > self._most:
            raise _full()


def _full() -> Refusal:
    return refusal("throttled", "the gate is working on as many calls as it may")
