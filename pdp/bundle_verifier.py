"""Checking bundles and applying deltas while the event loop goes on: small ones in the calling thread, large ones in a child.

Guarantees: a bundle comes out only if :func:`bundles.trusted_set.verify_bundle` returned it, here or in the child; a child
that dies, hangs, answers wrongly or is ended with the gate is ``bundle_check_failed``, and no child outlives
:meth:`BundleVerifier.close`. Once calls are served the child works in slices (``pdp.bundle_pace``), for as long as there is time.
Leaves what a failure means to whoever asked: the bundle in force stays.

**Security**: parsing and hashing 20 MB of JSON holds the interpreter's lock for seconds, in which no call is answered. The
child runs the same code as the same user with none of the environment's secrets, and only two pipes join it; what comes back
is about the archive that was sent (its digest is computed here), under the name and epoch that were asked for.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from typing import IO, Any, Final, TypeVar

from bundles.archive import ArchiveLimits, unpacks_beyond
from bundles.canonical import sha256_hex
from bundles.delta import apply_delta
from bundles.errors import BundleUnavailable
from bundles.trusted_set import TrustedBundle, TrustPolicy, verify_bundle
from pdp.bundle_frames import (
    PREFIX_BYTES,
    FrameMalformed,
    Question,
    document_size,
    question_frame,
    read_answer,
    read_archive_answer,
    read_document,
    rebuild_frame,
)

LARGE_BYTES: Final = 1 << 20
"""Unpacked. Below it a check takes about the time that a process takes to start, and holds the lock for 20 ms at most."""
CHECK_SECONDS: Final = 180.0
"""How long a child may take; 20 MB take three seconds on a free processor, and thirty on a crowded one."""
PACED_MAX_SECONDS: Final = 60.0
"""How long a child works in slices at most; 20 MB take twenty seconds so, and what is longer goes on undivided."""
PACED_MIN_SECONDS: Final = 0.5
LEAVE_SECONDS: Final = 0.5
"""How long a child that has said everything may take to go by itself."""
FAILED: Final = "bundle_check_failed"
COMMAND: Final = (sys.executable, "-P", "-m", "pdp.bundle_child")
PACER: Final = (sys.executable, "-P", "-m", "pdp.bundle_pace")
T = TypeVar("T")
_KEPT: Final = ("LD_LIBRARY_PATH", "PYTHONHOME", "SYSTEMROOT")


class BundleVerifier:
    """Checks bundles, one large one at a time. Its methods block and may be called from any thread."""

    def __init__(
        self,
        *,
        large_bytes: int = LARGE_BYTES,
        check_seconds: float = CHECK_SECONDS,
        command: Sequence[str] = COMMAND,
    ) -> None:
        """``command`` is what is run as the child."""
        self._large_bytes = large_bytes
        self._check_seconds = check_seconds
        self._command = tuple(command)
        self._one_at_a_time = threading.Lock()
        self._changing = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None
        self._closed = False
        self._spare: Callable[[], float] | None = None

    def pace(self, spare: Callable[[], float]) -> None:
        """From now on calls are served beside: give way to them in slices, for the seconds that ``spare`` gives at each check.

        It is called in the thread that checks. A gate that decides nothing any more has none to spare, and hurries.
        """
        self._spare = spare

    def verify(
        self, raw: bytes, trust: TrustPolicy, *, now: int, highest_sequence: int, cosignatures: bytes | None = None
    ) -> TrustedBundle:
        """As :func:`bundles.trusted_set.verify_bundle`; raises ``bundle_check_failed`` too.

        What a large bundle gives has data as ``texts`` where nobody but the engine reads it.
        """
        if not unpacks_beyond(raw, self._large_bytes):
            return verify_bundle(raw, trust, now=now, highest_sequence=highest_sequence, cosignatures=cosignatures)
        question = Question(raw, trust, now, highest_sequence, cosignatures)
        digest = f"sha256:{sha256_hex(raw)}"
        return self._asked(
            question_frame(question),
            lambda document, parts: read_answer(document, parts, about=question, digest=digest),
        )

    def rebuild(self, base: bytes, delta: bytes, limits: ArchiveLimits | None = None) -> bytes:
        """As :func:`bundles.delta.apply_delta`; raises ``bundle_check_failed`` too."""
        if not unpacks_beyond(base, self._large_bytes) and not unpacks_beyond(delta, self._large_bytes):
            return apply_delta(base, delta, limits)
        return self._asked(rebuild_frame(base, delta, limits or ArchiveLimits()), read_archive_answer)

    def close(self) -> None:
        """End the child, if one runs, and start none any more."""
        with self._changing:
            self._closed = True
            if self._child is not None:
                self._child.kill()

    def _asked(self, question: tuple[bytes, ...], read: Callable[[dict[str, Any], list[bytes]], T]) -> T:
        with self._one_at_a_time:
            return self._asked_alone(question, read)

    def _asked_alone(self, question: tuple[bytes, ...], read: Callable[[dict[str, Any], list[bytes]], T]) -> T:
        child, is_late = self._started(), threading.Event()

        def end_late() -> None:
            is_late.set()  # first: whoever sees that the child is gone asks why
            child.kill()

        timer = threading.Timer(self._check_seconds, end_late)
        timer.daemon = True
        timer.start()
        try:
            return read(*_exchanged(child, question))
        except (OSError, FrameMalformed) as failed:
            raise BundleUnavailable(FAILED, self._reason(_left(child), is_late.is_set(), failed)) from failed
        finally:
            timer.cancel()
            _left(child)
            with self._changing:
                self._child = None

    def _paced_command(self) -> tuple[str, ...]:
        seconds = min(PACED_MAX_SECONDS, self._spare()) if self._spare is not None else 0.0
        return (*PACER, f"{seconds:.3f}", *self._command) if seconds >= PACED_MIN_SECONDS else self._command

    def _started(self) -> subprocess.Popen[bytes]:
        with self._changing:
            if self._closed:
                raise BundleUnavailable(FAILED, "the gate is stopping")
            try:
                self._child = subprocess.Popen(
                    self._paced_command(),
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                    env=_environment(),
                    bufsize=-1,
                )
            except OSError as refused:
                raise BundleUnavailable(FAILED, f"no process could be started: {refused.strerror}") from refused
            return self._child

    def _reason(self, status: int, is_late: bool, failed: Exception) -> str:
        if self._closed:
            return "the gate is stopping"
        if is_late:
            return f"no answer within {self._check_seconds:g} s"
        if isinstance(failed, FrameMalformed) and not isinstance(failed, _CutShort):
            return f"the answer does not count: {failed}"
        return f"the process that checks ended with status {status}"


class _CutShort(FrameMalformed):
    """The child's output ended before its answer did."""


def _exchanged(child: subprocess.Popen[bytes], question: tuple[bytes, ...]) -> tuple[dict[str, Any], list[bytes]]:
    if child.stdin is None or child.stdout is None:
        raise FrameMalformed("the child has no pipes")
    for piece in question:
        child.stdin.write(piece)
    child.stdin.close()
    document, sizes = read_document(_read(child.stdout, document_size(_read(child.stdout, PREFIX_BYTES))))
    parts = [_read(child.stdout, size) for size in sizes]
    if child.stdout.read(1):
        raise FrameMalformed("more follows the answer")
    return document, parts


def _read(pipe: IO[bytes], size: int) -> bytes:
    raw = pipe.read(size)
    if len(raw) != size:
        raise _CutShort("the answer ends early")
    return raw


def _left(child: subprocess.Popen[bytes]) -> int:
    """The status of a child that is no longer listened to; it is ended when it does not go."""
    for pipe in (child.stdin, child.stdout):
        _closed(pipe)
    try:
        return child.wait(LEAVE_SECONDS)
    except subprocess.TimeoutExpired:
        child.kill()
        return child.wait()


def _closed(pipe: IO[bytes] | None) -> None:
    if pipe is None:
        return
    try:
        pipe.close()
    except OSError:
        # What was left to be written to a child that has gone; why it went was said already.
        return


def _environment() -> dict[str, str]:
    """The child finds the modules that this process found, and nothing else of the environment."""
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    return {**kept, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
