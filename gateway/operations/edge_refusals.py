"""Refusals that no handler sees: what a listener itself refuses, counted each and said by samples.

Guarantees: a flood of bad requests makes no more than `LINES_PER_SECOND_MAX` lines a second, and the next line says how many
were left out; label values are the edge's codes, so their number is bounded. Leaves refusing to ``gateway.edge.server``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from gateway.errors import Refusal

LINES_PER_SECOND_MAX: Final = 10

Say = Callable[[Mapping[str, object]], None]


class EdgeRefusals:
    """What one listener tells of the requests that it refuses itself."""

    def __init__(self, listener: str, count: Callable[[str], None], say: Say, seconds: Callable[[], float]) -> None:
        """`count` takes each code, `say` the fields of some lines; `seconds` is a steady clock."""
        self._listener = listener
        self._count = count
        self._say = say
        self._seconds = seconds
        self._since = 0.0
        self._said = 0
        self._omitted = 0

    def __call__(self, refused: Refusal, peer: str | None) -> None:
        """One refusal of a client at that address."""
        self._count(refused.code)
        now = self._seconds()
        if now - self._since >= 1.0:
            self._since, self._said = now, 0
        if self._said >= LINES_PER_SECOND_MAX:
            self._omitted += 1
            return
        self._said += 1
        fields: dict[str, object] = {
            "listener": self._listener,
            "peer": peer,
            "status": refused.status,
            "code": refused.code,
            "detail": refused.detail,
        }
        if self._omitted:
            fields["omitted"] = self._omitted
            self._omitted = 0
        self._say(fields)
