"""The head of a request: its value type, what is refused on sight, and the preferences it states.

Guarantees: after `check_head` no header can change the method, the framing, the coding or the protocol of the request,
and no header that must stand alone stands twice. Leaves to `connectors.outbound` which headers go on, and to `server`
the limits on size and count.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from gateway.edge.fields import HeaderFields
from gateway.edge.problem import refusal
from gateway.edge.url import CanonicalTarget
from pdp.value import Value

HeaderPairs = tuple[tuple[str, str], ...]

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
METHOD_OVERRIDES = frozenset(
    {"x-http-method-override", "x-http-method", "x-method-override", "x-original-method", "_method"}
)
TARGET_OVERRIDES = frozenset({"x-original-url", "x-rewrite-url", "x-original-uri"})
SINGLE = frozenset(
    {
        "authorization",
        "content-encoding",
        "content-length",
        "content-location",
        "content-type",
        "expect",
        "host",
        "idempotency-key",
        "tidegate-reason",
        "tidegate-run",
        "tidegate-ticket",
        "traceparent",
        "transfer-encoding",
    }
)
READ_HERE: Final = SINGLE | {"api-key", "cookie", "prefer", "x-api-key"}
"""What `Connection` may not take away: the gate reads it, or what was decided depends on it."""
PREFER_MAX_CHARACTERS: Final = 1_024
"""A longer statement of preferences states none."""
_OVERRIDES = METHOD_OVERRIDES | TARGET_OVERRIDES
_NOT_ACCEPTED = frozenset({"upgrade", "trailer", "http2-settings"})
_WATCHED = _OVERRIDES | _NOT_ACCEPTED | SINGLE | {"proxy-connection", "connection"}

_CHARSET = re.compile(r";\s*charset\s*=\s*\"?([^\";\s]*)\"?", re.IGNORECASE)
_PREFERENCE = re.compile(r"(?:[^,\"]++|\"[^\"]*+\"?+)++")
_WAIT_SECONDS = re.compile(r"[0-9]{1,6}")
_LENGTH = re.compile(r"[0-9]{1,18}")


class RequestHead(Value, frozen=True):
    """Method, target and headers of one request; header names are lower case, in their order, values as they came."""

    method: str
    target: CanonicalTarget
    headers: HeaderPairs

    def get(self, name: str) -> str | None:
        """The first value of a header by its lower-case name."""
        for candidate, value in self.headers:
            if candidate == name:
                return value
        return None


@dataclass(frozen=True, slots=True)
class Prefer:
    """What the client would like: how long to wait, and whether an answer may come later."""

    wait_seconds: int | None = None
    respond_async: bool = False


NO_PREFERENCE = Prefer()
# What is asked of fields here and kept with them.
_CHECKED, _HOST, _PREFER = "checked", "host", "prefer"
_NONE: frozenset[str] = frozenset()


def check_head(head: RequestHead) -> None:
    """Raise a refusal `malformed_request` or `method_not_allowed` for a head that the gate never forwards.

    Security: security rule 1. Overriding methods and targets, ambiguous framing, compressed bodies, trailers, upgrades
    and foreign charsets would let the service read another request than the one that was decided.
    Source: RFC 9110 §5.3 and §9.3.8, RFC 9112 §6.1.
    """
    if head.method not in METHODS:
        raise refusal("method_not_allowed", "the method is none of " + ", ".join(sorted(METHODS)))
    fields = head.headers
    if type(fields) is not HeaderFields:
        _check_fields(fields)
    elif _CHECKED not in fields.found:
        _check_fields(fields)
        fields.keep(_CHECKED, True)


def _check_fields(headers: HeaderPairs) -> None:
    watched: dict[str, str] = {}
    for name, value in headers:
        if name in _WATCHED:
            if name in watched and name in SINGLE:
                raise refusal("malformed_request", f"the header {name} stands more than once")
            watched[name] = f"{watched[name]},{value}" if name in watched else value
    if watched:
        _check_watched(watched)


def _check_watched(watched: dict[str, str]) -> None:
    if not _OVERRIDES.isdisjoint(watched):
        name = next(name for name in watched if name in _OVERRIDES)
        raise refusal("malformed_request", f"the header {name} would change the request")
    if not _NOT_ACCEPTED.isdisjoint(watched):
        name = next(name for name in watched if name in _NOT_ACCEPTED)
        raise refusal("malformed_request", f"the header {name} is not accepted")
    _check_framing(watched)
    if "connection" in watched:
        _check_nominated(watched["connection"])
    coding = watched.get("content-encoding")
    if coding is not None and coding.strip().lower() not in ("identity", ""):
        raise refusal("malformed_request", "a request body may not be compressed")
    content_type = watched.get("content-type")
    if content_type is not None and "charset" in content_type.lower():
        charsets = _CHARSET.findall(content_type)
        if len(charsets) != 1 or charsets[0].lower() not in ("utf-8", "utf8"):
            raise refusal("malformed_request", "the charset of a body is UTF-8")
    expected = watched.get("expect")
    if expected is not None and expected.strip().lower() != "100-continue":
        raise refusal("malformed_request", "the header expect names something else than 100-continue")


def _check_nominated(connection: str) -> None:
    """Security: without its type, the body that was decided as JSON is read as a form by a service that guesses.

    Source: RFC 9110 §7.6.1: a field that is meant for every recipient must not be nominated.
    """
    if not READ_HERE.isdisjoint(option.strip().lower() for option in connection.split(",")):
        raise refusal("malformed_request", "Connection names a header that belongs to the request")


def _check_framing(watched: dict[str, str]) -> None:
    coding = watched.get("transfer-encoding")
    length = watched.get("content-length")
    if coding is not None and length is not None:
        raise refusal("malformed_request", "Content-Length and Transfer-Encoding exclude each other")
    if coding is not None and coding.strip().lower() != "chunked":
        raise refusal("malformed_request", "the only transfer coding is chunked")
    if length is not None and _LENGTH.fullmatch(length) is None:
        raise refusal("malformed_request", "Content-Length is no number")


def check_host(
    headers: HeaderPairs, hosts: frozenset[str], reached: Callable[[], frozenset[str]] = frozenset[str]
) -> None:
    """Raise `malformed_request` unless exactly one Host header names one of `hosts` (lower case, with port if any).

    `reached` is asked for further hosts when none of these fits.

    Security: security rule 18; keeps a page in a browser from reaching the gate by a name that it rebinds.
    """
    named = headers.found.get(_HOST) if type(headers) is HeaderFields else None
    if named is None:
        named = _host(headers)
        if type(headers) is HeaderFields:
            headers.keep(_HOST, named)
    if named not in hosts and named not in reached():
        raise refusal("malformed_request", "the Host header names no host of this listener")


def _host(headers: HeaderPairs) -> str:
    """The one host that the head names; empty, which no listener is called, when there are none or several."""
    found = [value for name, value in headers if name == "host"]
    return found[0].strip().lower() if len(found) == 1 else ""


def connection_nominated(headers: Iterable[tuple[str, str]]) -> frozenset[str]:
    """Names of headers that `Connection` makes hop-by-hop; they are dropped before anything is injected.

    Source: RFC 9110 §7.6.1.
    """
    named = [value for name, value in headers if name == "connection"]
    if not named:
        return _NONE
    return frozenset(option.strip().lower() for value in named for option in value.split(",") if option.strip())


def prefer(headers: Iterable[tuple[str, str]]) -> Prefer:
    """The preferences `wait=N` and `respond-async`; the first of a kind counts, what is unknown is ignored.

    Security: this is read before anybody is identified, so in linear time and never more than `PREFER_MAX_CHARACTERS`.
    Source: RFC 7240 §2.
    """
    if type(headers) is not HeaderFields:
        return _preferred(headers)
    known: Prefer | None = headers.found.get(_PREFER)
    if known is None:
        known = _preferred(headers)
        headers.keep(_PREFER, known)
    return known


def _preferred(headers: Iterable[tuple[str, str]]) -> Prefer:
    values = [value for name, value in headers if name == "prefer"]
    if not values or sum(map(len, values)) > PREFER_MAX_CHARACTERS:
        return NO_PREFERENCE
    wait_seconds: int | None = None
    seen: set[str] = set()
    for value in values:
        for preference in _PREFERENCE.findall(value):
            name, raw_wait = _preference(preference)
            if name in seen:
                continue
            seen.add(name)
            if name == "wait":
                wait_seconds = int(raw_wait) if _WAIT_SECONDS.fullmatch(raw_wait) else None
    return Prefer(wait_seconds, "respond-async" in seen)


def _preference(raw: str) -> tuple[str, str]:
    """Name in lower case and value, less quotes, of one preference; its parameters are nobody's."""
    name, _, value = raw.partition("=")
    if ";" in name:
        name, value = name.partition(";")[0], ""
    value = value.strip()
    value = value[1:].partition('"')[0] if value.startswith('"') else value.partition(";")[0].strip()
    return name.strip().lower(), value
