"""Requests as bytes: origin, target and head exactly as they were decided.

Guarantees: method, target and header fields go out octet for octet; framing is written here and nowhere else; nothing
in a value can end a line. Leaves to `connectors.outbound` which headers there are.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

from gateway.edge.fields import REMEMBERED_MAX_BYTES, HeaderFields
from gateway.errors import GateMisuse

_TOKEN: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_TARGET: Final = re.compile(r"/[!-~]*")
_LINES: Final = re.compile(r"[\t -~\x80-\xff\r\n]*")
_AUTHORITY: Final = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._-]+))(?::([0-9]{1,5}))?")
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}

# Framing, hop-by-hop fields and the target's own name: written here or never.
_OWN: Final = frozenset(
    {
        "connection",
        "content-length",
        "expect",
        "host",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
_WITH_BODY: Final = frozenset({"POST", "PUT", "PATCH"})


@dataclass(frozen=True, slots=True)
class Origin:
    """Scheme, host and port of an upstream; `authority` stands in the Host header, without the scheme's own port."""

    scheme: str
    host: str
    port: int
    authority: str = field(init=False, compare=False)

    def __post_init__(self) -> None:
        host = f"[{self.host}]" if ":" in self.host else self.host
        authority = host if _DEFAULT_PORTS[self.scheme] == self.port else f"{host}:{self.port}"
        object.__setattr__(self, "authority", authority)


@lru_cache(maxsize=1024)
def parse_origin(base: str) -> Origin:
    """The origin of `scheme://host[:port]`. Raises `GateMisuse`: base URLs come from the configuration."""
    scheme, _, authority = base.partition("://")
    match = _AUTHORITY.fullmatch(authority)
    scheme = scheme.lower()
    if scheme not in _DEFAULT_PORTS or match is None:
        raise GateMisuse("an upstream is an http or https URL with a host and no user information")
    port = int(match.group(3)) if match.group(3) else _DEFAULT_PORTS[scheme]
    if not 0 < port < 65_536:
        raise GateMisuse("the port of an upstream is out of range")
    return Origin(scheme, (match.group(1) or match.group(2)).lower(), port)


def split_url(url: str) -> tuple[Origin, str]:
    """Origin and request target of an absolute URL, the target untouched."""
    scheme_end = url.find("://")
    slash = url.find("/", scheme_end + 3)
    if scheme_end < 0 or slash < 0:
        raise GateMisuse("an upstream URL is absolute and has a path")
    return parse_origin(url[:slash]), url[slash:]


def declared_length(headers: Sequence[tuple[str, str]]) -> int | None:
    """The Content-Length among the headers, if it is one number."""
    values = {value.strip() for name, value in headers if name.lower() == "content-length"}
    if not values:
        return None
    value = values.pop()
    if values or re.fullmatch(r"[0-9]{1,18}", value) is None:
        raise GateMisuse("the declared length of a request body is no number")
    return int(value)


def encode_head(
    method: str, origin: Origin, target: str, headers: Sequence[tuple[str, str]], framing: str | None
) -> bytes:
    """The head of a request with its last line end.

    `framing` is the line that frames the body, or nothing. Raises `GateMisuse` for anything that would not be exactly
    one request.

    **Security**: request smuggling ends here; line ends, null bytes, spaces in the target and second framings cannot be
    written. **Source**: RFC 9112 §3 and §6.
    """
    if type(headers) is not HeaderFields:
        return _encoded(method, origin, target, headers, framing)
    question = ("head", method, origin.scheme, origin.authority, target, framing)
    known: bytes | None = headers.found.get(question)
    if known is None:
        known = _encoded(method, origin, target, headers, framing)
        if len(known) <= REMEMBERED_MAX_BYTES:
            headers.keep(question, known)
    return known


def _encoded(
    method: str, origin: Origin, target: str, headers: Sequence[tuple[str, str]], framing: str | None
) -> bytes:
    if _TOKEN.fullmatch(method) is None or _TARGET.fullmatch(target) is None:
        raise GateMisuse("method or target cannot be written as one request line")
    lines = [f"{method} {target} HTTP/1.1", f"Host: {origin.authority}"]
    for name, value in headers:
        if _is_written(name):
            lines.append(f"{name}: {value}")
    if framing is not None:
        lines.append(framing)
    text = "\r\n".join(lines)
    ends = len(lines) - 1
    if _LINES.fullmatch(text) is None or text.count("\n") != ends or text.count("\r") != ends:
        raise GateMisuse("a header cannot be written as one line")
    return text.encode("latin-1") + b"\r\n\r\n"


@lru_cache(maxsize=1024)
def _is_written(name: str) -> bool:
    """Whether a header of this name goes out: those that are written here do not."""
    if name.lower() in _OWN:
        return False
    if _TOKEN.fullmatch(name) is None:
        raise GateMisuse("a header cannot be written as one line")
    return True


def body_framing(method: str, body_bytes: int | None) -> str | None:
    """The framing line of a body of known length; methods that carry content say so even when it is empty."""
    if body_bytes is None:
        return "Content-Length: 0" if method in _WITH_BODY else None
    return f"Content-Length: {body_bytes}"
