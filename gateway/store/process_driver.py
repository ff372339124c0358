"""The process that owns the store's file: it writes what the gate hands it and says what became of it.

Guarantees: one batch is one transaction and one flush, and is answered only after it; when the gate goes, however it
goes, what was received is finished and the process ends; after a flush or I/O error, or a bug, nothing more is written.
Leaves to `sqlite` what a transaction is, and to the gate what a failure means.

It is a process of its own so that writing does not take turns with deciding under one interpreter's lock (ADR 18). Run
by `process_client` as `python -P -m gateway.store.process_driver DESCRIPTOR`.
"""

from __future__ import annotations

import gc
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from gateway.store.frames import FrameReader, Noted, Opened, Opening, decode_batch, decode_opening, encode_reply
from gateway.store.port import BatchAppender, StoreUnavailable
from gateway.store.sealing import TenantKeys
from gateway.store.sqlite import SqliteAppender

READ_BYTES: Final = 1 << 20
EXIT_FAILED: Final = 70
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Sent to a whole group of processes when a gate is to stop: the gate decides when its owner ends, by closing the link."""


class StoreProcess:
    """Serves one link until its other end is closed. Blocks."""

    def __init__(self, link: socket.socket, make: Callable[[Opening], BatchAppender]) -> None:
        self._link = link
        self._make = make
        self._reader = FrameReader()
        self._frames: list[bytes] = []
        self._failure: str | None = None

    def run(self) -> int:
        """Open, serve, close; the process's exit status."""
        first = self._next_frame()
        if not first:
            return 0
        opening = decode_opening(first)
        store = self._make(opening)
        try:
            store.open_writer()
            self._link.sendall(encode_reply(Opened()))
            self._link.settimeout(opening.idle_seconds)
            self._serve(store)
        except StoreUnavailable as error:
            return self._failed(error)
        except ConnectionError:  # the gate went while it was being answered: nobody is left to tell
            return 0
        except Exception as error:  # boundary: nothing may be acknowledged after an unknown failure
            return self._failed(StoreUnavailable("store_failed", f"{type(error).__name__}: {error}", fatal=True))
        finally:
            store.close_writer()
        return 0

    def _serve(self, store: BatchAppender) -> None:
        while True:
            try:
                frame = self._next_frame()
            except TimeoutError:
                self._tidy(store)
                continue
            if not frame:
                return
            try:
                results = store.append_batch(decode_batch(frame))
            except StoreUnavailable as error:
                if error.fatal:
                    raise
                self._failure = str(error)
                self._link.sendall(encode_reply(error))
                continue
            failed = [result for result in results if isinstance(result, StoreUnavailable)]
            self._failure = str(failed[-1]) if failed else None
            self._link.sendall(encode_reply(results))

    def _tidy(self, store: BatchAppender) -> None:
        try:
            store.tidy()
            found = None
        except StoreUnavailable as error:
            if error.fatal:
                raise
            found = str(error)
        if found != self._failure:
            self._failure = found
            self._link.sendall(encode_reply(Noted(found)))

    def _next_frame(self) -> bytes:
        """The next frame; none when the other end is closed. Raises `TimeoutError` while there is nothing to do."""
        while not self._frames:
            data = self._link.recv(READ_BYTES)
            if not data:
                return b""
            self._frames = self._reader.feed(data)
        return self._frames.pop(0)

    def _failed(self, error: StoreUnavailable) -> int:
        try:
            self._link.sendall(encode_reply(error))
        except OSError as gone:
            sys.stderr.write(f"tidegate: the store failed and the gate is gone: {error} ({gone})\n")
        return EXIT_FAILED


def sqlite_appender(opening: Opening) -> SqliteAppender:
    """The writing side of the file that an opening names."""
    return SqliteAppender(Path(opening.path), keys=TenantKeys(opening.secret), clock=_wall_ms, flush=opening.flush)


def _wall_ms() -> int:
    return time.time_ns() // 1_000_000


def main() -> int:
    """Serve the link whose descriptor is the first argument."""
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    gc.freeze()
    with socket.socket(fileno=int(sys.argv[1])) as link:
        return StoreProcess(link, sqlite_appender).run()


if __name__ == "__main__":
    sys.exit(main())
