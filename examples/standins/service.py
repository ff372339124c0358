"""What all stand-ins share: the label, the credential check, the memory of what was received.

Guarantees: a request without the right credential gets the service's own 401 and is remembered as refused; a
credential that looks like a caller's token (a JWT) is never accepted, whatever else is configured.
**A stand-in, not the service.**
"""

from __future__ import annotations

import base64
import binascii
import hmac
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

import orjson
from aiohttp import web

LABEL: Final = "X-Stand-In"
CONTROL_PATH: Final = "/__stand-in__/received"
RECEIVED_MAX: Final = 20_000
BODY_MAX_BYTES: Final = 64 << 20
BODY_KEPT_BYTES: Final = 4_096

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Refuse = Callable[[str], web.Response]


@dataclass(frozen=True, slots=True)
class Received:
    """One request as it arrived; `body` holds its first bytes, `headers` no credential."""

    method: str
    path: str
    query: str
    headers: dict[str, str]
    body: str
    body_bytes: int
    authorised: bool


@dataclass(frozen=True, slots=True)
class Credential:
    """What the service expects. `secret` None accepts any credential of the right form that is no caller's token."""

    kind: Literal["basic", "bearer", "header", "none"]
    secret: str | None = None
    header: str = "authorization"
    username: str | None = None
    or_bearer: bool = False
    schemes: tuple[str, ...] = ("bearer",)

    def fault(self, request: web.Request) -> str | None:
        """Why the request's credential is not accepted, or None."""
        if self.kind == "none":
            return "a credential arrived where none belongs" if "authorization" in request.headers else None
        if self.or_bearer and self.header not in request.headers:
            return Credential("bearer", self.secret).fault(request)
        given = request.headers.getall(self.header, [])
        if len(given) != 1:
            return "exactly one credential is expected"
        value = given[0]
        if self.kind == "basic":
            return self._basic_fault(value)
        if self.kind == "bearer":
            scheme, _, value = value.partition(" ")
            if scheme.lower() not in self.schemes:
                return "a bearer token is expected"
        return self._secret_fault(value)

    def _basic_fault(self, value: str) -> str | None:
        scheme, _, encoded = value.partition(" ")
        try:
            username, colon, password = base64.b64decode(encoded, validate=True).decode("utf-8").partition(":")
        except (binascii.Error, UnicodeDecodeError):
            return "the basic credentials cannot be read"
        if scheme.lower() != "basic" or not colon:
            return "basic credentials are expected"
        if self.username is not None and username != self.username:
            return "no such user"
        return self._secret_fault(password)

    def _secret_fault(self, value: str) -> str | None:
        if value.count(".") == 2 and value.startswith("eyJ"):
            return "this is a caller's token, not the service's credential"
        if not value:
            return "the credential is empty"
        if self.secret is not None and not hmac.compare_digest(value.encode(), self.secret.encode()):
            return "the credential is not the service's"
        return None


@dataclass(frozen=True, slots=True)
class Memory:
    """What one stand-in received, oldest first; the oldest go when it is full."""

    requests: deque[Received]


RECEIVED: Final = web.AppKey("received", Memory)


def received(app: web.Application) -> list[Received]:
    """What `app` received so far, oldest first."""
    return list(app[RECEIVED].requests)


def new_app(name: str, credential: Credential, refuse: Refuse) -> web.Application:
    """An application that labels its answers `name`, remembers requests and checks `credential`.

    `refuse` turns a reason into the service's own 401.
    """

    @web.middleware
    async def labelled(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path == CONTROL_PATH:
            return _control(request)
        fault = credential.fault(request)
        app[RECEIVED].requests.append(await _remember(request, fault is None))
        if fault is not None:
            return refuse(fault)
        try:
            return await handler(request)
        except web.HTTPNotFound:
            return json_answer({"message": f"the stand-in of {name} knows nothing at {request.path}"}, status=404)

    async def label(_request: web.Request, response: web.StreamResponse) -> None:
        response.headers[LABEL] = name

    app = web.Application(middlewares=[labelled], client_max_size=BODY_MAX_BYTES)
    app[RECEIVED] = Memory(deque(maxlen=RECEIVED_MAX))
    app.on_response_prepare.append(label)
    return app


async def _remember(request: web.Request, authorised: bool) -> Received:
    body = await request.read()
    headers = {
        key.lower(): value
        for key, value in request.headers.items()
        if key.lower() not in ("authorization", "x-api-key", "api-key")
    }
    shown = body[:BODY_KEPT_BYTES].decode("utf-8", "replace")
    return Received(
        request.method, request.rel_url.raw_path, request.query_string, headers, shown, len(body), authorised
    )


def _control(request: web.Request) -> web.Response:
    """For tests in another process: GET lists what was received, DELETE forgets it."""
    seen = request.app[RECEIVED].requests
    answer = json_answer([asdict(entry) for entry in seen])
    if request.method == "DELETE":
        seen.clear()
    return answer


def json_answer(document: Any, *, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    """`document` as a JSON answer."""
    body = orjson.dumps(document)
    return web.Response(body=body, status=status, headers=headers, content_type="application/json", charset="utf-8")


async def json_object(request: web.Request) -> dict[str, Any]:
    """The request's JSON object. Raises a 400 for anything else."""
    try:
        document = orjson.loads(await request.read())
    except orjson.JSONDecodeError as error:
        raise web.HTTPBadRequest(text="the body is not JSON") from error
    if not isinstance(document, dict):
        raise web.HTTPBadRequest(text="the body is no object")
    return document


async def json_or_form(request: web.Request) -> dict[str, Any]:
    """Fields of a JSON or form body, and of the query, as services with a long history take them."""
    fields: dict[str, Any] = dict(request.query)
    if request.content_type == "application/json":
        fields.update(await json_object(request))
    elif request.content_type == "application/x-www-form-urlencoded":
        fields.update({key: value for key, value in (await request.post()).items() if isinstance(value, str)})
    return fields


def origin(request: web.Request) -> str:
    """``http://host:port`` as the request addressed the service."""
    return f"http://{request.host}"
