"""The gateway's configuration: one YAML document, checked completely before anything starts.

Guarantees: keys are known, duplicate keys are refused, secrets stand only as references, the combinations that
security rule 7 forbids are named as findings. Leaves reading files, secrets and sockets to ``gateway.app``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from bundles.loopback import is_loopback
from gateway.bundle_config import Bundle, SecretReference, check_bundles, secret_reference
from gateway.config_faults import faults_in_words
from gateway.envoy.settings import ExtAuthz
from gateway.export.settings import DecisionLog, check_decision_logs
from gateway.hosts import own_hosts, with_port
from gateway.policy_settings import CrossCheck, Records, Shadow

ENVIRONMENT_PREFIX = "TIDEGATE_CONFIG__"
CONFIG_MAX_BYTES = 1 << 20
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_HOST = re.compile(r"(?:[a-z0-9](?:[a-z0-9._-]{0,252}[a-z0-9])?|\[[0-9a-f:.]{2,45}\])(?::(?P<port>[0-9]{1,5}))?")


class ConfigError(Exception):
    """The configuration cannot be used. ``code`` is stable, ``detail`` says what to mend."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail


def _source(value: str) -> str:
    if not value.startswith(("file:", "https://")):
        raise ValueError("must be file:PATH or https://…")
    return value


def _check_url(name: str, value: str, mend: str) -> None:
    """Raise `ValueError` unless a URL is a place and nothing more; `mend` says where a secret in it belongs."""
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise ValueError(f"{name} must be http(s)://host[:port][/path]")
    if parts.port == 0:  # one that is no port at all raises here
        raise ValueError(f"{name} names port 0")
    if parts.username or parts.password:
        raise ValueError(f"{name} carries a secret; {mend}")


def _listen(value: str) -> str:
    host, separator, port = value.rpartition(":")
    if not separator or not host or not re.fullmatch(r"[0-9]{1,5}", port) or int(port) > 65535:
        raise ValueError("must be HOST:PORT")
    return value


def _host_name(value: str) -> str:
    found = _HOST.fullmatch(value)
    if found is None or int(found["port"] or 1) not in range(1, 65536):
        raise ValueError("must be HOST or HOST:PORT in lower case, as clients write it")
    return value


SourceReference = Annotated[str, AfterValidator(_source)]
ListenAddress = Annotated[str, AfterValidator(_listen)]
HostName = Annotated[str, AfterValidator(_host_name)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Listen(_Section):
    """Addresses of the listeners, HOST:PORT; port 0 takes a free one. `hosts` are further names they are reached by."""

    gate: ListenAddress = "127.0.0.1:8080"
    metrics: ListenAddress | None = "127.0.0.1:9090"
    ext_authz: ExtAuthz | None = None
    hosts: list[HostName] = []


class Issuer(_Section):
    """One issuer of callers' tokens and what its tokens may claim."""

    issuer: str = Field(min_length=1)
    audience: str = Field(min_length=1)
    jwks: SourceReference
    algorithms: list[
        Literal["EdDSA", "ES256", "ES384", "ES512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512"]
    ] = [
        "EdDSA",
        "ES256",
        "RS256",
        "PS256",
    ]
    development: bool = False
    people: bool = False
    tenants: list[str] = Field(min_length=1)
    roles: list[str] | None = None
    leeway_seconds: int = Field(30, ge=0, le=300)
    lifetime_max_seconds: int = Field(86400, ge=1, le=604800)

    @model_validator(mode="after")
    def _star_is_for_development(self) -> Issuer:
        if "*" in self.tenants and not self.development:
            raise ValueError('tenants "*" only with development: true')
        return self


class Identity(_Section):
    """Who may issue tokens."""

    issuers: list[Issuer] = Field(min_length=1)

    @model_validator(mode="after")
    def _issuers_are_unique(self) -> Identity:
        names = [issuer.issuer for issuer in self.issuers]
        if len(set(names)) != len(names):
            raise ValueError("an issuer is named twice")
        return self


class OpaEngine(_Section):
    """An OPA server as the engine."""

    opa: str = Field(pattern=r"^(https?|unix)://.+$")


class Management(_Section):
    """Roles that may set kill switches while the policy is stale."""

    emergency_roles: list[str] = []


class Limits(_Section):
    """Every configurable limit of the gateway; each has a default and its unit in its name."""

    header_read_seconds: int = Field(10, ge=1, le=120)
    body_read_seconds: int = Field(30, ge=1, le=3600)
    idle_seconds: int = Field(75, ge=1, le=3600)
    uri_max_bytes: int = Field(8192, ge=256, le=65536)
    headers_max_bytes: int = Field(32768, ge=1024, le=262144)
    headers_max_count: int = Field(100, ge=8, le=1000)
    body_max_bytes: int = Field(1 << 20, ge=1024, le=64 << 20)
    response_buffer_max_bytes: int = Field(8 << 20, ge=1024, le=256 << 20)
    stored_answer_max_bytes: int = Field(1 << 20, ge=0, le=1 << 20)
    stored_answer_keep_seconds: int = Field(86400, ge=1, le=86400)
    upstream_connect_seconds: int = Field(10, ge=1, le=120)
    upstream_answer_seconds: int = Field(600, ge=1, le=3600)
    upstream_idle_seconds: int = Field(60, ge=1, le=3600)
    stream_max_seconds: int = Field(3600, ge=1, le=86400)
    hold_max_seconds: int = Field(600, ge=0, le=3600)
    holds_per_subject_max: int = Field(32, ge=1, le=1024)
    calls_max: int = Field(2048, ge=1, le=65536)
    grace_seconds: int = Field(20, ge=0, le=600)


class Instance(_Section):
    """One configured target of a connector."""

    connector: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")
    tenants: list[str] = Field(min_length=1)
    workspaces: list[str] = ["*"]
    environments: list[str] = ["*"]
    base_url: str
    credential: dict[str, str] = {}
    allow_addresses: list[str] = []

    @model_validator(mode="after")
    def _is_usable(self) -> Instance:
        _check_url("base_url", self.base_url, "use credential")
        for name, value in self.credential.items():
            if name in _PLAIN_CREDENTIAL_FIELDS:
                continue
            try:
                secret_reference(value)
            except ValueError as error:
                raise ValueError(f"credential.{name}: {error}") from error
        return self


_PLAIN_CREDENTIAL_FIELDS = frozenset({"username", "client_id", "token_url", "scope"})


class LedgerKeys(_Section):
    """References of the gateway's own keys."""

    hmac: SecretReference = "file:keys/hmac.key"
    sequence: str = "file:state/sequence"


class Document(_Section):
    """The whole file."""

    listen: Listen = Listen()
    external_url: str | None = None
    store: str = "sqlite:///state/tidegate.db"
    identity: Identity
    bundles: list[Bundle] = Field(min_length=1)
    engine: Literal["wasm"] | OpaEngine = "wasm"
    management: Management = Management()
    limits: Limits = Limits()
    ledger: LedgerKeys = LedgerKeys()
    records: Records = Records()
    shadow: Shadow | None = None
    cross_check: CrossCheck | None = None
    decision_logs: list[DecisionLog] = []
    instances: dict[str, Instance] = {}

    @model_validator(mode="after")
    def _fits_together(self) -> Document:
        if self.external_url is not None:
            _check_url("external_url", self.external_url, "clients bring their tokens themselves")
        development = any(issuer.development for issuer in self.identity.issuers)
        for name, instance in self.instances.items():
            if not _NAME.fullmatch(name):
                raise ValueError(f"instances.{name}: names are lower case letters, digits, '.', '_' and '-'")
            if "*" in instance.tenants and not development:
                raise ValueError(f'instances.{name}: tenants "*" only beside a development issuer')
        for bundle in self.bundles:
            if "*" in bundle.tenants and not development:
                raise ValueError(f'bundles.{bundle.name}: tenants "*" only beside a development issuer')
        check_decision_logs(self.decision_logs, development=development)
        check_bundles(self.bundles, development=development, is_embedded=self.engine == "wasm")
        if self.cross_check is not None and (self.engine != "wasm" or len(self.bundles) > 1):
            raise ValueError(
                "cross_check compares engine: wasm with one bundle, as an OPA server holds it, without data bundles"
            )
        if not self.store.startswith("sqlite:///"):
            raise ValueError("store must be sqlite:///PATH in this version")
        return self

    @property
    def full_bundle(self) -> Bundle:
        """The bundle with the policies."""
        return next(bundle for bundle in self.bundles if not bundle.data_only)


@dataclass(frozen=True, slots=True)
class GatewayConfig:
    """A checked document and the directory its relative paths start from."""

    document: Document
    base_dir: Path
    gate_port: int | None = None
    """The port that the gate's listener got, once it has one."""

    def file(self, reference: str) -> Path:
        """The path a ``file:`` reference (or a bare path) names."""
        return self.base_dir / reference.removeprefix("file:")

    @property
    def store_path(self) -> Path:
        """The SQLite file."""
        return self.base_dir / self.document.store.removeprefix("sqlite:///")

    @property
    def external_url(self) -> str:
        """The base URL clients use; rewriting uses it, never ``Host`` (security rule 18)."""
        host, _, port = self.document.listen.gate.rpartition(":")
        return (self.document.external_url or f"http://{host}:{self.gate_port or port}").rstrip("/")

    def hosts(self, address: str, port: int) -> frozenset[str]:
        """What `Host` may say on a listener that was asked to take `address` and got `port` (security rule 18)."""
        named = frozenset(self.document.listen.hosts)
        portless = (host for host in named if (found := _HOST.fullmatch(host)) is not None and found["port"] is None)
        external = urlsplit(self.external_url).netloc.lower()
        return own_hosts(self.endpoint(address)[0], port) | named | with_port(portless, port) | {external}

    def endpoint(self, address: str) -> tuple[str, int]:
        """HOST:PORT as a pair."""
        host, _, port = address.rpartition(":")
        return host.strip("[]"), int(port)

    def effective(self) -> dict[str, Any]:
        """Every key with its default, for ``gateway check``; holds references, never secrets."""
        return self.document.model_dump(mode="json")


class _UniqueKeyLoader(yaml.SafeLoader):
    """Safe YAML that refuses a mapping with the same key twice."""


def _unique_mapping(loader: _UniqueKeyLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[str] = set()
    for key_node, _ in node.value:
        if key_node.tag == "tag:yaml.org,2002:merge":
            raise ConfigError("config_invalid", f"line {key_node.start_mark.line + 1}: merge keys are not used here")
        key = str(loader.construct_object(key_node, deep=True))
        if key in seen:
            raise ConfigError("config_invalid", f"line {key_node.start_mark.line + 1}: {key!r} stands twice")
        seen.add(key)
    return loader.construct_mapping(node, deep=True)


_UniqueKeyLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _unique_mapping)


def _parse(text: str, name: str) -> Any:
    """One YAML document. A date that is none raises ValueError in the loader, deep nesting RecursionError.

    **Security**: a refusal names the line and never repeats it, because a secret may stand there by mistake.
    """
    try:
        return yaml.load(text, Loader=_UniqueKeyLoader)  # noqa: S506 - a SafeLoader subclass
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ConfigError("config_invalid", f"{name}: not YAML: line {line}: {error.problem}") from None
    except (yaml.YAMLError, ValueError, RecursionError):
        raise ConfigError("config_invalid", f"{name}: not YAML, or holds a date or number that is none") from None


def load_config(text: str, base_dir: Path, environment: Mapping[str, str]) -> GatewayConfig:
    """Check a configuration text with the overrides of the environment.

    Raises ConfigError(``config_invalid``) with every finding in its detail.
    """
    if len(text) > CONFIG_MAX_BYTES:
        raise ConfigError("config_invalid", f"longer than {CONFIG_MAX_BYTES} bytes")
    raw = _parse(text, "the file")
    if not isinstance(raw, dict):
        raise ConfigError("config_invalid", "must be a mapping")
    _override(raw, environment)
    try:
        document = Document.model_validate(raw)
    except ValidationError as error:
        raise ConfigError("config_invalid", faults_in_words(error, Document)) from None
    return GatewayConfig(document, base_dir)


def _override(raw: dict[str, Any], environment: Mapping[str, str]) -> None:
    for name in sorted(environment):
        if not name.startswith(ENVIRONMENT_PREFIX):
            continue
        steps = name.removeprefix(ENVIRONMENT_PREFIX).lower().split("__")
        target: Any = raw
        for step in steps[:-1]:
            target = _descend(target, step, name)
        if not isinstance(target, dict):
            raise ConfigError("config_invalid", f"{name}: names no key")
        target[_spelling(target, steps[-1])] = _parse(environment[name], name)


def _descend(target: Any, step: str, name: str) -> Any:
    if isinstance(target, dict):
        return target.setdefault(_spelling(target, step), {})
    if isinstance(target, list) and step.isdigit() and int(step) < len(target):
        return target[int(step)]
    raise ConfigError("config_invalid", f"{name}: names no key")


def _spelling(target: dict[str, Any], step: str) -> str:
    """The existing key an environment step means; variables cannot spell '-' or '.'."""
    plain = re.sub(r"[-.]", "_", step)
    return next((key for key in target if re.sub(r"[-.]", "_", str(key).lower()) == plain), step)


def is_local(address: str) -> bool:
    """Whether a HOST:PORT can be reached from this machine only."""
    return is_loopback(address.rpartition(":")[0].strip("[]"))


def unsafe_findings(document: Document) -> list[str]:
    """What security rule 7 forbids to start; empty when nothing."""
    findings: list[str] = []
    listeners = [("listen.gate", document.listen.gate), ("listen.metrics", document.listen.metrics)]
    exposed = [name for name, address in listeners if address is not None and not is_local(address)]
    if document.listen.ext_authz is not None and not document.listen.ext_authz.is_local:
        exposed.append("listen.ext_authz")
    for name in exposed:
        if any(issuer.development for issuer in document.identity.issuers):
            findings.append(f"{name} is reachable from outside beside a development issuer")
        if any(bundle.freshness == "local" for bundle in document.bundles):
            findings.append(f"{name} is reachable from outside with freshness: local")
    return findings
