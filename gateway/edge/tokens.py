"""Where in a request the caller's token stands.

Guarantees: exactly one token is found, at a place that the manifest names, and no other credential is in the request.
Leaves to `identity` whether the token is good, to `connectors.outbound` its removal.

Places: `bearer` and `token` (schemes of `Authorization`), `basic_password` (or `basic`), `x-api-key`, `api-key` or any
`header:NAME`, `query:NAME`, `form:NAME`, and `ticket` (the query parameter of an upload ticket). A service may take a
credential in `cookie:NAME` too; a caller's token is never looked for there.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

from gateway.edge.fields import HeaderFields
from gateway.edge.problem import refusal
from gateway.errors import GateMisuse, Refusal

TICKET_PARAMETER = "tidegate_ticket"

Pairs = Sequence[tuple[str, str]]

ANY_PLACE = ("bearer", "token", "basic_password", "x-api-key", "api-key")
"""Where clients put a token in the head, for a request to an instance that names no place because there is none."""

_SCHEMES = {"bearer": "bearer", "token": "token", "basic": "basic_password"}
_ALIASES = {"basic": "basic_password", "x-api-key": "header:x-api-key", "api-key": "header:api-key"}
_AUTHORIZATION = frozenset(_SCHEMES.values())


class FoundToken(NamedTuple):
    """A token as it came, unverified, and the place (as the manifest names it) where it stood."""

    token: str
    place: str


def needs_form(places: Sequence[str], credential_places: Sequence[str] = ()) -> bool:
    """Whether finding the token takes the fields of a form body."""
    return any(place.startswith("form:") for place in (*places, *credential_places))


def find_token(
    headers: Pairs, query: Pairs, form: Pairs | None, places: Sequence[str], credential_places: Sequence[str] = ()
) -> FoundToken:
    """The caller's token.

    `headers` have lower-case names; `form` is given when the body is a form. Raises a refusal `identity_missing` when
    no place holds one, `identity_invalid` when one cannot be read, `malformed_request` when two differ or when a
    credential stands anywhere else.

    Security: security rule 6. A second credential could make the service act as somebody else than was decided. Where a
    token is looked for is not said to who brings none: it would tell which services stand behind the gate.
    """
    if query or form is not None or type(headers) is not HeaderFields:
        return _found(headers, query, form, tuple(places), tuple(credential_places))
    question = ("token", tuple(places), tuple(credential_places))
    known: FoundToken | None = headers.found.get(question)
    if known is None:
        known = _found(headers, query, form, *question[1:])
        headers.keep(question, known)
    return known


def _found(
    headers: Pairs, query: Pairs, form: Pairs | None, places: tuple[str, ...], credential_places: tuple[str, ...]
) -> FoundToken:
    accepted, beside, refused = _searched(places, credential_places)
    found: list[FoundToken] = []
    _from_authorization(headers, accepted, found)
    for place in beside:
        found.extend(FoundToken(value, accepted[place]) for value in _values(place, headers, query, form))
    if query and "ticket" not in accepted and any(key == TICKET_PARAMETER for key, _ in query):
        raise _elsewhere()
    for place in refused:
        if _values(place, headers, query, form):
            raise _elsewhere()
    if not found:
        raise refusal("identity_missing", "no Tidegate token stands where this service's clients put their secret")
    if any(other.token != found[0].token for other in found[1:]):
        raise refusal("malformed_request", "the request carries two different tokens")
    if not found[0].token:
        raise refusal("identity_missing", "the token is empty")
    return found[0] if len(found) == 1 else _to_strip(found)


def _to_strip(found: list[FoundToken]) -> FoundToken:
    """Of one token that stands several times, the one whose place has to be cut out of what goes on.

    Headers that hold tokens never go on. Security: a place that nobody cuts out would carry the token to the service.
    """
    inside = [other for other in found if other.place == "ticket" or other.place.startswith(("query:", "form:"))]
    if any(other.place != inside[0].place for other in inside):
        raise refusal("malformed_request", "the request carries its token in several places")
    return (inside or found)[0]


class _Searched(NamedTuple):
    """The places of one manifest: those a token is taken from, by their names in the manifest, the ones among them beside
    `Authorization`, and those that nothing may stand at."""

    accepted: Mapping[str, str]
    beside: tuple[str, ...]
    refused: tuple[str, ...]


@lru_cache(maxsize=1024)
def _searched(places: tuple[str, ...], credential_places: tuple[str, ...]) -> _Searched:
    accepted = {_ALIASES.get(place, place): place for place in places}
    known = (_ALIASES.get(place, place) for place in credential_places)
    refused = tuple(place for place in known if place not in accepted and place not in _AUTHORIZATION)
    return _Searched(accepted, tuple(place for place in accepted if place not in _AUTHORIZATION), refused)


def _elsewhere() -> Refusal:
    return refusal("malformed_request", "a credential stands where this instance takes none from its callers")


def _from_authorization(headers: Pairs, accepted: Mapping[str, str], found: list[FoundToken]) -> None:
    for name, value in headers:
        if name != "authorization":
            continue
        if "header:authorization" in accepted:
            continue
        scheme, _, credentials = value.strip().partition(" ")
        place = _SCHEMES.get(scheme.lower())
        if place is None or place not in accepted:
            raise _elsewhere()
        credentials = credentials.strip()
        found.append(FoundToken(_password(credentials) if place == "basic_password" else credentials, accepted[place]))


def _password(credentials: str) -> str:
    """Source: RFC 7617 §2."""
    try:
        pair = base64.b64decode(credentials, validate=True).decode("utf-8")
    except (binascii.Error, UnicodeDecodeError, ValueError) as error:
        raise refusal("identity_invalid", "the basic credentials cannot be read") from error
    _, colon, password = pair.partition(":")
    if not colon:
        raise refusal("identity_invalid", "the basic credentials hold no password")
    return password


def _values(place: str, headers: Pairs, query: Pairs, form: Pairs | None) -> list[str]:
    kind, _, name = place.partition(":")
    if kind == "ticket":
        return [value for key, value in query if key == TICKET_PARAMETER]
    if kind == "header":
        return [value.strip() for key, value in headers if key == name.lower()]
    if kind == "query":
        return [value for key, value in query if key == name]
    if kind == "form":
        return [value for key, value in form or () if key == name]
    if kind == "cookie":
        return _cookies(name.lower(), headers)
    raise GateMisuse(f"a manifest names an unknown place for credentials: {place}")


def _cookies(name: str, headers: Pairs) -> list[str]:
    """Values of cookies of a lower-case name, read in the widest sense: in any case, quoted, and behind commas too.

    Source: RFC 6265 §5.4, RFC 2109 §4.3.4 (which some servers still read).
    """
    held = [value for key, value in headers if key == "cookie" and name in value.lower()]
    crumbs = [crumb for value in held for crumb in value.replace(",", ";").split(";")]
    pairs = [crumb.partition("=") for crumb in crumbs]
    return [value.strip() for key, _, value in pairs if key.strip(' \t"').lower() == name]
