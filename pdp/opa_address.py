"""Where an OPA server listens."""

from __future__ import annotations

from typing import NamedTuple


class OpaAddress(NamedTuple):
    """A loopback host and port, or a Unix socket, whose host and port then only stand in the request."""

    host: str
    port: int
    socket_path: str | None
