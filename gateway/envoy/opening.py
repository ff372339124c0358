"""Opens the door of one gate, where it is configured; asks for the extra's packages only then."""

from __future__ import annotations

import importlib
import importlib.util
from typing import TYPE_CHECKING

from gateway.config import ConfigError
from gateway.envoy.service import ExtAuthzService, Standing
from gateway.proxying import CallRunner
from gateway.running import Running

if TYPE_CHECKING:
    from gateway.envoy.server import RunningDoor


async def open_door(running: Running, runner: CallRunner) -> RunningDoor | None:
    """Listen for Envoy's questions if `listen.ext_authz` is configured.

    Raises `ConfigError` without the extra that this needs, `DoorUnavailable`, `GateMisuse`.
    """
    config = running.assembly.config
    if config.document.listen.ext_authz is None:
        return None
    if importlib.util.find_spec("grpc") is None:
        raise ConfigError("extra_missing", "listen.ext_authz needs the extra `envoy`: install tidegate[envoy]")

    def standing() -> Standing:
        limits = running.assembly.config.document.limits
        return Standing(running.assembly.plans, limits.headers_max_count, limits.uri_max_bytes)

    server = importlib.import_module("gateway.envoy.server")
    door: RunningDoor = await server.start_door(config, ExtAuthzService(standing, runner))
    return door
