"""One request to /v1: its head, its caller, its JSON body, and the answers it can get."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orjson
from aiohttp import web

from bundles.canonical import JsonValue, StrictJsonError, parse_strict
from gateway.edge.answer import Answer
from gateway.edge.body import read_body
from gateway.edge.headers import HeaderPairs, RequestHead
from gateway.edge.identity import Subject
from gateway.edge.problem import refusal
from gateway.flow.values import Trace
from gateway.ledger.record import LogId

_HEADERS: HeaderPairs = (
    ("Content-Type", "application/json"),
    ("Cache-Control", "no-store"),
    ("X-Content-Type-Options", "nosniff"),
)


@dataclass(frozen=True, slots=True)
class ApiExchange:
    """A request of an identified caller; `parts` are the decoded path segments after ``/v1``.

    `trace` gathers what its record, log line and metric say; it is settled once a call has been counted for itself.
    """

    request: web.BaseRequest
    head: RequestHead
    parts: tuple[str, ...]
    subject: Subject
    trace: Trace
    body_max_bytes: int

    @property
    def call_id(self) -> str:
        """The request's id, as its answer, record and log line name it."""
        return self.trace.call_id

    @property
    def log(self) -> LogId:
        """The caller's own ledger; nothing outside it is ever looked at."""
        return (self.subject.tenant, self.subject.workspace)

    def query(self, name: str) -> str | None:
        """The value of a query parameter. Raises `malformed_request` when it stands twice."""
        found = [value for key, value in self.head.target.query if key == name]
        if len(found) > 1:
            raise refusal("malformed_request", f"the query parameter {name} stands twice")
        return found[0] if found else None

    async def document(self, allowed: frozenset[str]) -> dict[str, JsonValue]:
        """The body as a JSON object with no member outside `allowed`. Raises `malformed_request`."""
        raw = await read_body(self.request, self.body_max_bytes)
        try:
            document = parse_strict(raw, max_bytes=self.body_max_bytes)
        except StrictJsonError as error:
            raise refusal("malformed_request", f"the body is no strict JSON: {error.code}") from error
        if not isinstance(document, dict):
            raise refusal("malformed_request", "the body is no object")
        unknown = document.keys() - allowed
        if unknown:
            raise refusal(
                "arguments_invalid", "unknown members", errors=[{"pointer": f"/{n}"} for n in sorted(unknown)]
            )
        return document


def text(document: dict[str, JsonValue], name: str, *, required: bool = False, max_characters: int = 2000) -> str:
    """A member that is text. Raises `arguments_invalid`."""
    value = document.get(name)
    if value is None and not required:
        return ""
    if not isinstance(value, str) or (required and not value) or len(value) > max_characters:
        message = f"text of {'1 to' if required else 'at most'} {max_characters} characters"
        raise refusal("arguments_invalid", message, errors=[{"pointer": f"/{name}", "message": message}])
    return value


def answer(document: Any, *, status: int = 200, headers: HeaderPairs = ()) -> Answer:
    """A JSON answer."""
    return Answer(status, (*_HEADERS, *headers), orjson.dumps(document))
