"""What is done with a call's decision besides enforcing it: its question is kept, or put to a shadow bundle or to OPA too.

Guarantees: with none of it configured nothing is done and nothing is paid but one look; none can change, delay or fail a
decision. What is kept lives and dies with the call's next record. Leaves sealing to the store, comparing to
`gateway.shadowing` and `gateway.cross_checking`.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

from gateway.ledger.record import RecordDraft
from gateway.store.answers import keep_input_effects
from gateway.store.port import KeepInput
from pdp.decided import Decided
from pdp.documents import PolicyInput, encode_input
from pdp.replay import about_decision


class Asked(NamedTuple):
    """A question as it was put, and its answer."""

    question: PolicyInput
    decided: Decided


class ComparingPort(Protocol):
    """Whoever compares decisions with another bundle's or another engine's."""

    def offer(self, question: PolicyInput, decided: Decided) -> None:
        """Take a question that was answered, or drop and count it. Never waits, never raises."""


class DecisionWatch:
    """Set up by the gate when a configuration comes into force; asked by the driver of each call."""

    __slots__ = ("_cross_check", "_keep_seconds", "_shadow", "active")

    def __init__(self) -> None:
        self._keep_seconds = 0
        self._shadow: ComparingPort | None = None
        self._cross_check: ComparingPort | None = None
        self.active = False
        """Whether there is anything to do."""

    def configure(self, *, keep_seconds: int, shadow: ComparingPort | None) -> None:
        """Keep questions for `keep_seconds` (0: not at all), offer each to `shadow` if there is one."""
        self._keep_seconds = keep_seconds
        self._shadow = shadow
        self._decide_active()

    def compare(self, cross_check: ComparingPort | None) -> None:
        """Offer each question to `cross_check` if there is one."""
        self._cross_check = cross_check
        self._decide_active()

    def _decide_active(self) -> None:
        self.active = self._keep_seconds > 0 or self._shadow is not None or self._cross_check is not None

    def asked(self, question: PolicyInput, decided: Decided) -> Asked | None:
        """Note a decision; gives what is to be kept with the call's next record, if anything is."""
        if self._shadow is not None:
            self._shadow.offer(question, decided)
        if self._cross_check is not None:
            self._cross_check.offer(question, decided)
        return Asked(question, decided) if self._keep_seconds > 0 else None

    def kept(self, asked: Asked, draft: RecordDraft) -> tuple[KeepInput, ...]:
        """The effect that keeps a question with its call's record; none when it is too large."""
        document = encode_input(asked.question)
        about = about_decision(asked.decided)
        kept = KeepInput(draft.log, asked.question.call, about, document, max(self._keep_seconds, 1))
        return keep_input_effects(kept)
