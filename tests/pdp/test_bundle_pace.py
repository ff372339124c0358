"""A command run in slices: it stands still in turn, gives its own status, and nothing of it outlives who asked for it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from pdp.bundle_pace import EXIT_UNASKED, EXIT_UNSTARTED
from pdp.bundle_verifier import PACER
from tests.e2e.harness import child_environment

PATIENCE_SECONDS = 30.0
LOOKS_COUNT = 60
"""A command in slices stands still at three of four looks: not once in so many does not happen to it."""
SAYS_WHO = "import os, sys, time; print(os.getpid(), flush=True); "


@contextmanager
def paced(seconds: str, text: str) -> Iterator[subprocess.Popen[bytes]]:
    """A command that runs ``text`` under the pacer."""
    command = (*PACER, seconds, sys.executable, "-c", text)
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=child_environment()
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def said(process: subprocess.Popen[bytes]) -> int:
    """The number that the command says first."""
    assert process.stdout is not None
    return int(process.stdout.readline())


def state(pid: int) -> str:
    """What the kernel says that a process does; Z when it ended and when there is none."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]
    return "Z"


def within_patience(wanted: Callable[[], bool]) -> bool:
    """Look until it is so, for a bounded time."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        if wanted():
            return True
        time.sleep(0.002)
    return False


def stands_still(pid: int) -> bool:
    return within_patience(lambda: state(pid) == "T")


def works_on(pid: int) -> bool:
    """Whether there comes a time from which it stands still no more."""
    row = 0

    def looked() -> bool:
        nonlocal row
        row = 0 if state(pid) == "T" else row + 1
        return row >= LOOKS_COUNT

    return within_patience(looked)


def has_ended(pid: int) -> bool:
    return within_patience(lambda: state(pid) == "Z")


STATUSES = {
    "it succeeds": ("raise SystemExit(0)", 0),
    "it fails": ("raise SystemExit(5)", 5),
    "it is killed": ("import os; os.kill(os.getpid(), 9)", -9),
    "it is asked to end": ("import os; os.kill(os.getpid(), 15)", -15),
}


@pytest.mark.parametrize(("text", "status"), STATUSES.values(), ids=STATUSES.keys())
@pytest.mark.parametrize("seconds", ["0", "60"], ids=["freely", "in slices"])
def test_status_is_the_commands_when(seconds: str, text: str, status: int) -> None:
    with paced(seconds, text) as process:
        assert process.wait(PATIENCE_SECONDS) == status


def test_command_has_both_pipes_to_itself_when_it_works_in_slices() -> None:
    text = (
        "import sys; sys.stdout.write(sys.stdin.read().upper()); sys.stdout.flush(); sys.stdout.close(); import time\n"
    )
    with paced("60", text + "import os; os.close(1); time.sleep(600)") as process:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(b"a question")
        process.stdin.close()
        assert process.stdout.read() == b"A QUESTION"  # which ends although the command goes on


def test_command_stands_still_again_and_again_when_there_is_time() -> None:
    with paced("600", SAYS_WHO + "time.sleep(600)") as process:
        pid = said(process)
        for _ in range(3):
            assert stands_still(pid)
            assert within_patience(lambda: state(pid) not in "TZ")


def test_command_works_on_when_the_time_for_slices_is_over() -> None:
    with paced("0.3", SAYS_WHO + "time.sleep(600)") as process:
        assert works_on(said(process))


def test_command_ends_when_the_pacer_is_killed_while_it_stands_still() -> None:
    with paced("600", SAYS_WHO + "time.sleep(600)") as process:
        pid = said(process)
        assert stands_still(pid)
        process.kill()
        assert has_ended(pid)


@pytest.mark.parametrize("seconds", ["0", "600"], ids=["it works freely", "it works in slices"])
def test_command_ends_and_is_buried_when_the_pacer_is_asked_to_end_and(seconds: str) -> None:
    with paced(seconds, SAYS_WHO + "time.sleep(600)") as process:
        pid = said(process)
        process.terminate()
        assert process.wait(PATIENCE_SECONDS) == -signal.SIGKILL
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


@pytest.mark.parametrize("seconds", ["0", "600"], ids=["it works freely", "it works in slices"])
def test_command_and_pacer_end_when_who_asked_dies_and(seconds: str) -> None:
    inner = [*PACER, seconds, sys.executable, "-c", SAYS_WHO + "time.sleep(600)"]
    text = (
        "import os, subprocess, sys\n"
        f"pacer = subprocess.Popen({inner!r}, stdout=subprocess.PIPE)\n"
        "print(pacer.pid, int(pacer.stdout.readline()), flush=True)\n"
        "os.kill(os.getpid(), 9)"
    )
    asking = (sys.executable, "-c", text)
    done = subprocess.run(asking, capture_output=True, env=child_environment(), timeout=60, check=False)
    assert done.returncode == -signal.SIGKILL
    assert [has_ended(int(pid)) for pid in done.stdout.split()] == [True, True]


UNASKED = {
    "nothing is asked": ((), EXIT_UNASKED),
    "no command is given": (("5",), EXIT_UNASKED),
    "the time is no time": (("soon", sys.executable), EXIT_UNASKED),
    "there is no such command": (("5", "/nowhere/no-such-program"), EXIT_UNSTARTED),
}


@pytest.mark.parametrize(("arguments", "status"), UNASKED.values(), ids=UNASKED.keys())
def test_nothing_runs_when(arguments: tuple[str, ...], status: int) -> None:
    done = subprocess.run(
        (*PACER, *arguments),
        capture_output=True,
        env=child_environment(),
        timeout=60,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    assert (done.returncode, done.stdout) == (status, b"")
