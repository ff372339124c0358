"""Checking large bundles beside the gate: what comes out, and what a child does that is no answer."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bundles.errors import BundleRefused, BundleUnavailable
from bundles.trusted_set import TrustedBundle
from pdp.bundle_frames import Question
from pdp.bundle_verifier import FAILED, PACED_MAX_SECONDS, PACED_MIN_SECONDS, BundleVerifier
from tests.bundles.parts import good_bundle
from tests.pdp import large
from tests.pdp.large import script

HANGS = script("open(sys.argv[1], 'w').write(str(os.getpid())); time.sleep(600)")
PATIENCE_SECONDS = 20.0


def checked(verifier: BundleVerifier, question: Question) -> TrustedBundle:
    return verifier.verify(
        question.archive,
        question.trust,
        now=question.at,
        highest_sequence=question.highest_sequence,
        cosignatures=question.cosignatures,
    )


@pytest.fixture
def pid_file(tmp_path: Path) -> Path:
    """Where a hanging child says who it is."""
    return tmp_path / "pid"


@pytest.fixture
def hanging(pid_file: Path) -> Iterator[BundleVerifier]:
    """A verifier whose child never answers."""
    verifier = BundleVerifier(large_bytes=0, command=(*HANGS, str(pid_file)))
    yield verifier
    verifier.close()


def pid_of(file: Path) -> int:
    """The child's number, once it has said it."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        if file.exists() and file.read_text():
            return int(file.read_text())
        time.sleep(0.01)
    raise AssertionError("no child began")


def is_gone(pid: int) -> bool:
    """Whether no such process is left, not even an unburied one."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def has_ended(pid: int) -> bool:
    """Whether it works no more; whoever inherits it buries it."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].startswith("Z"):
                return True
        except OSError:
            return True
        time.sleep(0.01)
    return False


def test_large_bundle_is_what_is_verified_here_when_a_child_checks_it() -> None:
    question = large.question()
    here, there = large.verified_here(question), checked(BundleVerifier(large_bytes=0), question)
    assert (there.digest, there.revision, there.rego, there.probes) == (
        here.digest,
        here.revision,
        here.rego,
        here.probes,
    )
    assert (set(here.data) - set(there.data), set(there.texts)) == ({"owners"}, {"owners"})


def test_small_bundle_is_checked_without_a_child_when_it_is_no_larger_than_the_bound() -> None:
    verifier = BundleVerifier(command=("/nowhere/no-such-program",))
    assert checked(verifier, large.question()).texts == {}


def test_refusal_is_the_same_when_a_child_checks() -> None:
    question = large.question(large.archive(sequence=2))
    with pytest.raises(BundleRefused) as there:
        checked(BundleVerifier(large_bytes=0), question)
    with pytest.raises(BundleRefused) as here:
        large.verified_here(question)
    assert (there.value.code, there.value.detail) == (here.value.code, here.value.detail)


FAULTS = {
    "it dies at once": ("sys.exit(7)", "ended with status 7"),
    "it is killed": ("os.kill(os.getpid(), 9)", "ended with status -9"),
    "it says nothing": ("sys.stdin.buffer.read()", "ended with status 0"),
    "it prints a traceback": (
        "sys.stdin.buffer.read(); raise SystemExit(print('Traceback (most recent call'))",
        "does not count",
    ),
    "it stops in the answer": (
        "sys.stdin.buffer.read(); out.write(frame({}, [b'x' * 9])[0]); out.flush(); sys.exit(3)",
        "ended with status 3",
    ),
    "it says no bundle": ("sys.stdin.buffer.read(); say(frame({}, []))", "does not count"),
    "it says more than one answer": (
        "sys.stdin.buffer.read(); say(refusal_frame(BundleRefused('a', 'b'))); say([b'x'])",
        "does not count",
    ),
    "it announces more than fits": ("sys.stdin.buffer.read(); say([MAGIC, b'\\xff' * 4])", "does not count"),
    "it answers about another archive": (
        "sys.stdin.buffer.read(); import hashlib\n"
        "say(frame({'name': 'main', 'revision': 'r', 'digest': 'sha256:' + '0' * 64, 'sequence': 9, 'epoch': 0,"
        " 'expires_at': None, 'keyids': [], 'manifest': {}, 'data': {}, 'probes': [], 'profile': '1',"
        " 'entrypoints': [], 'cacheable': False, 'rego': [], 'texts': []}, []))",
        "about another bundle",
    ),
}


@pytest.mark.parametrize("spare_seconds", [0.0, 60.0], ids=["freely", "in slices"])
@pytest.mark.parametrize(("text", "reason"), FAULTS.values(), ids=FAULTS.keys())
def test_bundle_is_refused_when_the_child_gives_no_answer_that_counts(
    text: str, reason: str, spare_seconds: float
) -> None:
    verifier = BundleVerifier(large_bytes=0, command=script(text))
    verifier.pace(lambda: spare_seconds)
    with pytest.raises(BundleUnavailable) as failed:
        checked(verifier, large.question())
    assert failed.value.code == FAILED
    assert reason in failed.value.detail


def test_bundle_is_refused_when_the_child_ends_before_it_has_read_the_question() -> None:
    verifier = BundleVerifier(large_bytes=0, command=script("sys.exit(5)"))
    with pytest.raises(BundleUnavailable) as failed:
        checked(verifier, large.question(os.urandom(4 << 20)))
    assert (failed.value.code, failed.value.detail) == (FAILED, "the process that checks ended with status 5")


def test_bundle_is_refused_when_no_child_can_be_started() -> None:
    verifier = BundleVerifier(large_bytes=0, command=("/nowhere/no-such-program",))
    with pytest.raises(BundleUnavailable) as failed:
        checked(verifier, large.question())
    assert failed.value.code == FAILED


def test_child_is_ended_when_it_takes_too_long(pid_file: Path) -> None:
    verifier = BundleVerifier(large_bytes=0, check_seconds=1.0, command=(*HANGS, str(pid_file)))
    with pytest.raises(BundleUnavailable) as failed:
        checked(verifier, large.question())
    assert (failed.value.code, failed.value.detail) == (FAILED, "no answer within 1 s")
    assert not pid_file.exists() or is_gone(pid_of(pid_file))


def test_child_that_was_ended_was_late_however_soon_its_end_is_seen(
    pid_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kill = subprocess.Popen.kill

    def kill_and_linger(child: subprocess.Popen[bytes]) -> None:
        kill(child)
        time.sleep(0.5)  # whoever waits for the answer sees the end meanwhile

    monkeypatch.setattr(subprocess.Popen, "kill", kill_and_linger)
    verifier = BundleVerifier(large_bytes=0, check_seconds=1.0, command=(*HANGS, str(pid_file)))
    with pytest.raises(BundleUnavailable, match="no answer within 1 s"):
        checked(verifier, large.question())


def failing(verifier: BundleVerifier, failures: list[BundleUnavailable]) -> threading.Thread:
    """A thread that checks a bundle and notes why it could not."""

    def work() -> None:
        try:
            checked(verifier, large.question())
        except BundleUnavailable as failed:
            failures.append(failed)

    thread = threading.Thread(target=work)
    thread.start()
    return thread


def test_child_is_ended_and_no_other_begins_when_the_gate_stops(hanging: BundleVerifier, pid_file: Path) -> None:
    failures: list[BundleUnavailable] = []
    waiting = [failing(hanging, failures) for _ in range(2)]
    pid = pid_of(pid_file)
    hanging.close()
    for thread in waiting:
        thread.join(PATIENCE_SECONDS)
    assert [(failed.code, failed.detail) for failed in failures] == [(FAILED, "the gate is stopping")] * 2
    assert is_gone(pid)


def test_large_bundle_is_the_same_when_it_is_checked_in_slices() -> None:
    freely, in_slices, question = BundleVerifier(large_bytes=0), BundleVerifier(large_bytes=0), large.question()
    in_slices.pace(lambda: 60.0)
    assert checked(in_slices, question) == checked(freely, question)


PARENT = (
    "sys.stdin.buffer.read(); say(refusal_frame(BundleRefused('parent', open(f'/proc/{os.getppid()}/cmdline').read())))"
)


def pacing(verifier: BundleVerifier) -> list[str]:
    """How long the next child would work in slices, in seconds: nothing when it is this process's own."""
    with pytest.raises(BundleRefused) as said:
        checked(verifier, large.question())
    words = said.value.detail.split("\0")
    return [words[words.index("pdp.bundle_pace") + 1]] if "pdp.bundle_pace" in words else []


SPARE = {
    "there is nothing to spare": (0.0, []),
    "there is less to spare than is worth it": (PACED_MIN_SECONDS - 0.01, []),
    "there is just enough to spare": (PACED_MIN_SECONDS, ["0.500"]),
    "a lease runs": (12.25, ["12.250"]),
    "there is more to spare than a check may dawdle": (PACED_MAX_SECONDS + 1, ["60.000"]),
    "there is no lease": (float("inf"), ["60.000"]),
}


@pytest.mark.parametrize(("spare_seconds", "expected"), SPARE.values(), ids=SPARE.keys())
def test_child_works_in_slices_for_as_long_as_fits_when(spare_seconds: float, expected: list[str]) -> None:
    verifier = BundleVerifier(large_bytes=0, command=script(PARENT))
    verifier.pace(lambda: spare_seconds)
    assert pacing(verifier) == expected


def test_child_works_freely_when_no_calls_are_served_yet() -> None:
    assert pacing(BundleVerifier(large_bytes=0, command=script(PARENT))) == []


def test_child_is_ended_when_it_takes_too_long_in_slices(pid_file: Path) -> None:
    verifier = BundleVerifier(large_bytes=0, check_seconds=2.0, command=(*HANGS, str(pid_file)))
    verifier.pace(lambda: 60.0)
    with pytest.raises(BundleUnavailable) as failed:
        checked(verifier, large.question())
    assert (failed.value.code, failed.value.detail) == (FAILED, "no answer within 2 s")
    assert not pid_file.exists() or has_ended(pid_of(pid_file))


def test_child_is_ended_when_the_gate_stops_while_it_works_in_slices(hanging: BundleVerifier, pid_file: Path) -> None:
    hanging.pace(lambda: 60.0)
    failures: list[BundleUnavailable] = []
    thread = failing(hanging, failures)
    pid = pid_of(pid_file)
    hanging.close()
    thread.join(PATIENCE_SECONDS)
    assert [(failed.code, failed.detail) for failed in failures] == [(FAILED, "the gate is stopping")]
    assert has_ended(pid)


def test_small_bundles_are_still_checked_when_the_gate_stops() -> None:
    verifier = BundleVerifier()
    verifier.close()
    assert checked(verifier, large.question(good_bundle())).name == "main"


def test_next_bundle_is_checked_when_the_one_before_failed(tmp_path: Path) -> None:
    once = tmp_path / "once"
    text = "import runpy\nif not os.path.exists(sys.argv[1]): open(sys.argv[1], 'w').close(); sys.exit(1)\n"
    command = (*script(text + "runpy.run_module('pdp.bundle_child', run_name='__main__')"), str(once))
    verifier = BundleVerifier(large_bytes=0, command=command)
    with pytest.raises(BundleUnavailable):
        checked(verifier, large.question())
    assert checked(verifier, large.question()).sequence == 7


def test_child_gets_none_of_the_environment_when_it_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDEGATE_TEST_SECRET", "do not hand on")
    text = "sys.stdin.buffer.read(); say(refusal_frame(BundleRefused('names', ' '.join(sorted(os.environ)))))"
    with pytest.raises(BundleRefused) as said:
        checked(BundleVerifier(large_bytes=0, command=script(text)), large.question())
    assert (
        {"PYTHONPATH"}
        <= set(said.value.detail.split())
        <= {*("PYTHONPATH", "LD_LIBRARY_PATH", "PYTHONHOME", "SYSTEMROOT", "LC_CTYPE")}
    )
