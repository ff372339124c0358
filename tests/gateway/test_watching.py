"""What is done with decisions besides enforcing them: nothing, unless it was asked for."""

from __future__ import annotations

import hashlib

import pytest

from gateway.store.port import KEPT_INPUT_MAX_BYTES
from gateway.watching import DecisionWatch
from pdp.decided import Decided
from pdp.documents import Decision, Effect, PolicyInput, encode_input
from pdp.replay import read_recorded
from tests.gateway.store.build import LOG, draft
from tests.pdp.parts import QUESTION, asked

DIGEST = f"sha256:{hashlib.sha256(encode_input(QUESTION)).hexdigest()}"
DECIDED = Decided(Decision(Effect.ALLOW), "r1", "sha256:00", 1, "wasm", "d1", DIGEST, 0.0)


class Offered:
    """A shadow that remembers what it was offered."""

    def __init__(self) -> None:
        self.questions: list[PolicyInput] = []

    def offer(self, question: PolicyInput, decided: Decided) -> None:
        self.questions.append(question)


def test_watch_does_nothing_when_nothing_was_configured() -> None:
    watch = DecisionWatch()
    assert not watch.active
    assert watch.asked(QUESTION, DECIDED) is None


@pytest.mark.parametrize(
    ("keep_seconds", "with_shadow", "active", "keeps"),
    [
        pytest.param(0, False, False, False, id="neither"),
        pytest.param(60, False, True, True, id="keeping"),
        pytest.param(0, True, True, False, id="a shadow"),
        pytest.param(60, True, True, True, id="both"),
    ],
)
def test_watch_does_what_was_configured(keep_seconds: int, with_shadow: bool, active: bool, keeps: bool) -> None:
    watch, shadow = DecisionWatch(), Offered()
    watch.configure(keep_seconds=keep_seconds, shadow=shadow if with_shadow else None)
    assert watch.active is active
    assert (watch.asked(QUESTION, DECIDED) is not None) is keeps
    assert shadow.questions == ([QUESTION] if with_shadow else [])


def test_watch_offers_to_both_and_each_goes_by_itself_when_both_compare() -> None:
    watch, shadow, cross_check = DecisionWatch(), Offered(), Offered()
    watch.compare(cross_check)
    assert watch.active and watch.asked(QUESTION, DECIDED) is None
    watch.configure(keep_seconds=0, shadow=shadow)
    watch.asked(QUESTION, DECIDED)
    watch.configure(keep_seconds=0, shadow=None)
    assert watch.active
    watch.asked(QUESTION, DECIDED)
    watch.compare(None)
    assert not watch.active
    assert (len(shadow.questions), len(cross_check.questions)) == (1, 3)


def test_watch_stops_when_it_is_configured_away() -> None:
    watch, shadow = DecisionWatch(), Offered()
    watch.configure(keep_seconds=60, shadow=shadow)
    watch.configure(keep_seconds=0, shadow=None)
    assert watch.asked(QUESTION, DECIDED) is None and not watch.active and shadow.questions == []


def test_kept_input_is_the_one_that_was_decided() -> None:
    watch = DecisionWatch()
    watch.configure(keep_seconds=60, shadow=None)
    held = watch.asked(QUESTION, DECIDED)
    assert held is not None
    (effect,) = watch.kept(held, draft())
    assert (effect.log, effect.call, effect.keep_seconds) == (LOG, "call-1", 60)
    recorded = read_recorded(effect.about, effect.document)
    assert f"sha256:{hashlib.sha256(effect.document).hexdigest()}" == recorded.input_digest == DIGEST


def test_input_is_not_kept_when_it_is_too_large() -> None:
    watch = DecisionWatch()
    watch.configure(keep_seconds=60, shadow=None)
    held = watch.asked(asked(args={"text": "x" * KEPT_INPUT_MAX_BYTES}), DECIDED)
    assert held is not None and watch.kept(held, draft()) == ()
