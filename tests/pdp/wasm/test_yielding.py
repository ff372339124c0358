"""A step in a thread that gives way: same outcome, lower priority, and nothing of it stays with the caller."""

from __future__ import annotations

import os
import threading

import pytest

from pdp.wasm.yielding import NICENESS, yielding


def priority() -> int:
    return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())


def test_step_gives_its_outcome_at_a_lower_priority_and_the_caller_keeps_its_own_when_it_yields() -> None:
    before = priority()
    inside, thread = yielding(lambda: (priority(), threading.get_ident()))
    assert (inside, priority()) == (min(19, before + NICENESS), before)
    assert thread != threading.get_ident()


def test_failure_is_the_steps_own_when_it_yields() -> None:
    def failing() -> int:
        raise LookupError("by the test")

    with pytest.raises(LookupError, match="by the test"):
        yielding(failing)


def test_no_thread_is_left_when_a_step_is_done() -> None:
    name = yielding(lambda: threading.current_thread().name)
    assert name not in {thread.name for thread in threading.enumerate()}
