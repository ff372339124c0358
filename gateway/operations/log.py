"""One canonical JSON line per call, written by its own thread.

Guarantees: a slow or blocked reader of the log never holds a call up; when its queue is full, lines are dropped and the
number of dropped lines stands in the next line that gets through. Field names are constants. Leaves what goes in to the caller: no
bodies, tokens or secrets.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Mapping
from typing import BinaryIO

import orjson

QUEUE_MAX_LINES = 8192
EVENT_CALL = "call"
EVENT_REFUSED = "refused_unidentified"
EVENT_GATE = "gate"


class LineLog:
    """A bounded queue of lines and the thread that writes them."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._lines: queue.Queue[bytes | None] = queue.Queue(QUEUE_MAX_LINES)
        self._dropped = 0
        self._thread = threading.Thread(target=self._write, name="tidegate-log", daemon=True)
        self._thread.start()

    def line(self, event: str, fields: Mapping[str, object]) -> None:
        """Queue one line."""
        document: dict[str, object] = {"event": event, **fields}
        if self._dropped:
            document["log_dropped"] = self._dropped
        try:
            self._lines.put_nowait(orjson.dumps(document, option=orjson.OPT_APPEND_NEWLINE, default=str))
        except queue.Full:
            self._dropped += 1
            return
        self._dropped = 0

    def close(self, timeout_seconds: float = 2.0) -> None:
        """Write what is queued, at most for ``timeout_seconds``."""
        try:
            self._lines.put(None, timeout=timeout_seconds)
        except queue.Full:
            return
        self._thread.join(timeout_seconds)

    def _write(self) -> None:
        while True:
            batch = [self._lines.get()]
            while len(batch) < 256:
                try:
                    batch.append(self._lines.get_nowait())
                except queue.Empty:
                    break
            stop = None in batch
            try:
                self._stream.write(b"".join(line for line in batch if line is not None))
                self._stream.flush()
            except (OSError, ValueError):
                self._dropped += len(batch)
            if stop:
                return
