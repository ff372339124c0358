"""Stand-ins of two model providers: OpenAI's chat completions and Anthropic's messages, whole and streamed.

**No model answers here**: the text is fixed. Streams are server-sent events in pieces, with a pause between them, so
that a gate that buffers is found out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Final

import orjson
from aiohttp import web

from examples.standins.service import Credential, json_answer, json_object, new_app

WORDS: Final = ("This ", "is ", "a ", "stand-in, ", "not ", "a ", "model.")
PAUSE_SECONDS: Final = 0.01


def build_openai(secret: str | None = None) -> web.Application:
    """OpenAI's API. `secret` is the key it accepts as a bearer token."""
    app = new_app("openai", Credential("bearer", secret), _openai_unauthorised)
    app.router.add_post("/v1/chat/completions", _chat)
    app.router.add_post("/v1/embeddings", _embeddings)
    app.router.add_get("/v1/models", _openai_models)
    app.router.add_get("/v1/models/{model}", _openai_model)
    return app


def build_anthropic(secret: str | None = None) -> web.Application:
    """Anthropic's API. `secret` is the key it accepts in ``x-api-key`` or as a bearer token."""
    app = new_app("anthropic", Credential("header", secret, "x-api-key", or_bearer=True), _anthropic_unauthorised)
    app.router.add_post("/v1/messages", _messages)
    app.router.add_post("/v1/messages/count_tokens", _count_tokens)
    app.router.add_get("/v1/models", _anthropic_models)
    app.router.add_get("/v1/models/{model}", _anthropic_model)
    return app


def _openai_unauthorised(reason: str) -> web.Response:
    error = {"message": reason, "type": "invalid_request_error", "param": None, "code": "invalid_api_key"}
    return json_answer({"error": error}, status=401)


def _anthropic_unauthorised(reason: str) -> web.Response:
    error = {"type": "authentication_error", "message": reason}
    return json_answer({"type": "error", "error": error}, status=401)


async def _stream(request: web.Request, events: Sequence[bytes]) -> web.StreamResponse:
    answer = web.StreamResponse(headers={"Content-Type": "text/event-stream; charset=utf-8"})
    await answer.prepare(request)
    try:
        for event in events:
            await asyncio.sleep(PAUSE_SECONDS)
            await answer.write(event)
        await answer.write_eof()
    except ConnectionResetError:
        # Clients leave once they have seen the last event; the end of the body is of no use to them.
        request.protocol.force_close()
    return answer


def _event(document: dict[str, Any], name: str | None = None) -> bytes:
    head = b"event: " + name.encode() + b"\n" if name else b""
    return head + b"data: " + orjson.dumps(document) + b"\n\n"


async def _chat(request: web.Request) -> web.StreamResponse:
    asked = await json_object(request)
    common = {"id": "chatcmpl-standin", "created": 1_700_000_000, "model": asked.get("model", "")}
    if asked.get("stream") is not True:
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": "".join(WORDS), "refusal": None},
            "logprobs": None,
            "finish_reason": "stop",
        }
        usage = {"prompt_tokens": 9, "completion_tokens": len(WORDS), "total_tokens": 9 + len(WORDS)}
        return json_answer({**common, "object": "chat.completion", "choices": [choice], "usage": usage})
    events = []
    for position, word in enumerate(WORDS):
        delta = {"content": word} if position else {"role": "assistant", "content": word}
        choices = [{"index": 0, "delta": delta, "finish_reason": None}]
        events.append(_event({**common, "object": "chat.completion.chunk", "choices": choices}))
    choices = [{"index": 0, "delta": {}, "finish_reason": "stop"}]
    events.append(_event({**common, "object": "chat.completion.chunk", "choices": choices}))
    events.append(b"data: [DONE]\n\n")
    return await _stream(request, events)


async def _embeddings(request: web.Request) -> web.Response:
    asked = await json_object(request)
    data = [{"object": "embedding", "index": 0, "embedding": [0.0, 0.5, 1.0]}]
    usage = {"prompt_tokens": 3, "total_tokens": 3}
    return json_answer({"object": "list", "data": data, "model": asked.get("model", ""), "usage": usage})


def _openai_model_document(model: str) -> dict[str, Any]:
    return {"id": model, "object": "model", "created": 1_700_000_000, "owned_by": "stand-in"}


async def _openai_models(_request: web.Request) -> web.Response:
    return json_answer({"object": "list", "data": [_openai_model_document("stand-in-1")]})


async def _openai_model(request: web.Request) -> web.Response:
    return json_answer(_openai_model_document(request.match_info["model"]))


def _message(model: str, content: list[dict[str, Any]], stop_reason: str | None) -> dict[str, Any]:
    return {
        "id": "msg_standin",
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": content,
        "stop_reason": stop_reason,
        "stop_sequence": None,
        "usage": {"input_tokens": 9, "output_tokens": len(WORDS) if stop_reason else 1},
    }


async def _messages(request: web.Request) -> web.StreamResponse:
    if "anthropic-version" not in request.headers:
        error = {"type": "invalid_request_error", "message": "anthropic-version: header is required"}
        return json_answer({"type": "error", "error": error}, status=400)
    asked = await json_object(request)
    model = str(asked.get("model", ""))
    if asked.get("stream") is not True:
        return json_answer(_message(model, [{"type": "text", "text": "".join(WORDS)}], "end_turn"))
    steps: list[dict[str, Any]] = [
        {"type": "message_start", "message": _message(model, [], None)},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    ]
    steps += [
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": word}} for word in WORDS
    ]
    stopped = {"stop_reason": "end_turn", "stop_sequence": None}
    steps += [
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": stopped, "usage": {"output_tokens": len(WORDS)}},
        {"type": "message_stop"},
    ]
    return await _stream(request, [_event(step, step["type"]) for step in steps])


async def _count_tokens(_request: web.Request) -> web.Response:
    return json_answer({"input_tokens": 9})


def _anthropic_model_document(model: str) -> dict[str, Any]:
    return {"type": "model", "id": model, "display_name": "Stand-in", "created_at": "2026-01-01T00:00:00Z"}


async def _anthropic_models(_request: web.Request) -> web.Response:
    data = [_anthropic_model_document("stand-in-1")]
    return json_answer({"data": data, "has_more": False, "first_id": "stand-in-1", "last_id": "stand-in-1"})


async def _anthropic_model(request: web.Request) -> web.Response:
    return json_answer(_anthropic_model_document(request.match_info["model"]))
