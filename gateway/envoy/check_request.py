"""What Envoy asks: the parts of `envoy.service.auth.v3.CheckRequest` that the door reads, by their field numbers.

Guarantees: headers and body are the octets that Envoy will forward, or the question is refused: texts that Envoy mends
before it sends them (its header map joins repeated headers and replaces octets that are no UTF-8) are not decided on. A body
that was cut, or of which only the announcement came, is refused. Leaves to `question` which instance is meant.

**Source**: Envoy API v3, `service/auth/v3/external_auth.proto`, `attribute_context.proto` and `config/core/v3/base.proto`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from gateway.edge.headers import HeaderPairs
from gateway.edge.problem import refusal
from gateway.envoy.wire import Message, WireError

PARTIAL_BODY: Final = "x-envoy-auth-partial-body"
"""What Envoy adds to the question when it held a body: `true` when only its beginning was sent."""

_ATTRIBUTES, _REQUEST, _CONTEXT_EXTENSIONS, _HTTP = 1, 4, 10, 2
_METHOD, _PATH, _HOST, _BODY, _RAW_BODY, _HEADER_MAP = 2, 4, 5, 11, 12, 13
_MAP_HEADERS, _KEY, _VALUE, _RAW_VALUE = 1, 1, 2, 3


class CheckRequest(NamedTuple):
    """A request that Envoy holds: as it will be forwarded, and what the route's configuration says about it.

    `headers` have lower-case names and no pseudo-headers; `target` is the path with its query.
    """

    method: str
    target: str
    host: str
    headers: HeaderPairs
    body: bytes
    route: Mapping[str, str]


def read_check(raw: bytes, *, headers_max_count: int) -> CheckRequest:
    """Read a question. Raises a refusal `malformed_request`, `headers_too_large` or `body_too_large`."""
    try:
        attributes = Message(raw).message(_ATTRIBUTES)
        http = attributes.message(_REQUEST).message(_HTTP)
        headers = _headers(http, headers_max_count)
        route = attributes.text_map(_CONTEXT_EXTENSIONS)
        target, host, method = http.text(_PATH), http.text(_HOST), http.text(_METHOD)
        text_body, body = http.octets(_BODY), http.octets(_RAW_BODY)
    except WireError as error:
        raise refusal("malformed_request", f"the question is no CheckRequest: {error}") from error
    if text_body:
        raise refusal("malformed_request", "the body came as text that may have been mended: set pack_as_bytes: true")
    kept = _checked_body(headers, body)
    return CheckRequest(method, target, host, kept, body, route)


def _headers(http: Message, headers_max_count: int) -> HeaderPairs:
    if not http.has(_HEADER_MAP):
        raise refusal("malformed_request", "the headers came joined and mended: set encode_raw_headers: true")
    entries = http.message(_HEADER_MAP).messages(_MAP_HEADERS)
    if len(entries) > headers_max_count:
        raise refusal("headers_too_large", f"the request has more than {headers_max_count} headers")
    pairs = []
    for entry in entries:
        name = entry.text(_KEY).lower()
        value = entry.octets(_RAW_VALUE) or entry.octets(_VALUE)
        if not name.startswith(":"):
            pairs.append((name, value.decode("latin-1")))
    return tuple(pairs)


def _checked_body(headers: HeaderPairs, body: bytes) -> HeaderPairs:
    """The caller's own headers, once it is known that the body is whole.

    **Security**: the caller can send Envoy's header too, and only make matters worse with it: `true` is believed, and a
    length or coding that the body does not bear out is refused whatever else is said.
    """
    if any(name == PARTIAL_BODY and value != "false" for name, value in headers):
        raise refusal("body_too_large", "Envoy sent only the beginning of the body")
    for name, value in headers:
        if name == "content-length" and value != str(len(body)):
            raise refusal("malformed_request", "the body did not come with the question: set with_request_body")
        if name == "transfer-encoding" and not body:
            raise refusal("malformed_request", "a chunked body came without its content: set with_request_body")
    return tuple([pair for pair in headers if pair[0] != PARTIAL_BODY])
