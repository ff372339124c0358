"""What the door answers: `envoy.service.auth.v3.CheckResponse`, by its field numbers.

Guarantees: an answer that is not `allowed` is a denial with a status and a body of its own, never an error that Envoy's
`failure_mode_allow` could take for a yes; headers hold no line end.

**Source**: Envoy API v3, `service/auth/v3/external_auth.proto`, `config/core/v3/base.proto`; `google.rpc.Code`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from gateway.edge.headers import HeaderPairs
from gateway.envoy.wire import number_field, octets_field, text_field
from gateway.errors import GateMisuse

OK: Final = 0
PERMISSION_DENIED: Final = 7
UNAVAILABLE: Final = 14
UNAUTHENTICATED: Final = 16
_OVERWRITE_IF_EXISTS_OR_ADD: Final = 2

_STATUS, _DENIED, _ALLOWED = 1, 2, 3
_CODE = 1
_DENIED_STATUS, _DENIED_HEADERS, _DENIED_BODY = 1, 2, 3
_SET_HEADERS, _REMOVE_HEADERS, _ANSWER_HEADERS = 2, 5, 6
_HEADER, _APPEND_ACTION, _KEY, _VALUE = 1, 3, 1, 2


def _header_option(name: str, value: str) -> bytes:
    """Security: a line end inside a header would be a second header. (Envoy reads no raw value here.)"""
    if any(character in "\r\n\0" for character in name + value):
        raise GateMisuse("an answer's header holds a line end")
    header = text_field(_KEY, name) + text_field(_VALUE, value)
    return octets_field(_HEADER, header) + number_field(_APPEND_ACTION, _OVERWRITE_IF_EXISTS_OR_ADD)


def _status(code: int) -> bytes:
    return octets_field(_STATUS, number_field(_CODE, code) if code else b"")


def allowed(*, set_headers: HeaderPairs, remove_headers: Iterable[str], answer_headers: HeaderPairs) -> bytes:
    """Envoy may forward the request, with these headers put in or taken out; `answer_headers` go to the caller."""
    parts = [octets_field(_SET_HEADERS, _header_option(name, value)) for name, value in set_headers]
    parts += [text_field(_REMOVE_HEADERS, name) for name in remove_headers]
    parts += [octets_field(_ANSWER_HEADERS, _header_option(name, value)) for name, value in answer_headers]
    return _status(OK) + octets_field(_ALLOWED, b"".join(parts))


def denied(status: int, headers: HeaderPairs, body: bytes) -> bytes:
    """Envoy answers the caller itself, with this HTTP status, these headers and this body (UTF-8)."""
    parts = [octets_field(_DENIED_STATUS, number_field(_CODE, status))]
    parts += [octets_field(_DENIED_HEADERS, _header_option(name, value)) for name, value in headers]
    parts.append(octets_field(_DENIED_BODY, body))
    return _status(_code_of(status)) + octets_field(_DENIED, b"".join(parts))


def _code_of(status: int) -> int:
    if status == 401:
        return UNAUTHENTICATED
    return UNAVAILABLE if status >= 500 else PERMISSION_DENIED
