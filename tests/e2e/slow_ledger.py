"""A gate whose intents wait until a file exists: `python -m tests.e2e.slow_ledger CONFIG FILE`.

So a test can let time pass between a decision and its intent. Ends with SIGTERM as a gate does.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from gateway.app import start_gate
from gateway.config import GatewayConfig, load_config
from gateway.ledger.record import RecordDraft
from gateway.ledger.writer import LedgerWriter

POLL_SECONDS = 0.05


class SlowLedger:
    """A ledger that takes an intent only when it is let."""

    def __init__(self, ledger: LedgerWriter, let: Path) -> None:
        self._ledger = ledger
        self._let = let

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ledger, name)

    async def append(self, draft: RecordDraft, **more: Any) -> Any:
        """As the ledger's own, but for intents later."""
        while draft.kind == "intent" and not await asyncio.to_thread(self._let.exists):
            await asyncio.sleep(POLL_SECONDS)
        return await self._ledger.append(draft, **more)


async def serve(config: GatewayConfig, let: Path) -> None:
    """Run the gate of one configuration until a signal ends it."""
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    gate = await start_gate(config)
    try:
        services = gate.running.services
        slow: Any = SlowLedger(services.writer, let)
        gate.running.services = replace(services, writer=slow)
        await gate.listen()
        await ended.wait()
    finally:
        gate.running.services = services
        await gate.close()


if __name__ == "__main__":
    named = Path(sys.argv[1]).resolve()
    asyncio.run(serve(load_config(named.read_text(encoding="utf-8"), named.parent, os.environ), Path(sys.argv[2])))
