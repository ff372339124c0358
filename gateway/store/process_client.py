"""The gate's end of the link to the process that owns the store's file.

Guarantees: a batch is answered once, or the link is lost and that is said once; closing lets the owner finish what it
was given. Leaves to `ledger.writer` what to hand over when, to `process_driver` the writing.
"""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, cast

from gateway.errors import GateMisuse
from gateway.store.frames import (
    Answered,
    FrameReader,
    Noted,
    Opened,
    Opening,
    Reply,
    decode_reply,
    encode_batch,
    encode_opening,
)
from gateway.store.port import STORE_PROCESS, BatchItem, BatchListener, StoreUnavailable

OPEN_SECONDS: Final = 60.0
"""Verifying the tails of many logs takes time; an owner that is silent for longer is broken."""
CLOSE_SECONDS: Final = 5.0
"""How long a closing gate waits for its owner, which folds the write-ahead log in and ends."""


@dataclass(frozen=True, slots=True)
class Owner:
    """An owner that runs: the gate's end of its link, and a call that blocks until it has ended, at most for so many
    seconds."""

    link: socket.socket
    ended: Callable[[float], None]


class StoreLink(asyncio.Protocol):
    """A `BatchChannel` to an owner that `begin` starts (which blocks)."""

    def __init__(self, begin: Callable[[], Owner], opening: Opening) -> None:
        self._begin = begin
        self._opening = opening
        self._owner: Owner | None = None
        self._listener: BatchListener | None = None
        self._transport: asyncio.WriteTransport | None = None
        self._reader = FrameReader()
        self._sent: Sequence[BatchItem] = ()
        self._opened: asyncio.Future[None] | None = None
        self._is_open = False
        self._lost: asyncio.Future[None] | None = None

    # -- the port ----------------------------------------------------------------------------------------------------

    async def open(self, listener: BatchListener) -> None:
        """Start the owner and wait until the file is open. Errors: `StoreUnavailable`."""
        loop = asyncio.get_running_loop()
        self._opened, self._lost, self._listener = loop.create_future(), loop.create_future(), listener
        try:
            self._owner = await asyncio.to_thread(self._begin)
        except OSError as error:
            raise StoreUnavailable("store_failed", f"its process did not start: {error}", fatal=True) from error
        await loop.create_unix_connection(lambda: self, sock=self._owner.link)
        if self._transport is not None:
            self._transport.write(encode_opening(self._opening))
        try:
            async with asyncio.timeout(OPEN_SECONDS):
                await self._opened
        except TimeoutError as error:
            await self.close()
            raise StoreUnavailable("store_failed", "its process does not answer", fatal=True) from error
        except StoreUnavailable:
            await self.close()
            raise

    def send(self, items: Sequence[BatchItem]) -> None:
        """Hand a batch over; the one before it has been answered."""
        if self._sent or self._transport is None:
            raise GateMisuse("the store takes one batch at a time, after it was opened")
        self._sent = items
        self._transport.write(encode_batch(items))

    async def close(self) -> None:
        """Close the link, and wait until the owner has ended; one that hangs is left to itself: it ends when it can.

        What it had not taken by then never reaches it.
        """
        if self._transport is not None and self._lost is not None:
            self._transport.close()
            await asyncio.wait((self._lost,), timeout=CLOSE_SECONDS)
            if self._transport is not None:
                self._transport.abort()
                await self._lost
        if self._owner is not None:
            await asyncio.to_thread(self._owner.ended, CLOSE_SECONDS)
            self._owner = None

    # -- asyncio.Protocol --------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.WriteTransport, transport)

    def data_received(self, data: bytes) -> None:
        for frame in self._reader.feed(data):
            self._take(decode_reply(frame))

    def _take(self, reply: Reply) -> None:
        listener, opened = self._listener, self._opened
        if listener is None or opened is None:
            raise GateMisuse("the store answers before it was asked")
        if isinstance(reply, Noted):
            listener.noted(reply.failure)
        elif not opened.done():
            if isinstance(reply, Opened):
                self._is_open = True
                opened.set_result(None)
            elif isinstance(reply, StoreUnavailable):
                opened.set_exception(reply)
        elif isinstance(reply, Answered):
            items, self._sent = self._sent, ()
            listener.answered(reply.of(items))
        elif isinstance(reply, StoreUnavailable):
            self._sent = ()
            listener.failed(reply)

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        lost = StoreUnavailable("store_failed", "its process has ended", fatal=True)
        if self._opened is not None and not self._opened.done():
            self._opened.set_exception(lost)
        elif self._listener is not None and self._is_open:  # else the opening has said why it failed
            self._sent = ()
            self._listener.failed(lost)
        if self._lost is not None and not self._lost.done():
            self._lost.set_result(None)


def start_owner(held: tuple[int, ...] = ()) -> Owner:
    """Start the owner as a process of this program; it keeps the descriptors in `held` open until it ends.

    Blocks. Raises `OSError`. `-P` keeps the working directory out of where modules are looked for.
    """
    here, there = socket.socketpair()
    command = [sys.executable, *(["-O"] if sys.flags.optimize else []), "-P", "-m", STORE_PROCESS, str(there.fileno())]
    try:
        with there:
            process = subprocess.Popen(
                command,
                pass_fds=(there.fileno(), *held),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
            )
    except OSError:
        here.close()
        raise
    here.setblocking(False)

    def ended(seconds: float) -> None:
        with suppress(subprocess.TimeoutExpired):
            process.wait(seconds)

    return Owner(here, ended)


def store_link(path: Path, secret: bytes, held: tuple[int, ...] = (), *, flush: bool = True) -> StoreLink:
    """The link to a new owner of `path`."""
    return StoreLink(lambda: start_owner(held), Opening(str(path), secret, flush))
