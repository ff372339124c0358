"""Headers, query and form on their way out, and headers on their way back.

Guarantees: only headers on the manifest's allow-list go out; what `Connection` names, cookies, hop-by-hop fields and
the caller's token go nowhere; the instance's credential is put in last, where nothing of the caller's can stand.
Answers lose hop-by-hop fields and cookies and gain the sandbox that keeps them apart from the console. Leaves to
`credentials` where the credential comes from, to `rewrite` the URLs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from bundles.manifest import ConnectorManifest
from gateway.connectors.bodies import parse_form
from gateway.edge.fields import HeaderFields
from gateway.edge.headers import HeaderPairs, connection_nominated
from gateway.edge.problem import refusal
from gateway.edge.tokens import TICKET_PARAMETER, FoundToken

HOP_BY_HOP: Final = frozenset(
    {
        "connection",
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
ALWAYS_FORWARDED: Final = frozenset({"accept", "content-type"})
OPTIONAL: Final = frozenset({"cookie", "idempotency-key", "prefer"})
"""Forwarded only where a manifest names them."""
NEVER_FORWARDED: Final = HOP_BY_HOP | {
    "accept-encoding",
    "authorization",
    "content-length",
    "cookie",
    "expect",
    "forwarded",
    "host",
    "idempotency-key",
    "prefer",
    "via",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-real-ip",
}
NEVER_RETURNED: Final = HOP_BY_HOP | {
    "alt-svc",
    "clear-site-data",
    "content-length",
    "content-security-policy",
    "content-security-policy-report-only",
    "refresh",
    "service-worker-allowed",
    "set-cookie",
    "set-cookie2",
    "strict-transport-security",
    "www-authenticate",
    "x-content-type-options",
}
SANDBOX: Final[HeaderPairs] = (
    ("content-security-policy", "sandbox"),
    ("x-content-type-options", "nosniff"),
)
_TOKEN_HEADERS = {
    "bearer": "authorization",
    "token": "authorization",
    "basic": "authorization",
    "basic_password": "authorization",
    "x-api-key": "x-api-key",
    "api-key": "api-key",
}


@dataclass(frozen=True, slots=True)
class HeaderPolicy:
    """The header rules of one manifest, compiled once per instance."""

    allowed: frozenset[str]
    dropped_answers: frozenset[str]


def header_policy(manifest: ConnectorManifest) -> HeaderPolicy:
    """Compile the allow-list of `manifest`.

    Every header in which the service takes a credential is off the list whatever the manifest says; `Cookie` and
    `Idempotency-Key` pass only where the manifest names them.
    """
    named = frozenset(manifest.request_headers)
    places = (*manifest.caller_token, *manifest.credential_places)
    credential_headers = {header for place in places if (header := header_of_place(place))}
    if manifest.auth.header is not None:
        credential_headers.add(manifest.auth.header)
    never = (NEVER_FORWARDED - (OPTIONAL & named)) | credential_headers
    allowed = frozenset(
        name for name in ALWAYS_FORWARDED | named if name not in never and not name.startswith("tidegate-")
    )
    return HeaderPolicy(allowed, NEVER_RETURNED | frozenset(manifest.response_headers_drop))


def header_of_place(place: str) -> str | None:
    """The lower-case header in which a place of a credential stands, or None for query, form, cookie and ticket."""
    kind, _, name = place.partition(":")
    if kind == "header":
        return name.lower()
    return _TOKEN_HEADERS.get(place)


def forward_headers(headers: HeaderPairs, policy: HeaderPolicy) -> HeaderFields:
    """The caller's headers that go on, in their order, names in lower case.

    The caller's token is never among them: no header that can hold one is on the list. The upstream is asked for
    uncompressed answers, so that they can be read on the way back.

    **Security**: security rule 1; headers nominated by `Connection` are dropped before anything is injected, so that a
    caller cannot have the injected credential stripped by the next hop.
    """
    question = ("forwarded", policy.allowed)
    known: HeaderFields | None = headers.found.get(question) if type(headers) is HeaderFields else None
    if known is None:
        nominated = connection_nominated(headers)
        allowed = policy.allowed - nominated if nominated else policy.allowed
        known = HeaderFields((*[pair for pair in headers if pair[0] in allowed], ("accept-encoding", "identity")))
        if type(headers) is HeaderFields:
            headers.keep(question, known)
    return known


def inject(headers: HeaderPairs, credential: HeaderPairs) -> HeaderPairs:
    """`headers` with the instance's `credential` headers, which replace whatever has their name."""
    if not credential:
        return headers
    question = ("injected", credential)
    known: HeaderFields | None = headers.found.get(question) if type(headers) is HeaderFields else None
    if known is None:
        names = {name for name, _ in credential}
        known = HeaderFields((*[pair for pair in headers if pair[0] not in names], *credential))
        if type(headers) is HeaderFields:
            headers.keep(question, known)
    return known


def strip_query(raw_query: str, query: tuple[tuple[str, str], ...], found: FoundToken | None) -> str:
    """`raw_query` without the caller's token or ticket, every other byte as it came.

    `query` holds the decoded pairs of `raw_query`, in order.
    """
    if not raw_query:
        return raw_query
    name = _name_in(found, "query")
    if found is not None and found.place == "ticket":
        name = TICKET_PARAMETER
    if name is None:
        return raw_query
    parts = raw_query.split("&")
    return "&".join(part for part, (key, _) in zip(parts, query, strict=True) if key != name)


def without_token(query: tuple[tuple[str, str], ...], found: FoundToken | None) -> tuple[tuple[str, str], ...]:
    """The decoded pairs without the caller's token or ticket: what `gather` and classification see."""
    if not query:
        return query
    name = TICKET_PARAMETER if found is not None and found.place == "ticket" else _name_in(found, "query")
    return query if name is None else tuple(pair for pair in query if pair[0] != name)


def strip_form(raw: bytes, found: FoundToken | None) -> bytes:
    """A form body without the caller's token, every other byte as it came.

    Raises `Refusal` ``malformed_request`` for a form that has no single reading.
    """
    name = _name_in(found, "form")
    if name is None or not raw:
        return raw
    pairs = parse_form(raw)
    return b"&".join(part for part, (key, _) in zip(raw.split(b"&"), pairs, strict=True) if key != name)


def _name_in(found: FoundToken | None, kind: str) -> str | None:
    if found is None:
        return None
    place_kind, colon, name = found.place.partition(":")
    return name if colon and place_kind == kind else None


def kept_response_headers(lowered: Sequence[tuple[str, str]], policy: HeaderPolicy) -> HeaderPairs:
    """The upstream's headers that reach the caller, with the sandbox added. Names are in lower case already.

    `Content-Length` is the server's to set; `tidegate-` names are the gate's alone; a challenge of the upstream is about
    the gate's credential, not the caller's.

    **Security**: security rule 18; cookies and `SameSite` ignore ports, so an answer under ``/c/`` must never act in the
    origin of the console.
    """
    nominated = connection_nominated(lowered)
    dropped = policy.dropped_answers | nominated if nominated else policy.dropped_answers
    kept = [pair for pair in lowered if pair[0] not in dropped and not pair[0].startswith("tidegate-")]
    return (*kept, *SANDBOX)


def check_coding(value: str) -> None:
    """Raise `Refusal` ``upstream_failed`` for a `Content-Encoding` that compresses."""
    if value.strip().lower() not in ("", "identity"):
        raise refusal("upstream_failed", "the service compressed its answer although it was asked not to")
