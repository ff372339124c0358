"""Speaking to a running gate from the command line.

Guarantees: no proxies, no redirects, a deadline, a size limit; a problem document becomes `GateRefused`, no answer
`GateUnreachable`. The token comes from ``TIDEGATE_TOKEN`` or a file, never from an argument that ``ps`` would show.
"""

from __future__ import annotations

import http.client
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import typer

DEFAULT_GATE = "http://127.0.0.1:8080"
ANSWER_MAX_BYTES = 16 << 20

GATE_OPTION = typer.Option(DEFAULT_GATE, "--gate", envvar="TIDEGATE_GATE", help="The gate's address.")
TOKEN_FILE_OPTION = typer.Option(None, "--token-file", help="File with the token; default: TIDEGATE_TOKEN.")


class GateUnreachable(Exception):
    """Nobody answered properly."""


class GateRefused(Exception):
    """The gate answered with a problem document."""

    def __init__(self, problem: dict[str, Any], status: int) -> None:
        super().__init__(str(problem.get("detail") or problem.get("title") or "refused"))
        self.problem = problem
        self.status = status
        self.code = str(problem.get("code", "refused"))


@dataclass(frozen=True, slots=True)
class GateAnswer:
    """Status, headers (lower case) and body of one answer."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


@dataclass(frozen=True, slots=True)
class GateClient:
    """One gate and the token to act with."""

    gate: str
    token: str | None
    timeout_seconds: float = 60.0

    def request(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> GateAnswer:
        """One request. Raises GateUnreachable or GateRefused (problem documents)."""
        parts = urlsplit(self.gate)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise GateUnreachable(f"not an address: {self.gate}")
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        connection = kind(parts.hostname, parts.port, timeout=self.timeout_seconds)
        send = {"Accept": "application/json", **(headers or {})}
        if self.token:
            send["Authorization"] = f"Bearer {self.token}"
        payload = None
        if body is not None:
            payload = json.dumps(body).encode()
            send["Content-Type"] = "application/json"
        try:
            connection.request(method, parts.path.rstrip("/") + path, payload, send)
            response = connection.getresponse()
            raw = response.read(ANSWER_MAX_BYTES + 1)
        except (OSError, http.client.HTTPException) as error:
            raise GateUnreachable(f"{self.gate} does not answer: {error}") from error
        finally:
            connection.close()
        if len(raw) > ANSWER_MAX_BYTES:
            raise GateUnreachable("the answer is too large")
        answer = GateAnswer(response.status, {k.lower(): v for k, v in response.getheaders()}, raw)
        if answer.headers.get("content-type", "").startswith("application/problem+json"):
            raise GateRefused(answer.json(), answer.status)
        return answer


def gate_client(gate: str, token_file: Path | None, *, timeout_seconds: float = 60.0) -> GateClient:
    """A client acting as the token's subject."""
    token = token_file.read_text().strip() if token_file is not None else os.environ.get("TIDEGATE_TOKEN", "").strip()
    return GateClient(gate, token or None, timeout_seconds)
