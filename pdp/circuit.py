"""A circuit breaker for an engine behind a connection.

Guarantees that after ``failures_max`` failures in a row nothing is asked for ``open_seconds``, and then one question
at a time until one is answered. Holds no clock: every call brings ``now`` in seconds of one monotonic clock.
"""

from __future__ import annotations

from pdp.errors import EngineFailed


class Circuit:
    """Closed while answers come, open after failures in a row."""

    def __init__(self, failures_max: int = 5, open_seconds: float = 2.0) -> None:
        self._failures_max = failures_max
        self._open_seconds = open_seconds
        self._failures = 0
        self._next_trial = 0.0

    def enter(self, now: float) -> None:
        """Claim the right to ask; raises ``EngineFailed`` while the circuit is open or a trial is under way."""
        if self._failures < self._failures_max:
            return
        if now < self._next_trial:
            raise EngineFailed("the engine failed repeatedly and is left alone for a while")
        self._next_trial = now + self._open_seconds

    def answered(self) -> None:
        """An answer came: closed again."""
        self._failures = 0

    def failed(self, now: float) -> None:
        """None came."""
        self._failures += 1
        self._next_trial = now + self._open_seconds
