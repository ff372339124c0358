"""A gate whose rulebook is taken away once it listens: `python -m tests.e2e.ungoverned CONFIG`.

No configuration leads here by now, because a gate without a rulebook does not start. Prints `listening` when it is so,
and ends with its standard input.
"""

from __future__ import annotations

import asyncio
import io
import os
import sys
from pathlib import Path

from gateway.app import start_gate
from gateway.config import GatewayConfig, load_config
from gateway.operations.log import LineLog


async def serve(config: GatewayConfig) -> None:
    """Run the gate of one configuration."""
    gate = await start_gate(config, log=LineLog(io.BytesIO()))
    try:
        await gate.listen()
        await gate.running.services.policy.close()
        sys.stdout.write("listening\n")
        sys.stdout.flush()
        await asyncio.to_thread(sys.stdin.read)
    finally:
        await gate.close()


if __name__ == "__main__":
    named = Path(sys.argv[1]).resolve()
    asyncio.run(serve(load_config(named.read_text(encoding="utf-8"), named.parent, os.environ)))
