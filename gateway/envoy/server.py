"""The gRPC listener of `envoy.service.auth.v3.Authorization`; imported only where `listen.ext_authz` is configured.

Guarantees: it listens where the configuration says and nowhere else, on loopback or a Unix socket in the clear, elsewhere with
mutual TLS for named peers only; messages, headers and concurrent questions are bounded; a question has a deadline, the
caller's or ours, whichever is earlier. Leaves answering to `service`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Iterable, Mapping
from pathlib import Path
from time import monotonic
from typing import Any, Final

import grpc
import grpc.aio

from gateway.config import GatewayConfig
from gateway.envoy.service import ExtAuthzService
from gateway.envoy.settings import UNIX, ExtAuthz
from gateway.errors import GateUnavailable
from gateway.store.keyfile import read_key_file

SERVICE: Final = "envoy.service.auth.v3.Authorization"
METHOD: Final = "Check"
SOCKET_MODE: Final = 0o660
ENVELOPE_MAX_BYTES: Final = 64 << 10
"""What a question holds beside headers and body: peers, certificates, metadata of the route."""
STREAMS_MAX: Final = 1024
METADATA_MAX_BYTES: Final = 16 << 10


class RunningDoor:
    """A listening door."""

    def __init__(self, server: Any, service: ExtAuthzService, port: int) -> None:
        self._server = server
        self._service = service
        self.port = port

    async def close(self, grace_seconds: float) -> None:
        """Accept nothing more and let questions end, all within `grace_seconds`."""
        until = monotonic() + grace_seconds
        await self._server.stop(grace_seconds)
        await self._service.close(max(0.0, until - monotonic()))


class DoorUnavailable(GateUnavailable):
    """The door cannot listen where it should."""

    code = "listen_failed"


async def start_door(config: GatewayConfig, service: ExtAuthzService) -> RunningDoor:
    """Listen where `listen.ext_authz` says. Raises `DoorUnavailable`, `GateMisuse` (the key is open to others)."""
    door = config.document.listen.ext_authz
    if door is None:
        raise DoorUnavailable("listen.ext_authz is not configured")
    limits = config.document.limits
    server = grpc.aio.server(
        options=(
            ("grpc.so_reuseport", 0),
            ("grpc.max_receive_message_length", limits.body_max_bytes + limits.headers_max_bytes + ENVELOPE_MAX_BYTES),
            ("grpc.max_concurrent_streams", STREAMS_MAX),
            ("grpc.max_metadata_size", METADATA_MAX_BYTES),
        ),
        maximum_concurrent_rpcs=2 * limits.calls_max,  # beyond `calls_max` the answer is a denial, this is the backstop
    )
    method = grpc.unary_unary_rpc_method_handler(_handler(service, door))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {METHOD: method}),))
    try:
        port = await _bound(server, config, door)
    except (RuntimeError, OSError) as error:
        raise DoorUnavailable(f"listen.ext_authz {door.address}: cannot listen there") from error
    await server.start()
    return RunningDoor(server, service, port)


async def _bound(server: Any, config: GatewayConfig, door: ExtAuthz) -> int:
    if door.address.startswith(UNIX):
        path = config.file(door.address.removeprefix(UNIX))
        await asyncio.to_thread(_refuse_taken, path)
        server.add_insecure_port(f"{UNIX}{path}")
        await asyncio.to_thread(os.chmod, path, SOCKET_MODE)
        return 0
    if door.tls is None:
        return int(server.add_insecure_port(door.address))
    files = await asyncio.to_thread(_tls_files, config, door)
    credentials = grpc.ssl_server_credentials([files[:2]], root_certificates=files[2], require_client_auth=True)
    return int(server.add_secure_port(door.address, credentials))


def _refuse_taken(path: Path) -> None:
    """Raise `OSError` while somebody listens on the socket; gRPC would take it over without a word."""
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe,
        contextlib.suppress(ConnectionError, FileNotFoundError),
    ):
        probe.connect(str(path))
        raise OSError(f"{path} is listened on")


def _tls_files(config: GatewayConfig, door: ExtAuthz) -> tuple[bytes, bytes, bytes]:
    if door.tls is None:
        raise DoorUnavailable("no TLS is configured")
    key = read_key_file(config.file(door.tls.key))
    return key, config.file(door.tls.certificate).read_bytes(), config.file(door.tls.client_ca).read_bytes()


def _handler(service: ExtAuthzService, door: ExtAuthz) -> Any:
    longest = door.deadline_ms / 1000
    peers = frozenset(door.tls.peers) if door.tls is not None else None

    async def check(raw: bytes, context: Any) -> bytes:
        if peers is not None and not peers & _names(context.auth_context()):
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, "this peer may not ask")
        left = context.time_remaining()
        seconds = longest if left is None else min(longest, left)
        return await service.check(raw, seconds)

    return check


def _names(auth: Mapping[str, Iterable[bytes]]) -> frozenset[str]:
    """The subject alternative names of a peer's verified certificate."""
    return frozenset(name.decode("utf-8", "replace") for name in auth.get("x509_subject_alternative_name", ()))
