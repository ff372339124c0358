"""A process that appends as fast as it can and says on standard output what was acknowledged; it is killed from outside."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from gateway.ledger.writer import LedgerWriter
from gateway.store.port import ClaimKey
from gateway.store.process_client import store_link
from tests.gateway.store.build import LOG, OTHER_LOG, draft

WRITERS = 8


async def main(path: Path, round_number: int) -> None:
    """Append until killed."""
    writer = LedgerWriter(
        store_link(path, b"k" * 32), node=f"round-{round_number}", on_fatal=lambda cause: os._exit(70)
    )
    await writer.start()
    sys.stdout.write("ready\n")
    sys.stdout.flush()

    async def append(number: int) -> None:
        for count in range(1_000_000):
            log = (LOG, OTHER_LOG)[number % 2]
            call = f"{round_number}-{number}-{count}"
            claim = ClaimKey(log, call, "digest", call, 2**60)
            appended = await writer.append(draft(log=log, call=call), effects=(claim,) if count % 3 == 0 else ())
            sys.stdout.write(f"{log[0]} {appended.seq} {appended.hash} {call}\n")
            sys.stdout.flush()

    await asyncio.gather(*(append(number) for number in range(WRITERS)))


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))
