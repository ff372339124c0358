"""Head and body of a request as the flow reads them from the server.

Guarantees: a body is read whole only up to a limit, streamed otherwise; a body that ends early, is cut, malformed or
too slow is a refusal. Leaves deadlines to `server`, parsing to `connectors.arguments`.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator

from aiohttp import web
from aiohttp.web_protocol import RequestPayloadError

from gateway.edge.fields import header_fields
from gateway.edge.headers import HeaderPairs, RequestHead, check_host
from gateway.edge.problem import refusal
from gateway.edge.url import URI_MAX_BYTES, canonical_path, origin_form
from gateway.hosts import own_hosts

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


def request_head(
    request: web.BaseRequest,
    *,
    uri_max_bytes: int = URI_MAX_BYTES,
    separators_below: str | None = None,
    names: re.Pattern[str] | None = None,
) -> RequestHead:
    """The head of a request in its canonical reading; below the path `separators_below` one segment deep, encoded
    separators are left to classification. The last segment of a path that `names` matches whole is text.

    Raises the refusals of `canonical_path` and `origin_form`; `admit_host` and `check_head` are the caller's next steps.
    """
    raw_target = request.raw_path
    if not raw_target.startswith("/"):
        raw_target = origin_form(raw_target, request.headers.get("Host"))
    separators_from = text_from = None
    if "%" in raw_target:
        if separators_below is not None and raw_target.startswith(separators_below):
            separators_from = separators_below.count("/")
        elif names is not None and names.fullmatch(raw_target.partition("?")[0]) is not None:
            text_from = raw_target.partition("?")[0].count("/") - 1
    target = canonical_path(
        raw_target, uri_max_bytes=uri_max_bytes, separators_from=separators_from, text_from=text_from
    )
    return RequestHead(request.method, target, header_fields(request.raw_headers))


def admit_host(request: web.BaseRequest, headers: HeaderPairs, hosts: frozenset[str]) -> None:
    """Raise `malformed_request` unless `Host` is one of `hosts` or the very address that the connection came to.

    `headers` have lower-case names. The address matters where a listener takes every address of its machine.
    """

    def reached() -> frozenset[str]:
        transport = request.transport
        place = transport.get_extra_info("sockname") if transport is not None else None
        return own_hosts(str(place[0]), int(place[1])) if isinstance(place, tuple) else frozenset()

    check_host(headers, hosts, reached)


def has_body(request: web.BaseRequest) -> bool:
    """Whether the request's framing announces a body."""
    return request.can_read_body or not request.content.at_eof()


def body_at_hand(request: web.BaseRequest, max_bytes: int) -> bytes | None:
    """The whole body if it came with the head and has at most `max_bytes`; else nothing is taken."""
    content = request.content
    if not content.is_eof() or content.exception() is not None or content.total_bytes > max_bytes:
        return None
    return content.read_nowait()


async def read_body(request: web.BaseRequest, max_bytes: int) -> bytes:
    """The whole body, at most `max_bytes` long.

    Raises refusals `body_too_large`, `too_slow` and `malformed_request` (ended early, or trailers).
    """
    declared = request.content_length
    if declared is not None and declared > max_bytes:
        raise refusal("body_too_large", f"the body is larger than {max_bytes} bytes")
    whole = body_at_hand(request, max_bytes)
    if whole is not None:
        return whole
    chunks: list[bytes] = []
    size = 0
    async for chunk in stream_body(request):
        size += len(chunk)
        if size > max_bytes:
            raise refusal("body_too_large", f"the body is larger than {max_bytes} bytes")
        chunks.append(chunk)
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


async def stream_body(request: web.BaseRequest) -> AsyncIterator[bytes]:
    """The body in pieces as they come, without buffering beyond the connection's window.

    Raises the refusals of `read_body` except `body_too_large`.

    Source: RFC 9110 §10.1.1: the interim answer 100 goes out when the body is first wanted, and never before.
    """
    content = request.content
    if not content.is_eof() and request.headers.get("Expect", "").lower() == "100-continue":
        if request.transport is not None and not content.total_bytes:
            request.transport.write(_CONTINUE)
    while True:
        try:
            chunk = await content.readany()
        except (RequestPayloadError, ConnectionError) as error:
            raise refusal("malformed_request", "the body ended early") from error
        if chunk:
            yield chunk
        elif content.at_eof():
            return


async def bounded_body(request: web.BaseRequest, max_bytes: int) -> AsyncIterator[bytes]:
    """As `stream_body`, at most `max_bytes` in all; one more is `body_too_large`."""
    size = 0
    async for piece in stream_body(request):
        size += len(piece)
        if size > max_bytes:
            raise refusal("body_too_large", f"the body of this action is at most {max_bytes} bytes")
        yield piece
