"""The bundle service's configuration: which bundles it serves, whose signatures it accepts, who may publish and read.

Guarantees: keys are known, every token names only bundles that exist, two tenants' bundles of one name have two addresses,
a listener that others can reach is refused unless somebody else ends TLS before it, and a bucket is reached over TLS unless it
is on this machine. Leaves reading files to ``bundles.service`` and secrets of a bucket to ``bundles.service_storage``.
"""

from __future__ import annotations

import re
from typing import Annotated, Final, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from bundles.errors import BundleMisuse, BundleRefused
from bundles.freshness import TTL_DEFAULT_SECONDS, TTL_MAX_SECONDS, TTL_MIN_SECONDS
from bundles.loopback import is_loopback
from bundles.yaml_text import parse_yaml

EVERY_BUNDLE: Final = "*"
SHARED_HISTORY_MIN_COUNT: Final = 2
"""With one only, a publication would remove the archive that another service has just found in the index."""
_LISTEN = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]+):([0-9]{1,5})")
_HOST = re.compile(r"(\[[0-9a-f:.]{2,45}\]|[a-z0-9]([a-z0-9._-]{0,252}[a-z0-9])?)(:[0-9]{1,5})?")

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
Algorithm = Literal["ES256", "ES384", "ES512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512"]


def _file(value: str) -> str:
    if not value.startswith("file:"):
        raise ValueError("stands as file:PATH, never inline")
    return value


def _endpoint(value: str) -> str:
    parts = urlsplit(value)
    beyond = parts.username or parts.password or parts.path.strip("/") or parts.query or parts.fragment
    if beyond or not parts.hostname or parts.port == 0:
        raise ValueError("must be https://HOST[:PORT], without a path, a bucket or a secret")
    if parts.scheme != "https" and not (parts.scheme == "http" and is_loopback(parts.hostname)):
        raise ValueError("must be https://…; http://… only on this machine")
    return value.rstrip("/")


def _listen(value: str) -> str:
    match = _LISTEN.fullmatch(value)
    if match is None or int(match.group(2)) > 65535:
        raise ValueError("must be HOST:PORT")
    return value


def _host(value: str) -> str:
    if not _HOST.fullmatch(value):
        raise ValueError("must be HOST or HOST:PORT in lower case, as clients write it")
    return value


FileReference = Annotated[str, AfterValidator(_file)]
SecretReference = Annotated[str, Field(pattern=r"^(env:[A-Za-z_][A-Za-z0-9_]*|file:.+)$")]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class ServedKey(_Section):
    """A key whose signature the service accepts on a published bundle."""

    keyid: str = Field(min_length=1)
    algorithm: Algorithm
    scope: str = "write"
    key: FileReference


class ServedBundle(_Section):
    """One address of the service. ``open`` lets anybody who reaches the listener read it."""

    name: Name
    tenant: Name | None = None
    audience: str = "tidegate"
    trusted_keys: list[ServedKey] = Field(min_length=1)
    threshold: int = Field(1, ge=1, le=16)
    epoch: int = Field(0, ge=0)
    open: bool = False

    @property
    def id(self) -> str:
        """``tenant/name``, or the name alone: what follows ``/bundles/``."""
        return self.name if self.tenant is None else f"{self.tenant}/{self.name}"


class AccessToken(_Section):
    """One bearer token, kept in a file, and what it may."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")
    token: FileReference
    may: Literal["read", "publish"]
    bundles: list[str] = Field(min_length=1)


class FreshnessKey(_Section):
    """The online key and how long a statement holds."""

    key: FileReference
    keyid: str = "freshness"
    ttl_seconds: int = Field(TTL_DEFAULT_SECONDS, ge=1, le=TTL_MAX_SECONDS)


class ObjectStorage(_Section):
    """A bucket for everything published, instead of a directory. Several services may share bucket and prefix.

    ``addressing`` says where the bucket's name goes: into the host name (``virtual``), into the path, or as AWS has it
    and into the path elsewhere (``auto``). Seconds: ``timeout_seconds`` for one exchange as a whole; ``refresh_seconds``
    between looks at what others published; ``unconfirmed_max_seconds`` for how long a bundle is vouched for while nobody
    can look.
    """

    kind: Literal["s3"]
    bucket: str = Field(pattern=r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$")
    prefix: str = Field("", pattern=r"^([A-Za-z0-9_-][A-Za-z0-9._-]*/)*$", max_length=256)
    region: str = Field(pattern=r"^[a-z0-9-]{1,64}$")
    endpoint: Annotated[str, AfterValidator(_endpoint)] | None = None
    addressing: Literal["auto", "path", "virtual"] = "auto"
    access_key: SecretReference
    secret_key: SecretReference
    session_token: SecretReference | None = None
    timeout_seconds: int = Field(30, ge=1, le=300)
    refresh_seconds: int = Field(5, ge=1, le=300)
    unconfirmed_max_seconds: int = Field(3600, ge=10, le=86_400)

    @model_validator(mode="after")
    def _looks_in_time(self) -> ObjectStorage:
        if self.unconfirmed_max_seconds < self.refresh_seconds + self.timeout_seconds:
            raise ValueError("unconfirmed_max_seconds is at least refresh_seconds and timeout_seconds together")
        return self


class ServiceDocument(_Section):
    """The whole file."""

    listen: Annotated[str, AfterValidator(_listen)] = "127.0.0.1:8090"
    hosts: list[Annotated[str, AfterValidator(_host)]] = []
    tls_terminated: bool = False
    development: bool = False
    directory: str = "bundles"
    storage: ObjectStorage | None = None
    history_max_count: int = Field(32, ge=1, le=1024)
    freshness: FreshnessKey
    bundles: list[ServedBundle] = Field(min_length=1, max_length=4096)
    tokens: list[AccessToken] = []

    @model_validator(mode="after")
    def _fits_together(self) -> ServiceDocument:
        ids = [bundle.id for bundle in self.bundles]
        if len(set(ids)) != len(ids):
            raise ValueError("two bundles have one address")
        for token in self.tokens:
            unknown = [name for name in token.bundles if name != EVERY_BUNDLE and name not in ids]
            if unknown:
                raise ValueError(f"tokens.{token.name}: no such bundle {unknown[0]!r}")
        if self.storage is not None and "directory" in self.model_fields_set:
            raise ValueError("directory and storage exclude each other: take one out")
        if self.storage is not None and self.history_max_count < SHARED_HISTORY_MIN_COUNT:
            raise ValueError(f"history_max_count is at least {SHARED_HISTORY_MIN_COUNT} with storage")
        if self.freshness.ttl_seconds < TTL_MIN_SECONDS and not self.development:
            raise ValueError(f"freshness.ttl_seconds is from {TTL_MIN_SECONDS} to {TTL_MAX_SECONDS}")
        if not self.tls_terminated and not is_loopback(self.endpoint[0]):
            raise ValueError(
                "listen is reachable from outside: say tls_terminated: true when a proxy ends TLS before it"
            )
        return self

    @property
    def endpoint(self) -> tuple[str, int]:
        """Host and port to listen on."""
        host, _, port = self.listen.rpartition(":")
        return host.strip("[]"), int(port)


def load_service_config(raw: bytes) -> ServiceDocument:
    """Check a configuration file; raises :class:`BundleMisuse` ``service_config_invalid`` with every finding."""
    try:
        return ServiceDocument.model_validate(parse_yaml(raw))
    except BundleRefused as refused:
        raise BundleMisuse("service_config_invalid", refused.detail) from refused
    except ValidationError as refused:
        findings = "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in refused.errors())
        raise BundleMisuse("service_config_invalid", findings) from None
