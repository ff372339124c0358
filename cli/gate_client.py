"""Speaking to a running gate from the command line.

Guarantees: no proxies, no redirects, a deadline, a size limit; a problem document becomes `GateRefused`, no answer or one that is
no gate's `GateUnreachable`, and what cannot be sent at all `GateMisused`. The token comes from ``TIDEGATE_TOKEN`` or a file, never
from an argument that ``ps`` would show.
"""

from __future__ import annotations

import http.client
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import typer

DEFAULT_GATE = "http://127.0.0.1:8080"
ANSWER_MAX_BYTES = 16 << 20
TOKEN_MAX_BYTES = 64 << 10
_TOKEN = re.compile(r"[\x21-\x7e]+")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")

GATE_OPTION = typer.Option(DEFAULT_GATE, "--gate", envvar="TIDEGATE_GATE", help="The gate's address.")
TOKEN_FILE_OPTION = typer.Option(None, "--token-file", help="File with the token; default: TIDEGATE_TOKEN.")


class GateUnreachable(Exception):
    """Nobody answered, or something that is no gate."""


class GateMisused(Exception):
    """What was given cannot be sent: an address, a token or a text that is none; `code` is stable."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code


class GateRefused(Exception):
    """The gate answered with a problem document."""

    def __init__(self, problem: dict[str, Any], status: int) -> None:
        super().__init__(str(problem.get("detail") or problem.get("title") or "refused"))
        self.problem = problem
        self.status = status
        self.code = str(problem.get("code", "refused"))


@dataclass(frozen=True, slots=True)
class GateAnswer:
    """Status, headers (lower case) and body of one answer, and who gave it."""

    status: int
    headers: dict[str, str]
    body: bytes
    gate: str = ""

    def json(self, *members: str) -> dict[str, Any]:
        """The body, an object that has these members. Raises GateUnreachable when it is none."""
        try:
            document = json.loads(self.body)
        except (ValueError, RecursionError) as error:
            raise GateUnreachable(f"what answers at {self.gate} is no gate: {error}") from error
        return self._object(document, members)

    def page(self, *members: str) -> dict[str, Any]:
        """The body, a page of a list: `items` are objects that have these members. Raises GateUnreachable."""
        page = self.json("items", "next")
        for item in page["items"] if isinstance(page["items"], list) else (None,):
            self._object(item, members)
        return page

    def _object(self, document: Any, members: tuple[str, ...]) -> dict[str, Any]:
        if not isinstance(document, dict) or not document.keys() >= set(members):
            raise GateUnreachable(f"what answers at {self.gate} is no gate of this version")
        return document


@dataclass(frozen=True, slots=True)
class GateClient:
    """One gate and the token to act with."""

    gate: str
    token: str | None
    timeout_seconds: float = 60.0
    unreadable: str = ""
    """Why there is no token, if one was to be read."""

    def request(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> GateAnswer:
        """One request; `path` is quoted already. Raises GateMisused, GateUnreachable or GateRefused (problem documents)."""
        connection, prefix = self._connection()
        send = self._headers(headers or {})
        payload = None
        if body is not None:
            payload = json.dumps(body).encode()
            send["Content-Type"] = b"application/json"
        try:
            connection.request(method, prefix + path, payload, send)
            response = connection.getresponse()
            raw = response.read(ANSWER_MAX_BYTES + 1)
        except http.client.InvalidURL as error:
            raise GateMisused("usage", f"not an address: {self.gate} ({error})") from error
        except (OSError, http.client.HTTPException) as error:  # before ValueError: a certificate's error is one too
            raise GateUnreachable(f"{self.gate} does not answer: {error}") from error
        except ValueError as error:
            raise GateMisused("usage", f"not to be sent to {self.gate}: {error}") from error
        finally:
            connection.close()
        if len(raw) > ANSWER_MAX_BYTES:
            raise GateUnreachable("the answer is too large")
        answer = GateAnswer(response.status, {k.lower(): v for k, v in response.getheaders()}, raw, self.gate)
        if answer.headers.get("content-type", "").startswith("application/problem+json"):
            raise GateRefused(answer.json(), answer.status)
        if not 200 <= answer.status < 300:
            raise GateUnreachable(f"{self.gate} answers {answer.status} as no gate does")
        return answer

    def _connection(self) -> tuple[http.client.HTTPConnection, str]:
        """A connection that is not open yet, and what paths begin with."""
        try:
            parts = urlsplit(self.gate)
            host, port = parts.hostname, parts.port
        except ValueError as error:
            raise GateMisused("usage", f"not an address: {self.gate} ({error})") from error
        if "://" not in self.gate:
            raise GateMisused("usage", f"not an address: {self.gate}; write http://{self.gate}")
        if parts.scheme not in ("http", "https") or not host or not parts.path.isascii():
            raise GateMisused("usage", f"not an address: {self.gate} (http://HOST:PORT is one)")
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        return kind(host, port, timeout=self.timeout_seconds), parts.path.rstrip("/")

    def _headers(self, headers: dict[str, str]) -> dict[str, bytes]:
        if self.unreadable:
            raise GateMisused("token_unreadable", self.unreadable)
        if self.token and _TOKEN.fullmatch(self.token) is None:
            raise GateMisused(
                "token_unreadable", "the token is none: it holds a space, a line end or what is not ASCII"
            )
        for name, value in headers.items():
            if _CONTROL.search(value) is not None:
                raise GateMisused("usage", f"{name} holds a line end or another control character")
        authorization = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        sent = {"Accept": "application/json", **headers, **authorization}
        return {name: value.encode("utf-8", "replace") for name, value in sent.items()}


def gate_client(gate: str, token_file: Path | None, *, timeout_seconds: float = 60.0) -> GateClient:
    """A client acting as the token's subject; a token that cannot be read is told when it is needed."""
    if token_file is None:
        return GateClient(gate, os.environ.get("TIDEGATE_TOKEN", "").strip() or None, timeout_seconds)
    try:
        with token_file.open("rb") as file:
            token = file.read(TOKEN_MAX_BYTES).decode("ascii").strip()
    except OSError as error:
        return GateClient(gate, None, timeout_seconds, f"{token_file}: {error.strerror}")
    except ValueError:
        return GateClient(gate, None, timeout_seconds, f"{token_file} holds no token")
    return GateClient(gate, token, timeout_seconds, "" if token else f"{token_file} holds no token")
