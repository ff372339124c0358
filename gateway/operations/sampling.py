"""Which of many like lines are written.

Guarantees: of each kind the first `BURST_LINES` are, and from then on `LINES_PER_SECOND`; every line that is written knows how
many of its kind were left out before it. Leaves counting them all to the metrics. Kinds are few: the caller names constants.

**Security**: security rule 26; whoever has no token fills neither the ledger nor the disk.
"""

from __future__ import annotations

from typing import Final

BURST_LINES: Final = 50
LINES_PER_SECOND: Final = 5.0


class LineSampler:
    """Decides line by line."""

    __slots__ = ("_kinds",)

    def __init__(self) -> None:
        self._kinds: dict[str, tuple[float, float, int]] = {}

    def left_out(self, kind: str, now: float) -> int | None:
        """How many lines of the kind were left out before this one, which is written; None for one to leave out.

        `now` is in seconds. A clock that goes back gives nothing.
        """
        room, since, left = self._kinds.get(kind, (float(BURST_LINES), now, 0))
        room = min(float(BURST_LINES), room + max(0.0, now - since) * LINES_PER_SECOND)
        if room < 1.0:
            self._kinds[kind] = (room, now, left + 1)
            return None
        self._kinds[kind] = (room - 1.0, now, 0)
        return left
