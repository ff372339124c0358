"""A running edge and raw clients for it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from gateway.edge.answer import Answer
from gateway.edge.body import read_body, request_head
from gateway.edge.headers import check_head
from gateway.edge.limits import EdgeLimits
from gateway.edge.server import Handler, RunningServer, start_server
from gateway.errors import Refusal

GET = b"GET /a HTTP/1.1\r\nHost: x\r\n"
CLOSE = b"Connection: close\r\n\r\n"
CHUNKED = b"POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n"


@dataclass
class Edge:
    """The server under test and what it told about refusals."""

    server: RunningServer
    refused: list[tuple[str, str | None]] = field(default_factory=list)

    async def send(self, raw: bytes, *, timeout_seconds: float = 10.0) -> bytes:
        """Send raw bytes, and read until the server closes."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.server.port)
        try:
            writer.write(raw)
            async with asyncio.timeout(timeout_seconds):
                return await reader.read()
        finally:
            writer.close()


async def echo(request: web.BaseRequest) -> web.StreamResponse | Answer:
    """Check the head, read the body, say what came."""
    head = request_head(request)
    check_head(head)
    body = await read_body(request, 1 << 20)
    document = {"method": head.method, "path": head.target.path, "headers": head.headers, "bytes": len(body)}
    return Answer(200, (("Content-Type", "application/json"),), json.dumps(document).encode())


@asynccontextmanager
async def running(handler: Handler = echo, **limits: float) -> AsyncIterator[Edge]:
    """An edge on a free port."""
    refused: list[tuple[str, str | None]] = []

    def note(refusal: Refusal, peer: str | None) -> None:
        refused.append((refusal.code, peer))

    server = await start_server(handler, "127.0.0.1", 0, EdgeLimits(**limits), note)  # type: ignore[arg-type]
    try:
        yield Edge(server, refused)
    finally:
        await server.close(1.0)


def parsed(raw: bytes) -> tuple[int, dict[str, str], bytes]:
    """Status, headers (lower case) and body of the one answer in `raw`."""
    head, _, body = raw.partition(b"\r\n\r\n")
    lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:])}
    return int(lines[0].split(" ")[1]), headers, body


def problem(raw: bytes) -> tuple[int, str]:
    """Status and code of a problem document, whose form is checked."""
    status, headers, body = parsed(raw)
    assert headers["content-type"] == "application/problem+json"
    document: dict[str, Any] = json.loads(body)
    assert document["status"] == status
    assert document["type"] == "urn:tidegate:problem:" + document["code"].replace("_", "-")
    return status, document["code"]
