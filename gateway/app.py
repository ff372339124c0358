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
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from time import time

from bundles.client_protocol import ClientStatus
from bundles.errors import BundleError, BundleRefused
from bundles.sequence import SequenceFile
from bundles.trusted_set import TrustedBundle
from gateway.api.calls import CallsApi
from gateway.api.router import Router
from gateway.approvals.service import ApprovalService
from gateway.assembly import Assembly, approval_limits, build_assembly
from gateway.bundle_config import Bundle
from gateway.bundle_set import BundleSet
from gateway.bundle_settings import merged_bundle, remembered_as
from gateway.config import ConfigError, GatewayConfig, load_config
from gateway.connectors.tickets import TicketBook
from gateway.cross_checking import CrossChecker, CrossCheckParts
from gateway.egress.dialer import UpstreamPools
from gateway.errors import GateError
from gateway.export.exporter import DecisionLogExporter
from gateway.export.starting_client import make_exporters
from gateway.flow.services import Services
from gateway.flow.switches import POLL_SECONDS, SwitchBoard
from gateway.ledger.outcomes_driver import OutcomeKeeper, Told
from gateway.ledger.record import RecordDraft
from gateway.ledger.recovery_client import recover_open_intents
from gateway.ledger.writer import LedgerWriter
from gateway.listening import Listeners, ListenFailed
from gateway.operations.bundle_metrics import BundleMetrics
from gateway.operations.log import EVENT_GATE, LineLog
from gateway.operations.metrics import Metrics
from gateway.policy_loading import PolicyLoader
from gateway.proxying import CallRunner
from gateway.quarantine_store import QuarantineStore
from gateway.quarantining import OPERATOR_LOG, Quarantine
from gateway.running import Running
from gateway.shadowing import ShadowRunner
from gateway.store.keyfile import read_key_file
from gateway.store.owner_driver import StoreOwner
from gateway.store.port import RaiseSequence, Store, StoreUnavailable
from gateway.store.process_client import store_link
from gateway.store.sealing import Sealer, TenantKeys
from gateway.store.sqlite_reads_driver import SqliteReads
from pdp.bundle_verifier import BundleVerifier
from pdp.engine import PolicyEngine
from pdp.errors import PdpError
from pdp.opa_server import OpaServerEngine
from pdp.prepared import PolicyPlane, ReadyPolicy
from pdp.wasm.host import WasmEngine

COLLECTOR_THRESHOLDS = (20_000, 50, 100)
"""Net new objects before a young, a middle and a full collection."""
STORE_SECONDS = 5.0
"""How long after the calls' grace the store may take for what it was given last."""
SWITCH_SECONDS = 0.0005
"""How long a thread beside the loop may hold the interpreter while the loop waits for it; Python's own 5 ms, each time the loop
wakes up, would show in every call while a bundle is prepared."""


def _wall_ms() -> int:
    return int(time() * 1000)


class Gate:
    """A gate and everything it holds; made by `start_gate`."""

    def __init__(
        self,
        running: Running,
        log: LineLog,
        sequence: SequenceFile,
        config_path: Path | None,
        bundles: BundleSet,
        loader: PolicyLoader,
    ) -> None:
        self._running = running
        self._log = log
        self._sequence = sequence
        self._config_path = config_path
        self._bundles = bundles
        self._loader = loader
        self._recorded: dict[str, str] = {}
        running.bundles, running.verify = bundles.states, bundles.verify
        self._bundle_metrics: BundleMetrics | None = None
        if bundles.is_leased:
            self._bundle_metrics = BundleMetrics(running.services.metrics.registry, self._statuses)
        self._tasks: list[asyncio.Task[None]] = []
        self._exporters: list[DecisionLogExporter] = []
        self._reloading = asyncio.Lock()
        self.failed: asyncio.Event = asyncio.Event()
        self.owner: StoreOwner | None = None
        self._runner = CallRunner(running, log)
        self.router = Router(running, self._runner, CallsApi(running, self._runner))
        self._listeners = Listeners(running, log, self._runner, self.router.handle)

    @property
    def running(self) -> Running:
        """What is in force."""
        return self._running

    @property
    def port(self) -> int:
        """The gate's port; 0 until it has one."""
        return self._listeners.port

    @property
    def metrics_port(self) -> int:
        """The port of `/metrics`; 0 without one."""
        return self._listeners.metrics_port

    async def listen(self) -> None:
        """Open the listeners. Raises `ListenFailed` when a port is taken, `GateMisuse` for a collector's unreadable token."""
        exporters = await asyncio.to_thread(make_exporters, self._running, self._log)
        await self._listeners.bind()
        config = self._running.assembly.config
        bound = replace(config, gate_port=self.port)
        if bound.external_url != config.external_url:
            await self._put_in_force(bound, self._bundles.bundles())
        await self._listeners.serve()
        self._tasks.append(asyncio.create_task(self._watch(), name="gate-watch"))
        self._exporters = exporters
        for exporter in exporters:
            exporter.start()
        self._bundles.follow(self._install, self._say_bundle_fault)
        _calm_collector()
        sys.setswitchinterval(SWITCH_SECONDS)

    async def _watch(self) -> None:
        """See switches that other processes set, expire approvals whose time has come, and count those that wait."""
        services = self._running.services
        while True:
            await asyncio.sleep(POLL_SECONDS)
            try:
                await services.switches.refresh(services.store)
                await services.approvals.expire_due()
                services.metrics.approvals_pending.set(await services.store.approvals_pending(_wall_ms()))
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
        old = self._running.assembly
        config = old.config
        if self._config_path is not None:
            read = await asyncio.to_thread(_read_config, self._config_path)
            config = replace(read, gate_port=old.config.gate_port)
        for name in ("listen", "store", "ledger", "engine", "decision_logs"):
            if getattr(config.document, name) != getattr(old.config.document, name):
                raise ConfigError("restart_needed", f"{name} changes only with a restart")
        if any(bundle.freshness == "signed" for bundle in config.document.bundles) is not self._bundles.is_leased:
            raise ConfigError("restart_needed", "bundles are followed, or are not, from a start on")
        self._listeners.check_limits(config)
        members = await self._bundles.prepared(config)
        await self._put_in_force(config, {name: member.bundle for name, member in members.items()})
        await self._bundles.adopt(members, self._install, self._say_bundle_fault)

    async def _put_in_force(self, config: GatewayConfig, bundles: Mapping[str, TrustedBundle]) -> None:
        """Build everything beside what is in use, record what comes into force, then swap, which cannot fail.

        A failure leaves all as it was.
        """
        services = self._running.services
        merged = merged_bundle(config, bundles)
        fresh = await asyncio.to_thread(build_assembly, config, merged, services.pools)
        await fresh.keys.start()
        ready: ReadyPolicy | None = None
        try:
            active = services.policy.current()
            if active is None or active.bundle.digest != merged.digest:
                ready = await self._loader.prepare(merged, bundles[config.document.full_bundle.name])
            await self.record_bundles(bundles)
        except BaseException:
            await fresh.keys.close()
            if ready is not None:
                await services.policy.discard(ready)
            raise
        old, self._running.assembly = self._running.assembly, fresh
        self._running.gate_hosts = config.hosts(config.document.listen.gate, self.port)
        self._listeners.take_limits(config)
        services.approvals.limits = approval_limits(config)
        services.metrics.bound_labels(fresh.labels)
        services.metrics.bundle_sequence.set(merged.sequence)
        if ready is not None:
            await self._loader.put_in_force(ready)  # in the same turn of the loop
        await old.keys.close()
        if self._running.shadow is not None:
            await self._running.shadow.configure(config, bundles)
        if self._running.cross_check is not None:
            await self._running.cross_check.configure(config, merged)

    async def _install(self, name: str, bundle: TrustedBundle) -> None:
        """Put a bundle in force that its follower brought. Raises `BundleError`; then the old one stays."""
        async with self._reloading:
            try:
                await self._put_in_force(self._running.assembly.config, {**self._bundles.bundles(), name: bundle})
            except (ConfigError, PdpError, GateError) as failed:
                raise BundleRefused(getattr(failed, "code", "bundle_unusable"), str(failed)) from failed
            self._bundles.replaced(name, bundle)
        fields = {"what": "bundle", "name": name, "revision": bundle.revision, "sequence": bundle.sequence}
        self._log.line(EVENT_GATE, fields)

    def _statuses(self) -> list[ClientStatus]:
        """How the bundles that are followed stand."""
        return [state.status for state in self._bundles.states() if state.status is not None]

    def _say_bundle_fault(self, fault: BundleError) -> None:
        if self._bundle_metrics is not None:
            self._bundle_metrics.count_refused(fault.code)
        self._log.line(EVENT_GATE, {"what": "bundle_refused", "code": fault.code, "error": fault.detail})

    async def begin_shadow(self, bundles: Mapping[str, TrustedBundle]) -> None:
        """Compare and keep decisions from now on as the configuration says."""
        services = self._running.services
        shadow = ShadowRunner(
            services.writer, services.metrics.registry, services.watch, self._say_shadow_fault, self._bundles.verify
        )
        self._running.shadow = shadow
        await shadow.configure(self._running.assembly.config, bundles)

    async def begin_cross_check(self, merged: TrustedBundle) -> None:
        """Put decisions to OPA as well from now on, as the configuration says."""
        services, quarantine = self._running.services, self._loader.quarantine
        registry, said = services.metrics.registry, _says(self._log)
        parts = CrossCheckParts(services.writer, registry, services.watch, quarantine, said)
        self._running.cross_check = CrossChecker(parts)
        await self._running.cross_check.configure(self._running.assembly.config, merged)

    def _say_shadow_fault(self, code: str, detail: str) -> None:
        self._log.line(EVENT_GATE, {"what": "shadow_refused", "code": code, "error": detail})

    async def record_bundles(self, bundles: Mapping[str, TrustedBundle]) -> None:
        """Record which bundles come into force, and never go below their sequences again.

        The file is raised last: a bundle that could not be recorded must not keep the one before it from a start.
        """
        fresh = [bundle for bundle in bundles.values() if self._recorded.get(bundle.name) != bundle.digest]
        await asyncio.gather(*[self._record(*_bundle_record(bundle)) for bundle in fresh])
        for bundle in fresh:
            remembered = remembered_as(bundle.name, bundle.epoch)
            await asyncio.to_thread(self._sequence.raise_to, remembered, bundle.sequence)
            self._recorded[bundle.name] = bundle.digest

    async def _record(self, draft: RecordDraft, effect: RaiseSequence) -> None:
        await self._running.services.writer.append(draft, effects=(effect,))

    async def close(self) -> None:
        """Accept nothing more, let calls finish for the configured grace, write what waits."""
        self._running.closing = True
        self._running.services.approvals.stop_waiting()
        grace = self._running.assembly.config.document.limits.grace_seconds
        self._running.services.writer.end_within(grace + STORE_SECONDS)
        await self._listeners.close(grace)  # while calls end, switches are still seen and leases still renewed
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._bundles.close()
        for exporter in self._exporters:
            await exporter.close()
        services = self._running.services
        if self._running.shadow is not None:
            await self._running.shadow.close()
        if self._running.cross_check is not None:
            await self._running.cross_check.close()
        await services.pools.close()
        await self._running.assembly.keys.close()
        await services.policy.close()
        if await services.outcomes.close():
            self.failed.set()
        await services.writer.close()
        await services.store.close()
        if self.owner is not None:
            await asyncio.to_thread(self.owner.release)
        await asyncio.to_thread(self._log.close)


def _read_config(path: Path) -> GatewayConfig:
    """The configuration as it is now. Blocks on the disk; raises `ConfigError`, `OSError`."""
    return load_config(path.read_text(encoding="utf-8"), path.resolve().parent, os.environ)


def _bundle_record(bundle: TrustedBundle) -> tuple[RecordDraft, RaiseSequence]:
    """The record of a bundle that comes into force, and what the store remembers with it."""
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
    return draft, RaiseSequence(remembered_as(bundle.name, bundle.epoch), bundle.sequence)


async def _highest(store: Store, sequence: SequenceFile, configured: Bundle) -> int:
    name = remembered_as(configured.name, configured.epoch)
    kept = await asyncio.to_thread(sequence.highest, name)
    try:
        stored = await store.sequence(name)
    except StoreUnavailable:
        return kept
    return max(kept, stored)


def _engine(config: GatewayConfig, cache_key: bytes) -> PolicyEngine | OpaServerEngine:
    """The configured engine. Blocks on the disk and, for its self-test, on the processor."""
    engine = config.document.engine
    if engine == "wasm":
        cache = config.store_path.parent / "modules"
        return WasmEngine(cache, cache_key)
    return OpaServerEngine(engine.opa)


def check_ports(config: GatewayConfig) -> None:
    """Raise `ListenFailed` when a listener's port is taken.

    Asked before the store is opened, so that a second gate is told about the port, which is what people see first.
    """
    for name, address in (("gate", config.document.listen.gate), ("metrics", config.document.listen.metrics)):
        if address is None:
            continue
        host, port = config.endpoint(address)
        try:
            family, kind, _, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
            with socket.socket(family, kind) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(place)
        except OSError as error:
            raise ListenFailed(name, address, error) from error


def _calm_collector() -> None:
    """What stands now stands for long: it is not looked through again, and young objects less often.

    A call makes no cycles, so a collection frees next to nothing and would only hold calls up.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECTOR_THRESHOLDS)


async def start_gate(config: GatewayConfig, *, config_path: Path | None = None, log: LineLog | None = None) -> Gate:
    """Start every part but the listeners, which `Gate.listen` opens.

    Raises `ListenFailed`, `ConfigError`, `BundleRefused`, `PdpError`, `LedgerUnavailable`, `StoreUnavailable` (another gate owns the
    store), `GateMisuse` (a secret or key is missing).
    """
    await asyncio.to_thread(check_ports, config)
    lines = log or LineLog(sys.stdout.buffer)
    secret = await asyncio.to_thread(read_key_file, config.file(config.document.ledger.hmac))
    keys = TenantKeys(secret)
    await asyncio.to_thread(config.store_path.parent.mkdir, parents=True, exist_ok=True, mode=0o700)
    owner = await asyncio.to_thread(StoreOwner, config.store_path)
    store = SqliteReads(config.store_path, sealer=Sealer(keys, os.urandom), clock=_wall_ms)
    failed: asyncio.Event = asyncio.Event()
    loop = asyncio.get_running_loop()

    def on_fatal(cause: str) -> None:
        lines.line(EVENT_GATE, {"what": "ledger_failed", "error": cause})
        loop.call_soon_threadsafe(failed.set)

    link = store_link(config.store_path, secret, owner.held)
    writer = LedgerWriter(link, node=f"gate-{secrets.token_hex(4)}", on_fatal=on_fatal)
    pools = UpstreamPools()
    try:
        await writer.start()
        await store.open()
        gate = await _started(config, (store, writer), pools, keys, lines, config_path)
    except BaseException:
        await pools.close()
        await writer.close()
        await store.close()
        await asyncio.to_thread(owner.release)
        raise
    gate.failed, gate.owner = failed, owner
    return gate


async def _started(
    config: GatewayConfig,
    ledger: tuple[SqliteReads, LedgerWriter],
    pools: UpstreamPools,
    keys: TenantKeys,
    lines: LineLog,
    config_path: Path | None,
) -> Gate:
    store, writer = ledger
    unknown = await recover_open_intents(store, writer)
    sequence = SequenceFile(config.file(config.document.ledger.sequence))
    bundles = BundleSet(pools, partial(_highest, store, sequence), BundleVerifier())
    await bundles.begin(config)
    engine = await asyncio.to_thread(_engine, config, keys.key("_gate", "record-hmac"))
    policy = PolicyPlane(engine, lease=bundles.holds, decides_for=bundles.decides_for)
    loader = PolicyLoader(policy, engine, Quarantine(QuarantineStore.of(config), policy, writer, _says(lines)))
    merged = await loader.first(config, bundles)
    services = _services(config, (store, writer), policy, keys, pools, lines)
    services.metrics.dispatch_unknown.inc(unknown)
    assembly: Assembly = await asyncio.to_thread(build_assembly, config, merged, services.pools)
    await assembly.keys.start()
    await services.switches.refresh(store)
    services.metrics.bound_labels(assembly.labels)
    services.metrics.bundle_sequence.set(merged.sequence)
    gate = Gate(Running(services, keys, assembly, time()), lines, sequence, config_path, bundles, loader)
    await gate.record_bundles(bundles.bundles())
    await bundles.in_force()
    await gate.begin_shadow(bundles.bundles())
    await gate.begin_cross_check(merged)
    started = {"what": "started", "bundle": merged.revision, "engine": loader.engine_name, "unknown": unknown}
    lines.line(EVENT_GATE, started)
    return gate


def _says(lines: LineLog) -> Callable[[str, dict[str, object]], None]:
    """Takes what happened and what is known of it for the log."""
    return lambda what, fields: lines.line(EVENT_GATE, {"what": what, **fields})


def _services(
    config: GatewayConfig,
    ledger: tuple[SqliteReads, LedgerWriter],
    policy: PolicyPlane,
    keys: TenantKeys,
    pools: UpstreamPools,
    lines: LineLog,
) -> Services:
    store, writer = ledger
    metrics = Metrics()

    def told(said: Told) -> None:
        metrics.outcomes_waiting.set(said.waiting)
        lines.line(EVENT_GATE, said._asdict())

    approvals = ApprovalService(
        store,
        writer,
        clock=_wall_ms,
        random_bytes=secrets.token_bytes,
        tenant_key=keys.attach_key,
        limits=approval_limits(config),
    )
    return Services(
        store=store,
        writer=writer,
        approvals=approvals,
        policy=policy,
        pools=pools,
        tickets=TicketBook(secrets.token_bytes),
        switches=SwitchBoard(),
        metrics=metrics,
        outcomes=OutcomeKeeper(writer, tell=told),
    )
