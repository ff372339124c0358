"""The listeners of one gate: the gate's own, `/metrics` and Envoy's door.

Guarantees: the gate's port is known before anything is served on it; what a listener refuses by itself is counted and
logged; new limits hold for connections made after them; on close, nothing more is accepted anywhere before anything is
waited for, and all listeners share one grace. Leaves what requests mean to their handlers.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Mapping
from errno import EADDRINUSE
from time import monotonic, time
from typing import TYPE_CHECKING, Final

from aiohttp import web

from gateway.approvals.render import rfc3339
from gateway.assembly import edge_limits
from gateway.config import ConfigError, GatewayConfig
from gateway.edge.answer import Answer
from gateway.edge.server import Handler, RunningServer, start_server
from gateway.envoy.opening import open_door
from gateway.errors import GateUnavailable
from gateway.operations.edge_refusals import EdgeRefusals
from gateway.operations.listener import MetricsListener
from gateway.operations.log import EVENT_GATE, EVENT_REFUSED, LineLog
from gateway.proxying import CallRunner
from gateway.running import Running

if TYPE_CHECKING:
    from gateway.envoy.server import RunningDoor

DOOR_LIMITS: Final = ("body_max_bytes", "headers_max_bytes", "calls_max")
"""What the door's listener is opened with and cannot change later."""


class ListenFailed(GateUnavailable):
    """An address cannot be listened on; `detail` names the listener, the address and the mend."""

    code = "listen_failed"

    def __init__(self, name: str, address: str, error: OSError) -> None:
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror or str(error)
        mend = f"let listen.{name} name an address of this machine"
        if error.errno == EADDRINUSE:
            mend = f"stop what listens there, perhaps another gate, or let listen.{name} name another port"
        self.detail = f"listen.{name} {address}: {reason}; {mend}"
        super().__init__(f"{self.code}: {self.detail}")


class Listeners:
    """Opened by `bind`, then `serve`; `close` at the end, whatever was opened."""

    def __init__(self, running: Running, log: LineLog, runner: CallRunner, handler: Handler) -> None:
        self._running = running
        self._log = log
        self._runner = runner
        self._handler = handler
        self._servers: list[RunningServer] = []
        self._door: RunningDoor | None = None
        self.port = 0
        self.metrics_port = 0

    async def bind(self) -> None:
        """Take the gate's address; nobody can connect yet. Raises `ListenFailed`."""
        config = self._running.assembly.config
        server = await self._opened(config.document.listen.gate, "gate", self._handler)
        self.port = server.port
        self._running.gate_hosts = config.hosts(config.document.listen.gate, server.port)

    async def serve(self) -> None:
        """Open everything, and say where. Raises `ListenFailed`, `ConfigError`, `DoorUnavailable`, `GateMisuse`."""
        config = self._running.assembly.config
        listen = config.document.listen
        told: dict[str, object] = {"gate": _with_port(listen.gate, self.port)}
        if listen.metrics is not None:
            services = self._running.services

            async def scraped(request: web.BaseRequest) -> Answer:
                return await metrics.handle(request)

            server = await self._opened(listen.metrics, "metrics", scraped)
            self.metrics_port = server.port
            metrics = MetricsListener(services.metrics, services.writer, config.hosts(listen.metrics, server.port))
            told["metrics"] = _with_port(listen.metrics, server.port)
        for server in self._servers:
            await server.serve()
        self._door = await open_door(self._running, self._runner)
        if self._door is not None and listen.ext_authz is not None:
            address, port = listen.ext_authz.address, self._door.port
            told["ext_authz"] = _with_port(address, port) if port else address
        self._log.line(EVENT_GATE, {"what": "listening", **told})

    def check_limits(self, config: GatewayConfig) -> None:
        """Raise `ConfigError` when a configuration asks for what only a restart can change."""
        old, new = self._running.assembly.config.document.limits, config.document.limits
        changed = [name for name in DOOR_LIMITS if getattr(new, name) != getattr(old, name)]
        if self._door is not None and changed:
            names = ", ".join(f"limits.{name}" for name in changed)
            raise ConfigError("restart_needed", f"{names}: beside listen.ext_authz only with a restart")

    def take_limits(self, config: GatewayConfig) -> None:
        """Keep these limits on every connection that is made from now on."""
        for server in self._servers:
            server.take_limits(edge_limits(config))

    async def close(self, grace_seconds: float) -> None:
        """Accept nothing more, let what runs end within `grace_seconds` in all, then cancel it."""
        for server in self._servers:
            server.stop_accepting()
        ends: list[Awaitable[None]] = [server.close(grace_seconds) for server in self._servers]
        if self._door is not None:
            ends.append(self._door.close(grace_seconds))
        await asyncio.gather(*ends)

    async def _opened(self, address: str, name: str, handler: Handler) -> RunningServer:
        """A listener that has its port and does not serve yet."""
        config, metrics = self._running.assembly.config, self._running.services.metrics

        def count(code: str) -> None:
            metrics.unauthenticated.labels(code).inc()

        def say(fields: Mapping[str, object]) -> None:
            self._log.write({"event": EVENT_REFUSED, "time": rfc3339(int(time() * 1000)), **fields})

        told = EdgeRefusals(name, count, say, monotonic)
        host, port = config.endpoint(address)
        try:
            server = await start_server(handler, host, port, edge_limits(config), told, serving=False)
        except OSError as error:
            raise ListenFailed(name, address, error) from error
        self._servers.append(server)
        return server


def _with_port(address: str, port: int) -> str:
    """A configured address with the port that it got."""
    return f"{address.rpartition(':')[0]}:{port}"
