"""A gate in this process, on ports that the system gives, with the blocking-call detector on."""

from __future__ import annotations

import asyncio
import io
import json
import shutil
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cli.token import make_token
from gateway.app import Gate, start_gate
from gateway.config import GatewayConfig, load_config
from gateway.operations.log import LineLog
from tests.e2e.harness import edit_config
from tests.e2e.raw import Answer, exchange, request

WAIT_SECONDS = 10.0
INCIDENTS = "/c/servicenow/api/now/table/incident"


@dataclass(slots=True)
class Started:
    """A gate that listens, its directory and what it logs."""

    gate: Gate
    directory: Path
    log: io.BytesIO

    def token(self, *, tenant: str = "acme", roles: tuple[str, ...] = ("triage",), environment: str = "test") -> str:
        """A token of the development issuer."""
        claims = {"sub": "bot", "tenant": tenant, "workspace": "ops", "environment": environment, "roles": [*roles]}
        return make_token(load(self.directory), claims, lifetime_seconds=300, now=int(time.time()))

    async def ask(
        self,
        method: str,
        target: str,
        body: object = None,
        *,
        tenant: str = "acme",
        roles: tuple[str, ...] = ("triage",),
        environment: str = "test",
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """One request of somebody of that tenant."""
        token = self.token(tenant=tenant, roles=roles, environment=environment)
        sent = {"Host": f"127.0.0.1:{self.gate.port}", "Authorization": f"Bearer {token}", **(headers or {})}
        if body is not None:
            sent["Content-Type"] = "application/json"
        payload = json.dumps(body).encode() if body is not None else None
        return await self.send(request(method, target, sent, payload))

    async def send(self, *pieces: bytes) -> Answer:
        """One exchange, byte by byte."""
        return await asyncio.to_thread(exchange, f"http://127.0.0.1:{self.gate.port}", *pieces, hold_open=True)

    async def metrics(self) -> str:
        """What a scraper reads."""
        raw = request("GET", "/metrics", {"Host": f"127.0.0.1:{self.gate.metrics_port}"})
        answer = await asyncio.to_thread(exchange, f"http://127.0.0.1:{self.gate.metrics_port}", raw, hold_open=True)
        return answer.body.decode()

    def lines(self, **fields: object) -> list[dict[str, Any]]:
        """The lines logged until now that have these fields."""
        return [line for line in _lines(self.log) if fields.items() <= line.items()]

    async def until_logged(self, **fields: object) -> dict[str, Any]:
        """The first line with these fields, which may not have been written yet."""
        async with asyncio.timeout(WAIT_SECONDS):
            while not (found := self.lines(**fields)):
                await asyncio.sleep(0.01)
        return found[0]

    async def reload(self, changes: Mapping[str, Any]) -> bool:
        """Change the configuration's file and have it read; a refusal has been logged then."""
        edit_config(self.directory, changes)
        done = await self.gate.reload()
        if not done:
            await self.until_logged(what="reload_refused")
        return done


def _lines(log: io.BytesIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.getvalue().splitlines()]


def load(directory: Path) -> GatewayConfig:
    """The configuration in a directory."""
    return load_config((directory / "tidegate.yaml").read_text(encoding="utf-8"), directory, {})


@asynccontextmanager
async def started(
    starter_directory: Path, directory: Path, changes: Mapping[str, Any] | None = None
) -> AsyncIterator[Started]:
    """A gate on a copy of the starter directory with these changes, until the end of the block."""
    shutil.copytree(starter_directory, directory)
    edit_config(directory, {"listen": {"gate": "127.0.0.1:0", "metrics": "127.0.0.1:0"}})
    edit_config(directory, changes or {})
    log = io.BytesIO()
    gate = await start_gate(load(directory), config_path=directory / "tidegate.yaml", log=LineLog(log))
    try:
        await gate.listen()
        yield Started(gate, directory, log)
    finally:
        await gate.close()
