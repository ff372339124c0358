"""A stand-in of Slack's Web API and of its upload host. **Not Slack.**

Messages as JSON or form; the three steps of an upload: an absolute URL at the upload host, the bytes sent there without
any token, the completion.
"""

from __future__ import annotations

from typing import Any, Final

import orjson
from aiohttp import web

from examples.standins.service import Credential, json_answer, json_or_form, new_app

UPLOAD_BASE: Final = "http://127.0.0.1:9506"

_STATE: Final = web.AppKey("state", dict[str, Any])
_UPLOADS: Final = web.AppKey("uploads", dict[str, int])


def build(secret: str | None = None, upload_base: str = UPLOAD_BASE) -> web.Application:
    """The Web API. `secret` is the bot token it accepts, `upload_base` where its upload URLs lead."""
    app = new_app("slack", Credential("bearer", secret), _not_authed)
    app[_STATE] = {"count": 0, "files": {}, "upload_base": upload_base}
    routes = {
        "auth.test": _auth_test,
        "chat.postMessage": _post_message,
        "chat.update": _update_message,
        "chat.delete": _delete_message,
        "conversations.list": _conversations,
        "conversations.history": _history,
        "files.getUploadURLExternal": _upload_url,
        "files.completeUploadExternal": _complete_upload,
    }
    for name, handler in routes.items():
        app.router.add_post(f"/api/{name}", handler)
    return app


def build_upload() -> web.Application:
    """The upload host: takes bytes at the URLs the Web API gives out, and no credential beside the URL."""
    app = new_app("slack-upload", Credential("none"), _not_authed)
    app[_UPLOADS] = {}
    app.router.add_post("/upload/v1/{key}", _take_bytes)
    app.router.add_put("/upload/v1/{key}", _take_bytes)
    return app


def _not_authed(_reason: str) -> web.Response:
    return json_answer({"ok": False, "error": "not_authed"})


def _error(code: str) -> web.Response:
    return json_answer({"ok": False, "error": code})


def _next(request: web.Request) -> int:
    state = request.app[_STATE]
    state["count"] += 1
    count: int = state["count"]
    return count


async def _auth_test(_request: web.Request) -> web.Response:
    answer = {"ok": True, "url": "https://stand-in.slack.example/", "team": "Stand-in", "user": "gate"}
    return json_answer({**answer, "team_id": "T0000000001", "user_id": "U0000000001", "bot_id": "B0000000001"})


async def _post_message(request: web.Request) -> web.Response:
    fields = await json_or_form(request)
    if not fields.get("channel"):
        return _error("channel_not_found")
    if not (fields.get("text") or fields.get("blocks") or fields.get("attachments") or fields.get("markdown_text")):
        return _error("no_text")
    ts = f"1700000000.{_next(request):06d}"
    message = {"type": "message", "text": fields.get("text", ""), "ts": ts, "bot_id": "B0000000001"}
    return json_answer({"ok": True, "channel": fields["channel"], "ts": ts, "message": message})


async def _update_message(request: web.Request) -> web.Response:
    fields = await json_or_form(request)
    known = {name: fields.get(name, "") for name in ("channel", "ts", "text")}
    return json_answer({"ok": True, **known})


async def _delete_message(request: web.Request) -> web.Response:
    fields = await json_or_form(request)
    return json_answer({"ok": True, "channel": fields.get("channel", ""), "ts": fields.get("ts", "")})


async def _conversations(_request: web.Request) -> web.Response:
    channels = [{"id": "C0123456789", "name": "triage", "is_channel": True}]
    return json_answer({"ok": True, "channels": channels, "response_metadata": {"next_cursor": ""}})


async def _history(_request: web.Request) -> web.Response:
    messages = [{"type": "message", "user": "U0000000002", "text": "The export is broken again", "ts": "1700000000.0"}]
    return json_answer({"ok": True, "messages": messages, "has_more": False})


async def _upload_url(request: web.Request) -> web.Response:
    fields = await json_or_form(request)
    if not fields.get("filename") or not str(fields.get("length", "")).isdecimal():
        return _error("invalid_arguments")
    file_id = f"F{_next(request):010d}"
    state = request.app[_STATE]
    state["files"][file_id] = fields["filename"]
    return json_answer({"ok": True, "upload_url": f"{state['upload_base']}/upload/v1/{file_id}", "file_id": file_id})


async def _complete_upload(request: web.Request) -> web.Response:
    fields = await json_or_form(request)
    listed = fields.get("files", "[]")
    try:
        files = orjson.loads(listed) if isinstance(listed, str) else listed
    except orjson.JSONDecodeError:
        return _error("invalid_arguments")
    known = request.app[_STATE]["files"]
    if not files or any(entry.get("id") not in known for entry in files):
        return _error("file_not_found")
    titled = [{"id": entry["id"], "title": entry.get("title") or known[entry["id"]]} for entry in files]
    return json_answer({"ok": True, "files": titled})


async def _take_bytes(request: web.Request) -> web.Response:
    body = await request.read()
    request.app[_UPLOADS][request.match_info["key"]] = len(body)
    return web.Response(text=f"OK - {len(body)}")
