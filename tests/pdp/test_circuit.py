"""The circuit breaker's three states."""

from __future__ import annotations

import pytest

from pdp.circuit import Circuit
from pdp.errors import EngineFailed


def failed_times(count: int) -> Circuit:
    circuit = Circuit(failures_max=3, open_seconds=2.0)
    for _ in range(count):
        circuit.enter(10.0)
        circuit.failed(10.0)
    return circuit


def test_enter_is_free_when_failures_are_one_below_the_limit() -> None:
    failed_times(2).enter(10.0)


def test_enter_is_refused_when_failures_reached_the_limit() -> None:
    with pytest.raises(EngineFailed, match="left alone"):
        failed_times(3).enter(11.9)


def test_one_question_is_let_through_when_the_time_is_over() -> None:
    circuit = failed_times(3)
    circuit.enter(12.0)
    with pytest.raises(EngineFailed):
        circuit.enter(12.0)


def test_circuit_closes_when_the_trial_was_answered() -> None:
    circuit = failed_times(3)
    circuit.enter(12.0)
    circuit.answered()
    for _ in range(3):
        circuit.enter(12.0)


def test_circuit_stays_open_when_the_trial_failed() -> None:
    circuit = failed_times(3)
    circuit.enter(12.0)
    circuit.failed(12.5)
    with pytest.raises(EngineFailed):
        circuit.enter(14.4)
    circuit.enter(14.5)
