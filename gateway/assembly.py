"""Everything that one configuration and one bundle make together, built beside what is in use and swapped whole.

Guarantees: an `Assembly` exists only when every instance has a manifest, a credential and allowed addresses, and every
secret could be read; whatever is wrong raises before anything changes. Leaves starting and swapping to `gateway.app`.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from time import monotonic

from bundles.manifest import ConnectorManifest, load_manifests
from bundles.trusted_set import TrustedBundle
from gateway.api.operations import CONNECTOR, OPERATIONS, action_name
from gateway.approvals.service import ApprovalLimits
from gateway.config import ConfigError, GatewayConfig, Instance, Issuer, unsafe_findings
from gateway.connectors.arguments import SchemaSet
from gateway.connectors.classify import ActionTable
from gateway.connectors.credentials import TOKEN_ANSWER_MAX_BYTES, CredentialInjector, SecretReader, TokenExchange
from gateway.connectors.outbound import header_policy
from gateway.connectors.rewrite import RewriteTarget
from gateway.connectors.rewriters import Rewriters
from gateway.edge.headers import HeaderPairs
from gateway.edge.identity import IdentityVerifier, IssuerPolicy
from gateway.edge.jwks import JwksStore
from gateway.edge.limits import EdgeLimits
from gateway.edge.problem import refusal
from gateway.edge.tokens import needs_form
from gateway.egress.addresses import AddressClass
from gateway.egress.dialer import UpstreamPool, UpstreamPools
from gateway.egress.errors import UpstreamError
from gateway.egress.exchange import UpstreamTimeouts
from gateway.egress.fetch import fetch_document
from gateway.flow.services import Reach, Target
from gateway.flow.values import FlowLimits, InstancePlan


@dataclass(frozen=True, slots=True)
class Assembly:
    """One configuration in force: plans by instance name, and what calls reach."""

    config: GatewayConfig
    plans: Mapping[str, InstancePlan]
    reach: Reach
    keys: JwksStore
    limits: FlowLimits
    labels: frozenset[str]


def edge_limits(config: GatewayConfig) -> EdgeLimits:
    """The edge's limits as configured."""
    limits = config.document.limits
    return EdgeLimits(
        header_read_seconds=limits.header_read_seconds,
        body_read_seconds=limits.body_read_seconds,
        idle_seconds=limits.idle_seconds,
        uri_max_bytes=limits.uri_max_bytes,
        headers_max_bytes=limits.headers_max_bytes,
        headers_max_count=limits.headers_max_count,
        body_max_bytes=limits.body_max_bytes,
    )


def approval_limits(config: GatewayConfig) -> ApprovalLimits:
    """The approval service's limits as configured."""
    limits = config.document.limits
    return ApprovalLimits(wait_max_seconds=limits.hold_max_seconds, open_per_subject_max=limits.holds_per_subject_max)


def issuer_policy(issuer: Issuer) -> IssuerPolicy:
    """One issuer as the verifier takes it."""
    return IssuerPolicy(
        issuer=issuer.issuer,
        audience=issuer.audience,
        algorithms=tuple(issuer.algorithms),
        tenants=tuple(issuer.tenants),
        development=issuer.development,
        people=issuer.people,
        leeway_seconds=issuer.leeway_seconds,
        max_lifetime_seconds=issuer.lifetime_max_seconds,
        roles=tuple(issuer.roles) if issuer.roles is not None else None,
    )


def build_assembly(
    config: GatewayConfig, bundle: TrustedBundle, pools: UpstreamPools, environment: Mapping[str, str] | None = None
) -> Assembly:
    """Compile everything. Blocks on the disk and the processor: call it in a thread.

    Raises `ConfigError`, `BundleRefused`, `CredentialError`.
    """
    document = config.document
    findings = unsafe_findings(document)
    if findings:
        raise ConfigError("config_unsafe", "; ".join(findings))
    manifests = load_manifests(bundle.data)
    secrets = SecretReader(environment if environment is not None else os.environ, config.base_dir)
    plans: dict[str, InstancePlan] = {}
    targets: dict[str, Target] = {}
    compiled: dict[str, tuple[ActionTable, SchemaSet]] = {}
    for name, instance in document.instances.items():
        manifest = manifests.get(instance.connector)
        if manifest is None:
            raise ConfigError("config_invalid", f"instances.{name}: the bundle has no connector {instance.connector}")
        if instance.connector not in compiled:
            compiled[instance.connector] = (ActionTable(manifest), SchemaSet(manifest))
        table, schemas = compiled[instance.connector]
        plans[name] = _plan(name, instance, manifest, (table, schemas))
    for name, plan in plans.items():
        rewriters = _named_by(plan, plans, config.external_url)
        targets[name] = _target(name, document.instances[name], plan.table, secrets, rewriters)
    keys = _keys(config, pools)
    verifier = IdentityVerifier({i.issuer: issuer_policy(i) for i in document.identity.issuers}, keys)
    reach = Reach(verifier, keys, targets, _timeouts(config), document.limits.stream_max_seconds, plans)
    labels = {CONNECTOR, *map(action_name, OPERATIONS)} | set(manifests)
    labels.update(action.name for manifest in manifests.values() for action in manifest.actions)
    return Assembly(config, plans, reach, keys, _flow_limits(config), frozenset(labels))


def _keys(config: GatewayConfig, pools: UpstreamPools) -> JwksStore:
    """Where each issuer's keys come from; a key set at a URL is fetched under the egress rules, from public addresses."""
    sources = {}
    for issuer in config.document.identity.issuers:
        is_file = issuer.jwks.startswith("file:")
        sources[issuer.issuer] = f"file:{config.file(issuer.jwks)}" if is_file else issuer.jwks

    async def fetch(url: str, max_bytes: int) -> bytes:
        return await fetch_document(pools.pool("_gate", "_keys", "", frozenset()), url, max_bytes)

    return JwksStore(sources, clock=monotonic, fetch=fetch)


def _named_by(plan: InstancePlan, plans: Mapping[str, InstancePlan], external_url: str) -> Rewriters:
    """How answers of `plan` name itself, and the other instances among its manifest's hosts, by name or by connector."""

    def named(plan: InstancePlan) -> RewriteTarget:
        return RewriteTarget(plan.name, plan.base_url, f"{external_url}/c/{plan.name}")

    hosts = plan.manifest.rewrite.hosts
    others = [other for other in plans.values() if other is not plan]
    hit = [other for other in others if other.name in hosts or other.manifest.connector in hosts]
    return Rewriters(plan.manifest, named(plan), [(named(other), other.admits) for other in hit])


def _plan(
    name: str,
    instance: Instance,
    manifest: ConnectorManifest,
    compiled: tuple[ActionTable, SchemaSet],
) -> InstancePlan:
    overriding = [action for action in manifest.actions if action.caller_token is not None]
    places = manifest.caller_token
    return InstancePlan(
        name=name,
        manifest=manifest,
        table=compiled[0],
        schemas=compiled[1],
        headers=header_policy(manifest),
        tenants=frozenset(instance.tenants),
        workspaces=frozenset(instance.workspaces),
        environments=frozenset(instance.environments),
        base_url=instance.base_url.rstrip("/"),
        wants_form=needs_form(places, manifest.credential_places),
        has_token_overrides=bool(overriding),
    )


def _target(
    name: str,
    instance: Instance,
    table: ActionTable,
    secrets: SecretReader,
    rewriters: Rewriters,
) -> Target:
    try:
        allowed = frozenset({AddressClass.PUBLIC, *(AddressClass(named) for named in instance.allow_addresses)})
    except ValueError as error:
        raise ConfigError("config_invalid", f"instances.{name}.allow_addresses: {error}") from error
    pool = UpstreamPool(allowed)
    injector = CredentialInjector(
        table.manifest.auth, instance.credential, secrets, exchange=_token_exchange(pool), clock=monotonic
    )
    fingerprint = hashlib.sha256(repr(sorted(instance.credential.items())).encode()).hexdigest()[:16]
    return Target(instance.base_url.rstrip("/"), injector, fingerprint, allowed, rewriters, table)


def _token_exchange(pool: UpstreamPool) -> TokenExchange:
    async def exchange(url: str, headers: HeaderPairs, body: bytes) -> tuple[int, bytes]:
        """However this ends, the call that needs the token was not sent: a refusal says so, an egress error would not."""
        try:
            response = await pool.request("POST", url, headers, body)
            try:
                return response.status, await response.read(TOKEN_ANSWER_MAX_BYTES)
            finally:
                await response.close()
        except UpstreamError as failed:
            raise refusal(failed.code, f"the token endpoint of the service gave no token: {failed.detail}") from failed

    return exchange


def _timeouts(config: GatewayConfig) -> UpstreamTimeouts:
    limits = config.document.limits
    return UpstreamTimeouts(
        connect_seconds=limits.upstream_connect_seconds,
        first_byte_seconds=limits.upstream_answer_seconds,
        between_bytes_seconds=limits.upstream_idle_seconds,
    )


def _flow_limits(config: GatewayConfig) -> FlowLimits:
    limits = config.document.limits
    return FlowLimits(
        body_max_bytes=limits.body_max_bytes,
        response_buffer_max_bytes=limits.response_buffer_max_bytes,
        stored_answer_max_bytes=limits.stored_answer_max_bytes,
        stored_answer_keep_seconds=limits.stored_answer_keep_seconds,
        hold_max_seconds=limits.hold_max_seconds,
    )
