"""Who asks: a signed token becomes a `Subject`, or the call ends with 401.

Guarantees: a `Subject` exists only for a token whose signature, issuer, audience, times, lifetime, tenant and roles all
hold against an issuer of the configuration. Leaves to `tokens` where in a request the token stands, to `jwks` where the
keys come from, to policy what the subject may do.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Protocol

import jwt
from jwt.algorithms import AllowedPublicKeys
from jwt.api_jws import PyJWS

from bundles.canonical import JsonValue, StrictJsonError, parse_strict
from gateway.edge.problem import refusal
from gateway.errors import GateError, GateMisuse, Refusal

ALGORITHMS: Final = frozenset(
    {"EdDSA", "ES256", "ES384", "ES512", "PS256", "PS384", "PS512", "RS256", "RS384", "RS512"}
)
TOKEN_MAX_BYTES: Final = 8_192
NAME_MAX_CHARACTERS: Final = 256
ROLES_MAX_COUNT: Final = 64
ACTORS_MAX_COUNT: Final = 8
CACHE_MAX_ENTRIES: Final = 4_096

_TOKEN_TYPES = frozenset({"jwt", "at+jwt", "application/at+jwt"})
_JWS = PyJWS(algorithms=sorted(ALGORITHMS))


@dataclass(frozen=True, slots=True)
class Subject:
    """Who acts. `id` is the current actor; `on_behalf_of` the one it acts for, if somebody else.

    `actors` are all delegated actors, outermost first; `people` is true only for a person who acts for themself.
    """

    id: str
    type: str
    issuer: str
    tenant: str
    workspace: str
    environment: str
    roles: tuple[str, ...]
    acr: str | None
    amr: tuple[str, ...]
    auth_time: int | None
    on_behalf_of: str | None
    actors: tuple[str, ...]
    people: bool
    expires_at: int

    @property
    def standing(self) -> tuple[str, str, str | None, str]:
        """As whom within a tenant and workspace: what is kept for one standing is for no other.

        **Security**: an actor's answers for one person are not for another whom the same actor acts for.
        """
        return (self.issuer, self.id, self.on_behalf_of, self.environment)


@dataclass(frozen=True, slots=True)
class IssuerPolicy:
    """What one issuer of the configuration may assert.

    `tenants` may be `("*",)` only with `development`. `roles=None` admits every role for a development issuer and none
    for any other.
    """

    issuer: str
    audience: str
    algorithms: tuple[str, ...]
    tenants: tuple[str, ...]
    development: bool = False
    people: bool = False
    leeway_seconds: int = 30
    max_lifetime_seconds: int = 86_400
    roles: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if not self.algorithms or not ALGORITHMS.issuperset(self.algorithms):
            raise GateMisuse(f"issuer {self.issuer}: algorithms are some of {', '.join(sorted(ALGORITHMS))}")
        if "*" in self.tenants and not self.development:
            raise GateMisuse(f"issuer {self.issuer}: every tenant is for a development issuer only")


class KeySource(Protocol):
    """Where verification keys come from; answers from memory."""

    def key(self, issuer: str, kid: str | None, algorithm: str) -> AllowedPublicKeys | None:
        """The key of an issuer for one algorithm, or nothing. Without `kid` only a key that is the only one."""

    def generation(self, issuer: str) -> int:
        """A number that changes whenever the key set of an issuer changes or ends."""


class NeedsKeys(GateError):
    """The token names a key that is not known yet; refresh the issuer's keys once and verify again."""

    def __init__(self, issuer: str) -> None:
        super().__init__(f"keys of {issuer} need a refresh")
        self.issuer = issuer


@dataclass(frozen=True, slots=True)
class _Cached:
    subject: Subject
    not_before: int
    not_after: int
    generation: int


class IdentityVerifier:
    """Verifies tokens against the configured issuers; remembers the newest ones by digest."""

    def __init__(
        self, issuers: Mapping[str, IssuerPolicy], keys: KeySource, *, cache_max_entries: int = CACHE_MAX_ENTRIES
    ) -> None:
        self._issuers = dict(issuers)
        self._keys = keys
        self._cache: OrderedDict[str, _Cached] = OrderedDict()
        self._cache_max_entries = cache_max_entries

    def verify(self, token: str, now: float) -> Subject:
        """The subject of a token at the time `now` (Unix seconds).

        Raises a refusal `identity_invalid`, or `NeedsKeys` when the issuer is known and the key is not.

        Security: the algorithm comes from the configuration and the key, never from the token alone; `none` and HMAC do
        not exist here. Every time check is made again on a cached token, and a changed key set empties its entries.
        Source: RFC 7519 §7.2, RFC 8725 §3, RFC 8693 §4.1.
        """
        digest = hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()
        cached = self._cache.get(digest)
        if cached is not None:
            fresh = cached.generation == self._keys.generation(cached.subject.issuer)
            if fresh and cached.not_before <= now < cached.not_after:
                self._cache.move_to_end(digest)
                return cached.subject
            del self._cache[digest]
        entry = self._verify_anew(token, now)
        self._cache[digest] = entry
        while len(self._cache) > self._cache_max_entries:
            self._cache.popitem(last=False)
        return entry.subject

    def _verify_anew(self, token: str, now: float) -> _Cached:
        if len(token) > TOKEN_MAX_BYTES:
            raise _invalid(f"the token is longer than {TOKEN_MAX_BYTES} bytes")
        header, unverified_claims = _read_unverified(token)
        issuer = unverified_claims.get("iss")
        policy = self._issuers.get(issuer) if isinstance(issuer, str) else None
        if policy is None:
            raise _invalid("the issuer is not configured")
        algorithm, kid = _header_fields(header, policy)
        generation = self._keys.generation(policy.issuer)
        key = self._keys.key(policy.issuer, kid, algorithm)
        if key is None:
            raise NeedsKeys(policy.issuer)
        try:
            payload: bytes = _JWS.decode_complete(token, key, algorithms=[algorithm])["payload"]
        except jwt.PyJWTError as error:
            raise _invalid("the signature does not verify") from error
        claims = _Claims(_object(payload, "claims"))
        not_before, not_after = _check_claims(claims, policy, now)
        return _Cached(_subject(claims, policy), not_before, not_after, generation)


def _invalid(detail: str) -> Refusal:
    return refusal("identity_invalid", detail)


def _read_unverified(token: str) -> tuple[dict[str, JsonValue], dict[str, JsonValue]]:
    """Header and claims as they stand, to find out whose key to use; nothing here is believed."""
    parts = token.split(".")
    if len(parts) != 3:
        raise _invalid("the token is no signed JWT")
    try:
        raw_header, raw_claims = (jwt.utils.base64url_decode(part) for part in parts[:2])
    except ValueError as error:
        raise _invalid("the token is no base64url") from error
    return _object(raw_header, "header"), _object(raw_claims, "claims")


def _object(raw: bytes, what: str) -> dict[str, JsonValue]:
    try:
        value = parse_strict(raw, max_bytes=TOKEN_MAX_BYTES, max_depth=16)
    except StrictJsonError as error:
        raise _invalid(f"the token's {what} is no strict JSON: {error.code}") from error
    if not isinstance(value, dict):
        raise _invalid(f"the token's {what} is no object")
    return value


def _header_fields(header: dict[str, JsonValue], policy: IssuerPolicy) -> tuple[str, str | None]:
    algorithm, kid, kind = header.get("alg"), header.get("kid"), header.get("typ", "JWT")
    if not isinstance(algorithm, str) or algorithm not in policy.algorithms:
        raise _invalid("the issuer may not sign with this algorithm")
    if "crit" in header or "b64" in header or "zip" in header:
        raise _invalid("the token uses an extension that is not supported")
    if not isinstance(kind, str) or kind.lower() not in _TOKEN_TYPES:
        raise _invalid("the token is of another type")
    if kid is not None and (not isinstance(kid, str) or len(kid) > NAME_MAX_CHARACTERS):
        raise _invalid("the key id is no short text")
    return algorithm, kid


class _Claims:
    """Typed reading of claims; a claim of the wrong type refuses the token."""

    def __init__(self, claims: dict[str, JsonValue]) -> None:
        self._claims = claims

    def has(self, name: str) -> bool:
        return name in self._claims

    def raw(self, name: str) -> JsonValue:
        return self._claims.get(name)

    def text(self, name: str) -> str:
        value = self._claims.get(name)
        if not isinstance(value, str) or not 0 < len(value) <= NAME_MAX_CHARACTERS:
            raise _invalid(f"the claim {name} is no text of 1 to {NAME_MAX_CHARACTERS} characters")
        if not value.isprintable():
            raise _invalid(f"the claim {name} holds characters that cannot be shown")
        return value

    def seconds(self, name: str) -> int:
        value = self._claims.get(name)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 40:
            raise _invalid(f"the claim {name} is no time in seconds")
        return value

    def texts(self, name: str) -> tuple[str, ...]:
        value = self._claims.get(name)
        if value is None:
            return ()
        if not isinstance(value, list) or len(value) > ROLES_MAX_COUNT:
            raise _invalid(f"the claim {name} is no list of at most {ROLES_MAX_COUNT} texts")
        return tuple(_Claims({name: item}).text(name) for item in value)


def _check_claims(claims: _Claims, policy: IssuerPolicy, now: float) -> tuple[int, int]:
    """Check audience, times, lifetime, tenant and roles; the span in which the token holds."""
    audience = claims.raw("aud")
    audiences = audience if isinstance(audience, list) else [audience]
    if policy.audience not in audiences:
        raise _invalid("the token is for another audience")
    issued, expires = claims.seconds("iat"), claims.seconds("exp")
    begins = max(issued, claims.seconds("nbf")) if claims.has("nbf") else issued
    not_before, not_after = begins - policy.leeway_seconds, expires + policy.leeway_seconds
    if now >= not_after:
        raise _invalid("the token has expired")
    if now < not_before:
        raise _invalid("the token is not valid yet")
    if not 0 < expires - issued <= policy.max_lifetime_seconds:
        raise _invalid(f"the token lives longer than {policy.max_lifetime_seconds} seconds")
    if "*" not in policy.tenants and claims.text("tenant") not in policy.tenants:
        raise _invalid("the issuer may not speak for this tenant")
    if policy.roles is not None or not policy.development:
        foreign = set(claims.texts("roles")).difference(policy.roles or ())
        if foreign:
            raise _invalid("the issuer may not grant one of the roles")
    return not_before, not_after


def _actors(claims: _Claims) -> tuple[str, ...]:
    actors: list[str] = []
    act = claims.raw("act")
    while act is not None:
        if not isinstance(act, dict):
            raise _invalid("the claim act is no object")
        if len(actors) == ACTORS_MAX_COUNT:
            raise _invalid(f"the claim act is nested deeper than {ACTORS_MAX_COUNT}")
        actors.append(_Claims(act).text("sub"))
        act = act.get("act")
    return tuple(actors)


def _subject(claims: _Claims, policy: IssuerPolicy) -> Subject:
    """Security: security rule 8. The outermost actor is who acts; nested ones are kept for exclusion, never to grant."""
    sub = claims.text("sub")
    if claims.has("act") and claims.raw("act") is None:
        raise _invalid("the claim act is no object")
    actors = _actors(claims)
    person = policy.people and not actors
    return Subject(
        id=actors[0] if actors else sub,
        type="user" if person else "agent",
        issuer=policy.issuer,
        tenant=claims.text("tenant"),
        workspace=claims.text("workspace"),
        environment=claims.text("environment"),
        roles=claims.texts("roles"),
        acr=claims.text("acr") if claims.has("acr") else None,
        amr=claims.texts("amr"),
        auth_time=claims.seconds("auth_time") if claims.has("auth_time") else None,
        on_behalf_of=sub if actors else None,
        actors=actors,
        people=person,
        expires_at=claims.seconds("exp"),
    )
