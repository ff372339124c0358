"""One long step in a thread that gives way to the others of this process.

Guarantees: whoever calls gets what the step gives or raises, as if it had been called here. Leaves to the caller that the step
is next to nothing but foreign calls: a thread that gives way must not hold the interpreter's lock for long, because all
others wait for it then. A thread cannot take its priority back without privileges, so each step has a thread of its own.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

NICENESS: Final = 10
T = TypeVar("T")


def yielding(step: Callable[[], T]) -> T:
    """What ``step`` gives; raises what it raises. Blocks."""
    with ThreadPoolExecutor(1, "pdp-yielding", initializer=_give_way) as thread:
        return thread.submit(step).result()


def _give_way() -> None:
    """Threads have a priority of their own on Linux only; anywhere it is refused the step only gives way less."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            own = threading.get_native_id()
            os.setpriority(os.PRIO_PROCESS, own, min(19, os.getpriority(os.PRIO_PROCESS, own) + NICENESS))
