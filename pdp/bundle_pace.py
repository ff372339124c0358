"""Runs a command in short slices, so that calls get the processor in between: ``python -m pdp.bundle_pace SECONDS COMMAND…``.

Guarantees: for ``SECONDS`` the command works ``WORK_SECONDS`` and stands still ``PAUSE_SECONDS`` in turn, afterwards it runs freely;
it ends with whoever asked for it or with this process, whichever goes first, and standing still does not keep it from that; its
status is this process's. Where the kernel cannot promise the second, the command is not stopped at all. Leaves to the command
what it does, and how long it may take to ``pdp.bundle_verifier``.

Stopping is done from outside, because nothing inside a process interrupts a parser that has 20 MB before it. This process is small
and has the gate's priority: it must be on time, and takes next to nothing.
**Source**: ``prctl(2)``, ``PR_SET_PDEATHSIG``: kept over ``execve``, and SIGKILL reaches stopped processes too.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from collections.abc import Sequence
from typing import Final

WORK_SECONDS: Final = 0.003
PAUSE_SECONDS: Final = 0.027
"""A tenth of one processor: calls that leave a machine little room keep most of it."""
LOOK_SECONDS: Final = 0.05
EXIT_UNSTARTED: Final = 127
EXIT_UNASKED: Final = 2
_PR_SET_PDEATHSIG: Final = 1
_DIES_TOO: Final = b"1"


def run_paced(command: Sequence[str], seconds: float) -> int:
    """Run ``command`` and give its status, negative for a signal's number."""
    asked_by = os.getppid()
    reading, writing = os.pipe()
    me, pid = os.getpid(), os.fork()
    if pid == 0:
        _become(command, me, writing)
    os.close(writing)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: os.kill(pid, signal.SIGKILL))
    may_stop = os.read(reading, 1) == _DIES_TOO
    os.close(reading)
    for pipe in (0, 1):
        os.close(pipe)  # They are the command's: who reads its answer must see it end.
    ends = time.monotonic() + seconds if may_stop else 0.0
    while True:
        gone, status = os.waitpid(pid, os.WNOHANG)
        if gone:
            return os.waitstatus_to_exitcode(status)
        if os.getppid() != asked_by:
            os.kill(pid, signal.SIGKILL)
        if time.monotonic() < ends:
            _slice(pid)
        else:
            time.sleep(LOOK_SECONDS)


def _slice(pid: int) -> None:
    """Let it work, then stand still. Not waited for meanwhile, so the number is still its own."""
    time.sleep(WORK_SECONDS)
    os.kill(pid, signal.SIGSTOP)
    time.sleep(PAUSE_SECONDS)
    os.kill(pid, signal.SIGCONT)


def _become(command: Sequence[str], parent: int, writing: int) -> None:
    """In the child: say whether it will die with its parent, and become the command; never returns."""
    try:
        if _dies_with_parent() and os.getppid() == parent:
            os.write(writing, _DIES_TOO)
        os.execv(command[0], list(command))
    finally:
        os._exit(EXIT_UNSTARTED)


def _dies_with_parent() -> bool:
    """Ask the kernel to end this process when its parent ends; whether it will."""
    if sys.platform != "linux":
        return False
    prctl = ctypes.CDLL(None).prctl
    return bool(prctl(_PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGKILL), *[ctypes.c_ulong(0)] * 3) == 0)


def main() -> int:
    """Run the command of the command line; its status, or this process ends by the signal that ended it."""
    try:
        seconds, command = float(sys.argv[1]), sys.argv[2:]
    except (IndexError, ValueError):
        return EXIT_UNASKED
    if not command:
        return EXIT_UNASKED
    status = run_paced(command, seconds)
    if status < 0:
        if status != -signal.SIGKILL:
            signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    return status


if __name__ == "__main__":
    sys.exit(main())
