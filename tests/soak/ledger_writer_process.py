"""A process that appends as fast as it can and says on standard output what was acknowledged; it is killed from outside."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from gateway.ledger.writer import LedgerWriter
from gateway.store.owner_driver import StoreOwner
from gateway.store.port import ClaimKey
from gateway.store.process_client import store_link
from tests.gateway.store.build import LOG, OTHER_LOG, draft

WRITERS = 8
PATIENCE_SECONDS = 30.0


def _fatal(cause: str) -> None:
    sys.stderr.write(f"{cause}\n")
    sys.stderr.flush()
    os._exit(70)


async def main(path: Path, round_number: int) -> None:
    """Append until killed."""
    # As the gate does: what the last one's store process still writes is waited for.
    path.parent.mkdir(parents=True, exist_ok=True)
    owner = StoreOwner(path, PATIENCE_SECONDS)
    writer = LedgerWriter(store_link(path, b"k" * 32, owner.held), node=f"round-{round_number}", on_fatal=_fatal)
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
