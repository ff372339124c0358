"""OPA's bundle API as values: what a request asks for, what an answer says.

Guarantees: conditions and preferences are read as their RFCs say, and as OPA writes them; an answer about a bundle always
carries its ETag and may never be kept by a cache in between. Leaves storage and waiting to ``bundles.service``.
**Source**: OPA's bundle service API and ``v1/download/download.go``; RFC 9110 section 13.1; RFC 7240; RFC 3229 (deltas).
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from bundles.canonical import JsonValue, canonical_json
from bundles.dsse import ENVELOPE_MAX_BYTES
from bundles.errors import BundleRefused

BUNDLE_TYPE: Final = "application/vnd.openpolicyagent.bundles"
"""OPA takes this type as the sign that the service holds long polls."""
GZIP_TYPE: Final = "application/gzip"
BUNDLE_TYPES: Final = frozenset({BUNDLE_TYPE, GZIP_TYPE, "application/octet-stream"})
COSIGNATURES_HEADER: Final = "Tidegate-Cosignatures"
DELTA_TYPE: Final = "application/vnd.tidegate.bundle-delta+json"
DELTA_MANIPULATION: Final = "tidegate-delta"
"""What ``A-IM`` asks for and ``IM`` names. Not OPA's own delta, which stock OPA asks for in every ``Prefer``."""
DELTA_STATUS: Final = 226
WAIT_MAX_SECONDS: Final = 300

# OPA joins its preferences with ";" ("modes=snapshot,delta;wait=10"), RFC 7240 with ",": both end a value here.
_WAIT = re.compile(r"(?:^|[;,\s])wait=\"?([0-9]{1,6})\"?(?=$|[;,\s])", re.IGNORECASE)
_REFUSED_QUALITY = re.compile(r"q=0(?:\.0{0,3})?", re.IGNORECASE)
_ETAG = re.compile(r'(?:W/)?"([\x21\x23-\x7e]*)"')

_TITLES: Final[Mapping[str, tuple[int, str]]] = {
    "token_missing": (401, "A bearer token is needed"),
    "token_invalid": (401, "The bearer token is not accepted"),
    "publish_forbidden": (403, "This token may not publish here"),
    "not_found": (404, "There is no such bundle"),
    "method_not_allowed": (405, "The method is not allowed here"),
    "publish_conflict": (409, "The bundle is not newer than what is served"),
    "precondition_failed": (412, "Another bundle was published meanwhile"),
    "bundle_refused": (422, "The bundle is not accepted"),
    "storage_failed": (503, "The bundle could not be kept"),
    "storage_unconfirmed": (503, "Nobody can say whether the bundle is still in force"),
}


@dataclass(frozen=True, slots=True)
class ServiceRequest:
    """One request; header names are lower case. ``read_body`` is only awaited for who may publish."""

    method: str
    path: str
    headers: Mapping[str, str]
    read_body: Callable[[], Awaitable[bytes]]


@dataclass(frozen=True, slots=True)
class ServiceAnswer:
    """One answer; the listener adds framing."""

    status: int
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = field(default=b"", repr=False)


def wait_seconds(prefer: str) -> int | None:
    """How long the client lets its request wait for news, at most ``WAIT_MAX_SECONDS``; ``None`` when it asks once."""
    found = _WAIT.search(prefer)
    return min(int(found.group(1)), WAIT_MAX_SECONDS) if found is not None else None


def etag_of(digest: str) -> str:
    """A strong validator: the digest in quotes."""
    return f'"{digest}"'


def names_etag(condition: str, digest: str | None) -> bool:
    """Whether an ``If-Match`` or ``If-None-Match`` value covers what is served (``None``: nothing yet)."""
    if digest is None:
        return False
    return condition.strip() == "*" or digest in _ETAG.findall(condition)


def digests_in(condition: str) -> tuple[str, ...]:
    """The digests that an ``If-None-Match`` value names, in its order."""
    return tuple(_ETAG.findall(condition))


def asks_for_delta(a_im: str) -> bool:
    """Whether an ``A-IM`` value takes our deltas: the word in its list, without a quality of zero."""
    for entry in a_im.split(","):
        word, _, parameter = entry.partition(";")
        if word.strip().lower() == DELTA_MANIPULATION and not _REFUSED_QUALITY.fullmatch(parameter.strip()):
            return True
    return False


def encode_cosignatures(envelope: bytes) -> str:
    """An envelope as a header value."""
    return base64.b64encode(envelope).decode("ascii")


def decode_cosignatures(value: str | None) -> bytes | None:
    """The envelope in a header; raises ``cosignatures_invalid``."""
    if value is None:
        return None
    try:
        envelope = base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError) as refused:
        raise BundleRefused("cosignatures_invalid", "the header is not base64") from refused
    if len(envelope) > ENVELOPE_MAX_BYTES:
        raise BundleRefused("cosignatures_invalid", f"an envelope has at most {ENVELOPE_MAX_BYTES} bytes")
    return envelope


def problem(kind: str, detail: str = "", *, code: str | None = None) -> ServiceAnswer:
    """An RFC 9457 problem document; ``code`` is the finer word where there is one (``bundle_rollback``)."""
    status, title = _TITLES[kind]
    named = code or kind
    document: dict[str, JsonValue] = {
        "type": "urn:tidegate:problem:" + named.replace("_", "-"),
        "title": title,
        "status": status,
        "code": named,
        "detail": detail,
    }
    headers = [("Content-Type", "application/problem+json"), ("Cache-Control", "no-store")]
    if status == 401:
        headers.append(("WWW-Authenticate", 'Bearer realm="tidegate-bundles"'))
    return ServiceAnswer(status, tuple(headers), canonical_json(document))


def json_answer(document: Mapping[str, JsonValue], *, status: int = 200) -> ServiceAnswer:
    """A JSON answer that nobody keeps."""
    headers = (("Content-Type", "application/json"), ("Cache-Control", "no-store"))
    return ServiceAnswer(status, headers, canonical_json(dict(document)))
