"""``tidegate gateway``: run the gate, or check what it would enforce."""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import signal
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
import yaml

from bundles.errors import BundleError
from bundles.sequence import SequenceFile
from cli.findings import Finding, file_findings
from cli.output import EXIT_REFUSED, EXIT_UNAVAILABLE, JSON_OPTION, emit, fail, shown
from cli.token import read_config
from gateway.app import Gate, start_gate
from gateway.approvals.render import rfc3339
from gateway.assembly import build_assembly
from gateway.bundle_settings import merged_bundle, remembered_as, trusted_bundle
from gateway.config import ConfigError, Document, GatewayConfig, unsafe_findings
from gateway.edge.jwks import read_key_set
from gateway.egress.dialer import UpstreamPools
from gateway.errors import GateError, GateUnavailable
from gateway.operations.enforcement import BundleState, InForce, enforcement
from gateway.quarantine import Entry
from gateway.quarantine_store import QuarantineStore
from gateway.store.keyfile import read_key_file
from pdp.errors import PdpError

if TYPE_CHECKING:
    from rich.console import Console

app = typer.Typer(no_args_is_help=True, help="Run the gate; check its configuration.")
CONFIG_OPTION = typer.Option(Path("tidegate.yaml"), "--config", help="The configuration file.")
EXIT_LEDGER_FAILED = 1


@app.command()
def run(config: Path = CONFIG_OPTION, as_json: bool = JSON_OPTION) -> None:
    """Start the gate. SIGHUP reloads, SIGTERM and SIGINT stop it after running calls have ended."""
    loaded = read_config(config, as_json=as_json)
    findings = unsafe_findings(loaded.document)
    if findings:
        fail("config_unsafe", "; ".join(findings), as_json=as_json)
    try:
        status = _run_loop(loaded, config)
    except (ConfigError, BundleError, PdpError) as error:
        fail(error.code, error.detail, as_json=as_json)
    except GateUnavailable as error:
        fail(
            getattr(error, "code", "unavailable"),
            getattr(error, "detail", str(error)),
            status=EXIT_UNAVAILABLE,
            as_json=as_json,
        )
    except GateError as error:
        fail(getattr(error, "code", "config_invalid"), getattr(error, "detail", str(error)), as_json=as_json)
    except OSError as error:
        fail("start_failed", str(error), status=EXIT_UNAVAILABLE, as_json=as_json)
    raise typer.Exit(status)


def _run_loop(config: GatewayConfig, path: Path) -> int:
    factory: Callable[[], asyncio.AbstractEventLoop] | None = None
    if importlib.util.find_spec("uvloop") is not None:
        factory = importlib.import_module("uvloop").new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(_serve(config, path))


async def _serve(config: GatewayConfig, path: Path) -> int:
    stop, asked_early = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    reloads: set[asyncio.Task[bool]] = set()
    loop.add_signal_handler(signal.SIGHUP, asked_early.set)  # by itself it would end a gate that starts
    gate = await start_gate(config, config_path=path)

    def reload() -> None:
        task = loop.create_task(gate.reload(), name="reload")
        reloads.add(task)
        task.add_done_callback(reloads.discard)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    try:
        await gate.listen()
        loop.add_signal_handler(signal.SIGHUP, reload)
        if asked_early.is_set():  # what has been read may be older than the change
            reload()
        await _first(gate, stop)
    finally:
        await gate.close()
    return EXIT_LEDGER_FAILED if gate.failed.is_set() else 0


async def _first(gate: Gate, stop: asyncio.Event) -> None:
    waits = [asyncio.create_task(event.wait(), name="gate-end") for event in (stop, gate.failed)]
    _, pending = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    for task in pending:
        task.cancel()


def issuer_findings(document: Document) -> list[Finding]:
    """Issuers that grant no role because nobody said which they may grant; an empty list says so on purpose."""
    return [
        Finding(
            f"the issuer {issuer.issuer} names no roles, so it grants none: a token of it with a role is refused",
            "list the roles it may grant as its roles, or write roles: [] when none is meant",
        )
        for issuer in document.identity.issuers
        if issuer.roles is None and not issuer.development
    ]


def policy_findings(uncovered_instances: Iterable[str]) -> list[Finding]:
    """Instances whose every call is denied because the bundle has no policy for their connector."""
    return [
        Finding(
            f"the instance {name} has no policy: every call to it is denied",
            "add policies for its connector to the bundle and build it again, or take the instance out",
        )
        for name in uncovered_instances
    ]


def tenant_findings(document: Document) -> list[Finding]:
    """Instances and tenants whose calls no bundle decides."""
    decided = set(document.full_bundle.tenants)
    if "*" in decided:
        return []
    return [
        Finding(
            f"no bundle decides for the tenant {tenant} of the instance {name}: its calls are refused",
            f"add {tenant} to the tenants of the bundle {document.full_bundle.name}, or take it out of the instance",
        )
        for name, instance in document.instances.items()
        for tenant in instance.tenants
        if tenant not in decided
    ]


def quarantine_findings(quarantined: Entry | None) -> list[Finding]:
    """Whether the bundle may not decide because OPA decided otherwise under it."""
    if quarantined is None:
        return []
    return [
        Finding(
            f"the bundle is quarantined: OPA decided the call {quarantined.call} otherwise",
            "put another bundle in force; or tidegate gateway release, once you know why",
        )
    ]


def check_config(config: GatewayConfig) -> dict[str, Any]:
    """What the gate would enforce with this configuration, and what in it was hardly meant so.

    Raises what starting would raise.
    """
    findings = unsafe_findings(config.document)
    if findings:
        raise ConfigError("config_unsafe", "; ".join(findings))
    sequence = SequenceFile(config.file(config.document.ledger.sequence))
    states = []
    for configured in sorted(config.document.bundles, key=lambda bundle: bundle.data_only):
        highest = sequence.highest(remembered_as(configured.name, configured.epoch))
        states.append(BundleState(trusted_bundle(config, configured, highest), configured))
    merged = merged_bundle(config, {state.configured.name: state.bundle for state in states})
    read_key_file(config.file(config.document.ledger.hmac))
    for issuer in config.document.identity.issuers:
        if issuer.jwks.startswith("file:"):
            read_key_set(config.file(issuer.jwks))

    async def build() -> dict[str, Any]:
        assembly = await asyncio.to_thread(build_assembly, config, merged, UpstreamPools())
        engine = config.document.engine
        in_force = InForce(tuple(states), engine if isinstance(engine, str) else "opa")
        return enforcement(in_force, assembly.plans, ())

    enforced = asyncio.run(build())
    quarantined = QuarantineStore.of(config).entries().get(merged.digest)
    found = [
        *file_findings(config),
        *issuer_findings(config.document),
        *tenant_findings(config.document),
        *policy_findings(enforced["uncovered_instances"]),
        *quarantine_findings(quarantined),
    ]
    return {"config": config.effective(), "enforcement": enforced, "findings": [asdict(one) for one in found]}


@app.command()
def check(config: Path = CONFIG_OPTION, as_json: bool = JSON_OPTION) -> None:
    """Print the effective configuration with every default, and what would be enforced; exit 1 when it cannot be."""
    loaded = read_config(config, as_json=as_json)
    try:
        found = check_config(loaded)
    except (ConfigError, BundleError) as error:
        fail(error.code, error.detail, status=EXIT_REFUSED, as_json=as_json)
    except GateError as error:
        fail(getattr(error, "code", "config_invalid"), getattr(error, "detail", str(error)), as_json=as_json)
    emit(as_json, found, lambda console: _say(console, found))


@app.command()
def release(
    bundle: str = typer.Argument("", help="The digest of a quarantined bundle; without one, they are listed."),
    config: Path = CONFIG_OPTION,
    as_json: bool = JSON_OPTION,
) -> None:
    """Let a bundle decide again that the cross-check with OPA took out of force; the gate does so from its next SIGHUP on."""
    store = QuarantineStore.of(read_config(config, as_json=as_json))
    try:
        entries = store.entries()
        if bundle:
            if bundle not in entries:
                fail("not_found", "this bundle is not quarantined", status=EXIT_REFUSED, as_json=as_json)
            store.release(bundle)
    except GateUnavailable as error:
        detail = getattr(error, "detail", str(error))
        fail(getattr(error, "code", "unavailable"), detail, status=EXIT_UNAVAILABLE, as_json=as_json)
    items = [{"bundle": digest, **asdict(entry)} for digest, entry in entries.items() if bundle in ("", digest)]
    emit(as_json, {"released": bool(bundle), "items": items}, lambda console: _say_quarantine(console, items, bundle))


def _say_quarantine(console: Console, items: list[dict[str, Any]], released: str) -> None:
    for item in items:
        console.print(f"{shown(item['bundle'])} since {rfc3339(item['at_ms'])}, call {shown(item['call'])}")
    if released:
        console.print("released; send the gate SIGHUP")
    elif not items:
        console.print("no bundle is quarantined")


def _say(console: Console, found: dict[str, Any]) -> None:
    for line in yaml.safe_dump(found["config"], sort_keys=False, allow_unicode=True).splitlines():
        console.print(shown(line))
    enforced = found["enforcement"]
    for bundle in enforced["bundles"]:
        console.print(
            f"bundle {shown(bundle['name'])} revision {shown(bundle['revision'])} sequence {bundle['sequence']}"
        )
    for instance in enforced["instances"]:
        console.print(
            f"instance {shown(instance['name'])}: {instance['actions']} actions of {shown(instance['connector'])}"
        )
    for finding in found["findings"]:
        console.print(f"[yellow]{shown(finding['what'])}[/yellow]\n  mend: {shown(finding['mend'])}")
