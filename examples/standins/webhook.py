"""A stand-in of any service that takes JSON by POST: it says back what it received. **Not a real receiver.**"""

from __future__ import annotations

import orjson
from aiohttp import web

from examples.standins.service import Credential, json_answer, new_app


def build(secret: str | None = None) -> web.Application:
    """The application. `secret` is the bearer token it accepts."""
    app = new_app("webhook", Credential("bearer", secret), _unauthorised)
    app.router.add_post("/{path:.*}", _echo)
    return app


def _unauthorised(reason: str) -> web.Response:
    return json_answer({"error": reason}, status=401)


async def _echo(request: web.Request) -> web.Response:
    body = await request.read()
    try:
        document = orjson.loads(body) if body else None
    except orjson.JSONDecodeError:
        return json_answer({"error": "the body is not JSON"}, status=400)
    return json_answer({"received": document, "path": request.path}, status=202)
