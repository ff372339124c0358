"""One gate process: starts its parts in order, reloads all or nothing, stops gracefully.

Guarantees: nothing listens before the policy is in force, the ledger can be written and open intents of an earlier run
are marked unknown; a reload that fails leaves everything as it was; a stop lets running calls finish or record their end.
"""

from __future__ import annotations

import asyncio
import gc
import os
import secrets
import socket
import sys
from functools import partial
from pathlib import Path
from time import time

from bundles.client_protocol import ClientStatus
from bundles.client_state import LeaseGuard, SystemClocks
from bundles.errors import BundleError, BundleRefused
from bundles.sequence import SequenceFile
from bundles.trusted_set import TrustedBundle, verify_bundle
from gateway.api.calls import CallsApi
from gateway.api.router import Router
from gateway.approvals.service import ApprovalLimits, ApprovalService
from gateway.assembly import (
    Assembly,
    build_assembly,
    edge_limits,
    read_bundle_files,
    remembered_as,
    trust_policy,
)
from gateway.bundle_follower import (
    RELOAD_WAIT_SECONDS,
    START_WAIT_SECONDS,
    BundleFollower,
    FollowedSource,
    followed_source,
)
from gateway.config import ConfigError, GatewayConfig, load_config
from gateway.connectors.tickets import TicketBook
from gateway.edge.server import RunningServer, start_server
from gateway.egress.dialer import UpstreamPools
from gateway.errors import GateError, GateMisuse
from gateway.flow.driver import Services
from gateway.flow.switches import POLL_SECONDS, SwitchBoard
from gateway.ledger.record import RecordDraft
from gateway.ledger.recovery_client import recover_open_intents
from gateway.ledger.writer import LedgerWriter
from gateway.operations.bundle_metrics import BundleMetrics
from gateway.operations.listener import MetricsListener
from gateway.operations.log import EVENT_GATE, LineLog
from gateway.operations.metrics import Metrics
from gateway.proxying import CallRunner
from gateway.running import Running
from gateway.store.keyfile import read_key_file
from gateway.store.port import RaiseSequence, Store, StoreUnavailable
from gateway.store.sealing import TenantKeys
from gateway.store.sqlite import SqliteStore
from pdp.engine import PolicyEngine
from pdp.errors import PdpError
from pdp.opa_server import OpaServerEngine
from pdp.prepared import PolicyPlane
from pdp.wasm.host import WasmEngine

OPERATOR_LOG = ("_gate", "_operations")
COLLECTOR_THRESHOLDS = (20_000, 50, 100)
"""Net new objects before a young, a middle and a full collection."""


def _wall_ms() -> int:
    return int(time() * 1000)


def trusted_bundle(config: GatewayConfig, highest_sequence: int) -> TrustedBundle:
    """The configured bundle, or the one last fetched, verified. Blocks on the disk. Raises `ConfigError`, `BundleRefused`."""
    raw, cosignatures = read_bundle_files(config)
    trust = trust_policy(config)
    return verify_bundle(raw, trust, now=int(time()), highest_sequence=highest_sequence, cosignatures=cosignatures)


class Gate:
    """A gate and everything it holds; made by `start_gate`."""

    def __init__(
        self,
        running: Running,
        log: LineLog,
        sequence: SequenceFile,
        config_path: Path | None,
        followed: tuple[LeaseGuard, BundleFollower] | None = None,
    ) -> None:
        self._running = running
        self._log = log
        self._sequence = sequence
        self._config_path = config_path
        self._followed = followed
        self._bundle_metrics: BundleMetrics | None = None
        if followed is not None:
            running.freshness = self._follower_status
            self._bundle_metrics = BundleMetrics(running.services.metrics.registry, self._follower_status)
        self._servers: list[RunningServer] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._reloading = asyncio.Lock()
        self.failed: asyncio.Event = asyncio.Event()
        runner = CallRunner(running, log)
        self.router = Router(running, runner, CallsApi(running, runner))
        self.port = 0
        self.metrics_port = 0

    @property
    def running(self) -> Running:
        """What is in force."""
        return self._running

    async def listen(self) -> None:
        """Open the listeners. Raises `OSError` when a port is taken."""
        config = self._running.assembly.config
        listen = config.document.listen
        host, port = config.endpoint(listen.gate)
        gate = await start_server(self.router.handle, host, port, edge_limits(config))
        self._servers.append(gate)
        self.port = gate.port
        if listen.metrics is not None:
            host, port = config.endpoint(listen.metrics)
            metrics = MetricsListener(self._running.services.metrics, self._running.services.writer)
            server = await start_server(metrics.handle, host, port, edge_limits(config))
            self._servers.append(server)
            self.metrics_port = server.port
        self._tasks.append(asyncio.create_task(self._watch(), name="gate-watch"))
        if self._followed is not None:
            self._followed[1].follow(self._install, self._say_bundle_fault)
        _calm_collector()

    async def _watch(self) -> None:
        """See switches that other processes set, and expire approvals whose time has come."""
        services = self._running.services
        while True:
            await asyncio.sleep(POLL_SECONDS)
            try:
                await services.switches.refresh(services.store)
                await services.approvals.expire_due()
            except Exception as error:
                self._log.line(EVENT_GATE, {"what": "watch_failed", "error": str(error)})

    async def reload(self) -> bool:
        """Read configuration and bundle anew and put both in force, or leave everything as it is."""
        async with self._reloading:
            try:
                await self._reload()
            except Exception as error:
                self._log.line(EVENT_GATE, {"what": "reload_refused", "error": str(error)})
                return False
            self._log.line(EVENT_GATE, {"what": "reloaded"})
            return True

    async def _reload(self) -> None:
        old, services = self._running.assembly, self._running.services
        config = old.config
        if self._config_path is not None:
            text = await asyncio.to_thread(self._config_path.read_text)
            config = load_config(text, self._config_path.resolve().parent, os.environ)
        for name in ("listen", "store", "ledger", "engine"):
            if getattr(config.document, name) != getattr(old.config.document, name):
                raise ConfigError("restart_needed", f"{name} changes only with a restart")
        if (config.document.bundles[0].freshness == "signed") is not (self._followed is not None):
            raise ConfigError("restart_needed", "bundles[0].freshness changes only with a restart")
        if self._followed is None:
            highest = await _highest(config, services.store, self._sequence)
            bundle = await asyncio.to_thread(trusted_bundle, config, highest)
            await self._put_in_force(config, bundle)
        else:
            await self._reload_followed(config, *self._followed)

    async def _reload_followed(self, config: GatewayConfig, guard: LeaseGuard, old: BundleFollower) -> None:
        """Follow another source, or the same one with other keys, once it gave a bundle that these accept.

        **Security**: what is in force is never carried over to keys that did not sign it.
        """
        source = await asyncio.to_thread(followed_source, config)
        active = self._running.services.policy.current()
        if source == old.source and active is not None:
            await self._put_in_force(config, active.bundle)
            return
        fresh = self._follower(config, source, guard)
        bundle = await fresh.fetched(RELOAD_WAIT_SECONDS)
        await self._put_in_force(config, bundle)
        await old.close()
        self._followed = (guard, fresh)
        await fresh.in_force()
        fresh.follow(self._install, self._say_bundle_fault)

    def _follower_status(self) -> ClientStatus:
        """How the bundle followed now stands; only asked while one is followed."""
        if self._followed is None:
            raise GateMisuse("no bundle is followed")
        return self._followed[1].status()

    def _follower(self, config: GatewayConfig, source: FollowedSource, guard: LeaseGuard) -> BundleFollower:
        services = self._running.services
        highest = partial(_highest, config, services.store, self._sequence)
        return BundleFollower(config, source, services.pools, guard, highest)

    async def _put_in_force(self, config: GatewayConfig, bundle: TrustedBundle) -> None:
        """Build everything beside what is in use, then swap; a failure leaves all as it was."""
        services = self._running.services
        fresh = await asyncio.to_thread(build_assembly, config, bundle, services.pools)
        await fresh.keys.start()
        try:
            active = services.policy.current()
            if active is None or active.bundle.digest != bundle.digest:
                await services.policy.load(bundle)
                await self.record_bundle(bundle)
        except BaseException:
            await fresh.keys.close()
            raise
        old, self._running.assembly = self._running.assembly, fresh
        services.metrics.bound_labels(fresh.labels)
        services.metrics.bundle_sequence.set(bundle.sequence)
        await old.keys.close()

    async def _install(self, bundle: TrustedBundle) -> None:
        """Put a bundle in force that the follower brought. Raises `BundleError`; then the old one stays."""
        async with self._reloading:
            try:
                await self._put_in_force(self._running.assembly.config, bundle)
            except (ConfigError, PdpError, GateError) as failed:
                raise BundleRefused(getattr(failed, "code", "bundle_unusable"), str(failed)) from failed
        self._log.line(EVENT_GATE, {"what": "bundle", "revision": bundle.revision, "sequence": bundle.sequence})

    def _say_bundle_fault(self, fault: BundleError) -> None:
        if self._bundle_metrics is not None:
            self._bundle_metrics.count_refused(fault.code)
        self._log.line(EVENT_GATE, {"what": "bundle_refused", "code": fault.code, "error": fault.detail})

    async def record_bundle(self, bundle: TrustedBundle) -> None:
        """Record which bundle came into force, and never go below its sequence again."""
        remembered = remembered_as(bundle.name, bundle.epoch)
        await asyncio.to_thread(self._sequence.raise_to, remembered, bundle.sequence)
        draft = RecordDraft(
            log=OPERATOR_LOG,
            kind="bundle",
            ids={},
            subject={},
            action={"name": "tidegate.bundle.load"},
            decision=None,
            policy={"bundle": bundle.digest, "revision": bundle.revision[:256], "sequence": bundle.sequence},
            digests={},
            actor="gateway",
        )
        effect = RaiseSequence(remembered, bundle.sequence)
        await self._running.services.writer.append(draft, effects=(effect,))

    async def close(self) -> None:
        """Accept nothing more, let calls finish for the configured grace, write what waits."""
        self._running.closing = True
        grace = self._running.assembly.config.document.limits.grace_seconds
        if self._followed is not None:
            await self._followed[1].close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for server in self._servers:
            await server.close(grace)
        services = self._running.services
        await services.pools.close()
        await self._running.assembly.keys.close()
        await services.policy.close()
        await services.writer.close()
        await services.store.close()
        await asyncio.to_thread(self._log.close)


async def _highest(config: GatewayConfig, store: Store, sequence: SequenceFile) -> int:
    configured = config.document.bundles[0]
    name = remembered_as(configured.name, configured.epoch)
    kept = await asyncio.to_thread(sequence.highest, name)
    try:
        stored = await store.sequence(name)
    except StoreUnavailable:
        return kept
    return max(kept, stored)


def _engine(config: GatewayConfig, cache_key: bytes) -> PolicyEngine | OpaServerEngine:
    engine = config.document.engine
    if engine == "wasm":
        cache = config.store_path.parent / "modules"
        return WasmEngine(cache, cache_key)
    return OpaServerEngine(engine.opa)


def check_ports(config: GatewayConfig) -> None:
    """Raise `OSError` when a listener's port is taken.

    Asked before the store is opened: a second gate on the same file would take the first one's running calls for lost.
    """
    for address in (config.document.listen.gate, config.document.listen.metrics):
        if address is None:
            continue
        host, port = config.endpoint(address)
        family, kind, _, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(place)


def _calm_collector() -> None:
    """What stands now stands for long: it is not looked through again, and young objects less often.

    A call makes no cycles, so a collection frees next to nothing and would only hold calls up.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECTOR_THRESHOLDS)


async def start_gate(config: GatewayConfig, *, config_path: Path | None = None, log: LineLog | None = None) -> Gate:
    """Start every part but the listeners, which `Gate.listen` opens.

    Raises `ConfigError`, `BundleRefused`, `PdpError`, `LedgerUnavailable`, `GateMisuse` (a secret or key is missing).
    """
    await asyncio.to_thread(check_ports, config)
    lines = log or LineLog(sys.stdout.buffer)
    secret = await asyncio.to_thread(read_key_file, config.file(config.document.ledger.hmac))
    keys = TenantKeys(secret)
    await asyncio.to_thread(config.store_path.parent.mkdir, parents=True, exist_ok=True, mode=0o700)
    store = SqliteStore(config.store_path, keys=keys, clock=_wall_ms)
    failed: asyncio.Event = asyncio.Event()
    loop = asyncio.get_running_loop()

    def on_fatal(cause: str) -> None:
        lines.line(EVENT_GATE, {"what": "ledger_failed", "error": cause})
        loop.call_soon_threadsafe(failed.set)

    writer = LedgerWriter(store, node=f"gate-{secrets.token_hex(4)}", on_fatal=on_fatal)
    await writer.start()
    pools = UpstreamPools()
    try:
        await store.open()
        gate = await _started(config, (store, writer), pools, keys, lines, config_path)
    except BaseException:
        await pools.close()
        await writer.close()
        await store.close()
        raise
    gate.failed = failed
    return gate


async def _started(
    config: GatewayConfig,
    ledger: tuple[SqliteStore, LedgerWriter],
    pools: UpstreamPools,
    keys: TenantKeys,
    lines: LineLog,
    config_path: Path | None,
) -> Gate:
    store, writer = ledger
    unknown = await recover_open_intents(store, writer)
    sequence = SequenceFile(config.file(config.document.ledger.sequence))
    highest = partial(_highest, config, store, sequence)
    followed: tuple[LeaseGuard, BundleFollower] | None = None
    if config.document.bundles[0].freshness == "signed":
        guard = LeaseGuard((await asyncio.to_thread(SystemClocks)).read)
        source = await asyncio.to_thread(followed_source, config)
        followed = guard, BundleFollower(config, source, pools, guard, highest)
        bundle = await followed[1].begin()
    else:
        bundle = await asyncio.to_thread(trusted_bundle, config, await highest())
    lease = followed[0].holds if followed is not None else None
    policy = PolicyPlane(_engine(config, keys.key("_gate", "record-hmac")), lease=lease)
    bundle = await _loaded(policy, bundle, followed[1] if followed is not None else None)
    services = _services(config, (store, writer), policy, keys, pools)
    assembly: Assembly = await asyncio.to_thread(build_assembly, config, bundle, services.pools)
    await assembly.keys.start()
    await services.switches.refresh(store)
    services.metrics.bound_labels(assembly.labels)
    services.metrics.bundle_sequence.set(bundle.sequence)
    gate = Gate(Running(services, keys, assembly, time()), lines, sequence, config_path, followed)
    await gate.record_bundle(bundle)
    if followed is not None:
        await followed[1].in_force()
    started = {"what": "started", "bundle": bundle.revision, "engine": policy_name(policy), "unknown": unknown}
    lines.line(EVENT_GATE, started)
    return gate


async def _loaded(policy: PolicyPlane, bundle: TrustedBundle, follower: BundleFollower | None) -> TrustedBundle:
    """Put the first bundle in force: where the one kept on disk no longer can be, one that the service has instead."""
    try:
        await policy.load(bundle)
    except PdpError:
        if follower is None or not follower.restored:
            raise
        bundle = await follower.fetched(START_WAIT_SECONDS)
        await policy.load(bundle)
    return bundle


def policy_name(policy: PolicyPlane) -> str | None:
    """The engine that answers, if a bundle is in force."""
    active = policy.current()
    return active.engine if active is not None else None


def _services(
    config: GatewayConfig,
    ledger: tuple[SqliteStore, LedgerWriter],
    policy: PolicyPlane,
    keys: TenantKeys,
    pools: UpstreamPools,
) -> Services:
    store, writer = ledger
    limits = config.document.limits
    approvals = ApprovalService(
        store,
        writer,
        clock=_wall_ms,
        random_bytes=secrets.token_bytes,
        tenant_key=keys.attach_key,
        limits=ApprovalLimits(open_per_subject_max=limits.holds_per_subject_max),
    )
    return Services(
        store=store,
        writer=writer,
        approvals=approvals,
        policy=policy,
        pools=pools,
        tickets=TicketBook(secrets.token_bytes),
        switches=SwitchBoard(),
        metrics=Metrics(),
    )
