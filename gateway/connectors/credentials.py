"""Secrets by reference, and the credential of an instance as headers.

Guarantees: a secret comes from the environment or from a file that only its owner can read, never from the
configuration itself; what is injected cannot break out of its header; an OAuth token is fetched once for all waiting
calls and renewed before it ends. No error names a secret. Leaves to `outbound` what the credential replaces, to `leaks`
looking for it in answers, to the egress pool the connection to a token endpoint.
"""

from __future__ import annotations

import asyncio
import base64
import os
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol
from urllib.parse import quote_plus

from bundles.canonical import StrictJsonError, parse_strict
from bundles.manifest import Auth
from gateway.connectors.leaks import spellings
from gateway.edge.headers import HeaderPairs
from gateway.edge.problem import refusal
from gateway.errors import GateMisuse, Refusal

SECRET_MAX_BYTES: Final = 65_536
TOKEN_ANSWER_MAX_BYTES: Final = 65_536
RENEW_BEFORE_SECONDS: Final = 30
TOKEN_LIFETIME_MAX_SECONDS: Final = 86_400
DEFAULT_LIFETIME_SECONDS: Final = 300

_FIELDS: Final[Mapping[str, tuple[str, ...]]] = {
    "basic": ("username", "password"),
    "bearer": ("token",),
    "header": ("token",),
    "oauth2_client_credentials": ("client_id", "client_secret", "token_url"),
    "none": (),
}
_OPTIONAL: Final[Mapping[str, tuple[str, ...]]] = {"oauth2_client_credentials": ("scope",)}
_PLAIN: Final = frozenset({"username", "client_id", "token_url", "scope"})


class CredentialError(GateMisuse):
    """A credential cannot be used as configured. `code` is stable: ``secret_inline``, ``secret_missing``,
    ``secret_readable``, ``secret_invalid``, ``credential_invalid`` or ``not_supported``."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail


class SecretReader:
    """Reads secrets by reference; relative files start at `base_dir`."""

    def __init__(self, environment: Mapping[str, str], base_dir: Path) -> None:
        self._environment = environment
        self._base_dir = base_dir

    def read(self, reference: str) -> str:
        """The secret behind ``env:NAME`` or ``file:PATH``, without one line end at its end.

        Blocks on the disk: read at start and on reload, not while a call waits. Raises `CredentialError`.

        **Security**: a file that group or others can read or write is refused, and so is anything but a plain file; the
        check is made on the opened file, so that it cannot be exchanged in between.
        """
        kind, colon, name = reference.partition(":")
        if not colon or kind not in ("env", "file"):
            message = "a secret stands only as env:NAME or file:PATH, never inline; no other kind is supported"
            raise CredentialError("secret_inline", message)
        if kind == "env":
            value = self._environment.get(name)
            if value is None:
                raise CredentialError("secret_missing", f"the environment has no {name}")
            return _checked(value, reference)
        return _checked(_read_private(self._base_dir / name), reference)


def _read_private(path: Path) -> str:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise CredentialError("secret_missing", f"{path}: {error.strerror}") from error
    try:
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode):
            raise CredentialError("secret_invalid", f"{path} is no plain file")
        if mode & 0o077:
            raise CredentialError("secret_readable", f"{path} is open to others; chmod 600 it")
        with os.fdopen(descriptor, "rb", closefd=False) as opened:
            raw = opened.read(SECRET_MAX_BYTES + 1)
    finally:
        os.close(descriptor)
    if len(raw) > SECRET_MAX_BYTES:
        raise CredentialError("secret_invalid", f"{path} is longer than {SECRET_MAX_BYTES} bytes")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise CredentialError("secret_invalid", f"{path} is not UTF-8") from error


def _checked(value: str, reference: str) -> str:
    value = value.removesuffix("\n").removesuffix("\r")
    if not value or not value.isprintable():
        raise CredentialError("secret_invalid", f"{reference} is empty or holds control characters")
    return value


@dataclass(frozen=True, slots=True)
class Injected:
    """What one call carries: the `headers` to inject, and the `spellings` that must not come back in its answer."""

    headers: HeaderPairs
    spellings: tuple[bytes, ...]


class TokenExchange(Protocol):
    """Posts a form to a token endpoint, with the egress rules and deadlines of the instance."""

    async def __call__(self, url: str, headers: HeaderPairs, body: bytes) -> tuple[int, bytes]:
        """Status and body (at most `TOKEN_ANSWER_MAX_BYTES`). Raises `Refusal` when there is none."""


class CredentialInjector:
    """The credential of one instance. `headers` is free of I/O for every kind but OAuth."""

    def __init__(
        self,
        auth: Auth,
        credential: Mapping[str, str],
        secrets: SecretReader,
        *,
        exchange: TokenExchange | None = None,
        clock: Callable[[], float],
    ) -> None:
        """Read the secrets that `credential` refers to. `clock` gives seconds that never run backwards.

        Raises `CredentialError` for a kind this version cannot do, a field too many or too few, or a secret it cannot
        read. Blocks on the disk.
        """
        self._fields = _read_fields(auth, credential, secrets)
        self._clock = clock
        self._exchange = exchange
        self._static: Injected | None = None
        self._token: Injected | None = None
        self._renew_at = 0.0
        self._lock = asyncio.Lock()
        if auth.kind == "oauth2_client_credentials":
            if exchange is None:
                raise CredentialError("credential_invalid", "an OAuth credential needs a way to its token endpoint")
        else:
            self._static = _static(auth, self._fields)

    @property
    def known(self) -> Injected | None:
        """The headers to inject, where they need no asking; else `headers` gets them."""
        return self._static

    async def headers(self) -> Injected:
        """The headers to inject now.

        Raises `Refusal` ``upstream_failed`` when a token endpoint gives no token, and the exchange's own.
        """
        if self._static is not None:
            return self._static
        if self._token is not None and self._clock() < self._renew_at:
            return self._token
        async with self._lock:
            if self._token is None or self._clock() >= self._renew_at:
                self._token = await self._fetch()
            return self._token

    def forget(self, refused: Injected) -> bool:
        """Drop a fetched token that the service refused, so that the next call fetches a new one.

        True for a fetched one; a credential from the configuration has no other. One that was fetched since stays.
        """
        if self._static is not None:
            return False
        if self._token is refused:
            self._token = None
        return True

    async def _fetch(self) -> Injected:
        """**Source**: RFC 6749 §4.4 and §2.3.1."""
        if self._exchange is None:
            raise CredentialError("credential_invalid", "an OAuth credential needs a way to its token endpoint")
        pair = f"{quote_plus(self._fields['client_id'])}:{quote_plus(self._fields['client_secret'])}"
        headers = (
            ("authorization", _basic(pair)),
            ("content-type", "application/x-www-form-urlencoded"),
            ("accept", "application/json"),
        )
        body = "grant_type=client_credentials"
        if "scope" in self._fields:
            body += f"&scope={quote_plus(self._fields['scope'])}"
        started = self._clock()
        status, raw = await self._exchange(self._fields["token_url"], headers, body.encode("ascii"))
        token, lifetime_seconds = read_token_answer(status, raw)
        self._renew_at = started + max(1.0, lifetime_seconds - RENEW_BEFORE_SECONDS)
        secrets = (token, self._fields["client_secret"], pair)
        return Injected((("authorization", f"Bearer {token}"),), spellings(secrets))


def read_token_answer(status: int, raw: bytes) -> tuple[str, int]:
    """Token and lifetime in seconds of a token endpoint's answer.

    Raises `Refusal` ``upstream_failed`` for anything but a bearer token. **Source**: RFC 6749 §5.1.
    """
    if status != 200:
        raise _no_token(f"it answered {status}")
    try:
        answer = parse_strict(raw, max_bytes=TOKEN_ANSWER_MAX_BYTES)
    except StrictJsonError as error:
        raise _no_token(f"its answer is not strict JSON: {error.code}") from error
    if not isinstance(answer, dict):
        raise _no_token("its answer is no object")
    token, kind, lifetime = answer.get("access_token"), answer.get("token_type"), answer.get("expires_in")
    if not isinstance(token, str) or not token or not token.isprintable() or " " in token or not token.isascii():
        raise _no_token("its answer holds no token")
    if not isinstance(kind, str) or kind.lower() != "bearer":
        raise _no_token("its token is no bearer token")
    if lifetime is None:
        return token, DEFAULT_LIFETIME_SECONDS
    if not isinstance(lifetime, int) or isinstance(lifetime, bool) or lifetime <= 0:
        raise _no_token("its token has no proper lifetime")
    return token, min(lifetime, TOKEN_LIFETIME_MAX_SECONDS)


def _no_token(why: str) -> Refusal:
    return refusal("upstream_failed", f"the token endpoint of the service gave no token: {why}")


def _read_fields(auth: Auth, credential: Mapping[str, str], secrets: SecretReader) -> dict[str, str]:
    needed = _FIELDS.get(auth.kind)
    if needed is None:
        raise CredentialError("not_supported", f"credentials of kind {auth.kind} are not supported by this version")
    allowed = {*needed, *_OPTIONAL.get(auth.kind, ())}
    missing = [name for name in needed if name not in credential]
    foreign = sorted(credential.keys() - allowed)
    if missing or foreign:
        found = f"missing {', '.join(missing) or 'nothing'}, unknown {', '.join(foreign) or 'nothing'}"
        raise CredentialError("credential_invalid", f"a credential of kind {auth.kind}: {found}")
    return {name: value if name in _PLAIN else secrets.read(value) for name, value in credential.items()}


def _static(auth: Auth, fields: Mapping[str, str]) -> Injected:
    if auth.kind == "none":
        return Injected((), ())
    if auth.kind == "basic":
        username, password = fields["username"], fields["password"]
        if ":" in username or not username.isprintable():
            raise CredentialError("credential_invalid", "a user name holds no colon and no control characters")
        pair = f"{username}:{password}"
        return Injected((("authorization", _basic(pair)),), spellings((password, pair)))
    token = fields["token"]
    if not token.isascii():
        raise CredentialError("secret_invalid", "a token in a header is ASCII")
    if auth.kind == "bearer":
        return Injected((("authorization", f"Bearer {token}"),), spellings((token,)))
    if auth.header is None:
        raise CredentialError("credential_invalid", "a credential of kind header needs the header's name")
    return Injected(((auth.header.lower(), f"{auth.prefix}{token}"),), spellings((token,)))


def _basic(pair: str) -> str:
    """**Source**: RFC 7617 §2."""
    return "Basic " + base64.b64encode(pair.encode("utf-8")).decode("ascii")
