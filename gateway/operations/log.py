"""One canonical JSON line per call, written by its own thread.

Guarantees: a slow or blocked reader of the log never holds a call up; when its queue is full, lines are dropped and the
number of dropped lines stands in the next line that gets through. Lines are written together, at most `LINGER_SECONDS`
after the first of them, so that a call does not wake a thread. Field names are constants. Leaves what goes in to the
caller: no bodies, tokens or secrets.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Mapping
from typing import BinaryIO, Final

import orjson

QUEUE_MAX_LINES: Final = 8192
LINGER_SECONDS: Final = 0.02
EVENT_CALL: Final = "call"
EVENT_REFUSED: Final = "refused_unidentified"
EVENT_GATE: Final = "gate"


class LineLog:
    """A bounded queue of lines and the thread that writes them. One thread, the loop's, puts lines in."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._lines: deque[bytes] = deque()
        self._dropped = 0
        self._waiting = threading.Event()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._write, name="tidegate-log", daemon=True)
        self._thread.start()

    def line(self, event: str, fields: Mapping[str, object]) -> None:
        """Queue one line about an event."""
        self.write({"event": event, **fields})

    def write(self, document: dict[str, object]) -> None:
        """Queue one line as it is; the document is the log's from then on."""
        if len(self._lines) >= QUEUE_MAX_LINES:
            self._dropped += 1
            return
        if self._dropped:
            document["log_dropped"] = self._dropped
            self._dropped = 0
        self._lines.append(orjson.dumps(document, option=orjson.OPT_APPEND_NEWLINE, default=str))
        if not self._waiting.is_set():
            self._waiting.set()

    def close(self, timeout_seconds: float = 2.0) -> None:
        """Write what is queued, at most for ``timeout_seconds``."""
        self._closing.set()
        self._waiting.set()
        self._thread.join(timeout_seconds)

    def _write(self) -> None:
        while True:
            self._waiting.wait()
            ended = self._closing.wait(LINGER_SECONDS)
            self._waiting.clear()
            batch = [self._lines.popleft() for _ in range(len(self._lines))]
            try:
                self._stream.write(b"".join(batch))
                self._stream.flush()
            except (OSError, ValueError):
                self._dropped += len(batch)
            if ended:
                return
