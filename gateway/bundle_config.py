"""The part of the configuration that says which bundles are enforced, who signs them, and how they are known to be current.

Guarantees: a followed bundle names its freshness keys, a data bundle its roots; no setting stands where nothing reads it; exactly
one bundle has the rules. Leaves the rest of the document to ``gateway.config``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from bundles.freshness import TTL_DEFAULT_SECONDS, TTL_MAX_SECONDS, TTL_MIN_SECONDS
from bundles.loopback import is_loopback
from bundles.merged import RULEBOOK_ROOTS

_REFERENCE = re.compile(r"(env:[A-Za-z_][A-Za-z0-9_]*|file:.+)")

Algorithm = Literal["ES256", "ES384", "ES512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512"]


def secret_reference(value: str) -> str:
    """The value, if it is a reference of a kind that can be read. Raises `ValueError`, which never repeats the value.

    **Security**: what is no reference may be the secret itself.
    """
    if not _REFERENCE.fullmatch(value):
        raise ValueError("a secret stands only as env:NAME or file:PATH, never inline; no other kind is supported")
    return value


def _key_file(value: str) -> str:
    if not value.startswith("file:"):
        raise ValueError("must be file:PATH")
    return value


def _bundle_source(value: str) -> str:
    if value.startswith("file:"):
        return value
    parts = urlsplit(value)
    if parts.username or parts.password or parts.query or parts.fragment or not parts.hostname or len(parts.path) < 2:
        raise ValueError("must be file:PATH or https://HOST/PATH, without a secret, query or fragment")
    if parts.port == 0:
        raise ValueError("port 0 is no port of a service")
    if parts.scheme != "https" and not (parts.scheme == "http" and is_loopback(parts.hostname)):
        raise ValueError("must be file:PATH or https://…; http://… only on this machine")
    return value


SecretReference = Annotated[str, AfterValidator(secret_reference)]
KeyFile = Annotated[str, AfterValidator(_key_file)]
BundleSource = Annotated[str, AfterValidator(_bundle_source)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class TrustedKeyConfig(_Section):
    """A key whose signature makes a bundle trusted."""

    keyid: str = Field(min_length=1)
    algorithm: Algorithm
    scope: str = "write"
    key: KeyFile


class FreshnessKeyConfig(_Section):
    """An online key whose statements say that a bundle is still in force; it signs no bundles."""

    keyid: str = Field(min_length=1)
    algorithm: Algorithm
    key: KeyFile


class Bundle(_Section):
    """Where the rulebook comes from, who must have signed it, and how it is known to be current."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")
    tenants: list[str] = Field(min_length=1)
    source: BundleSource
    audience: str = "tidegate"
    trusted_keys: list[TrustedKeyConfig] = Field(min_length=1)
    threshold: int = Field(1, ge=1, le=16)
    epoch: int = Field(0, ge=0)
    freshness: Literal["local", "signed"] = "local"
    freshness_keys: list[FreshnessKeyConfig] = []
    lease_seconds: int = Field(TTL_DEFAULT_SECONDS, ge=1, le=TTL_MAX_SECONDS)
    poll_seconds: int = Field(60, ge=1, le=300)
    long_poll: bool = True
    deltas: bool = True
    token: SecretReference | None = None
    allow_addresses: list[str] = []
    data_only: bool = False
    roots: list[str] = []

    @model_validator(mode="after")
    def _roots_are_of_data(self) -> Bundle:
        if self.data_only is not bool(self.roots):
            raise ValueError("data_only: true and roots (the keys of data it may give) belong together")
        taken = RULEBOOK_ROOTS & set(self.roots)
        if taken:
            raise ValueError(f"roots: {min(taken)!r} is only a full bundle's")
        return self

    @model_validator(mode="after")
    def _freshness_fits_the_source(self) -> Bundle:
        is_file = self.source.startswith("file:")
        if self.freshness == "local":
            if not is_file:
                raise ValueError("freshness: local needs a file: source")
            unread = _OF_A_SERVICE & self.model_fields_set
            if unread:
                raise ValueError(f"{min(unread)} is only for freshness: signed")
            return self
        if is_file:
            raise ValueError("freshness: signed needs the https: address of a bundle service as its source")
        if not self.freshness_keys:
            raise ValueError("freshness: signed needs freshness_keys")
        names = [key.keyid for key in self.freshness_keys]
        if len(set(names)) != len(names):
            raise ValueError("a freshness key is named twice")
        return self


_OF_A_SERVICE = frozenset(
    {"freshness_keys", "lease_seconds", "poll_seconds", "long_poll", "deltas", "token", "allow_addresses"}
)


def check_bundles(bundles: Sequence[Bundle], *, development: bool, is_embedded: bool) -> None:
    """Raise `ValueError` unless these bundles fit together: one with the rules, the others with data of their own."""
    full = [bundle for bundle in bundles if not bundle.data_only]
    if len(full) != 1:
        raise ValueError("exactly one full bundle is supported by this version; others say data_only: true")
    names = [bundle.name for bundle in bundles]
    if len(set(names)) != len(names):
        raise ValueError("two bundles have one name")
    roots = [root for bundle in bundles for root in bundle.roots]
    if len(set(roots)) != len(roots):
        raise ValueError("two data bundles have one root")
    if any(set(bundle.tenants) != set(full[0].tenants) for bundle in bundles):
        raise ValueError("a data bundle is for the tenants of the full bundle")
    if roots and not is_embedded:
        raise ValueError("data bundles need engine: wasm; an OPA server loads its own")
    for bundle in bundles:
        if bundle.lease_seconds < TTL_MIN_SECONDS and not development:
            raise ValueError(
                f"bundles.{bundle.name}: lease_seconds is from {TTL_MIN_SECONDS} to {TTL_MAX_SECONDS}; less only beside a "
                "development issuer"
            )
