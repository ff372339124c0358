"""``tidegate policy replay``: recorded calls decided by another bundle, looser ones apart from stricter ones.

Reads the store of the configuration directly, so it works while the gate is down; with ``--gate`` a running gate replays.
"""

from __future__ import annotations

import base64
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import typer

from bundles.errors import BundleError
from cli.gate_call import at_gate
from cli.gate_client import TOKEN_FILE_OPTION, gate_client
from cli.output import EXIT_REFUSED, EXIT_UNAVAILABLE, EXIT_USAGE, JSON_OPTION, emit, fail, shown
from cli.policy_answers import failed_offline, say_difference
from cli.policy_source import BUNDLE_OPTION, CONFIG_OPTION, OfflineBundle, needed_config, open_inputs, read_bundle
from gateway.config import ConfigError, GatewayConfig
from gateway.errors import GateError
from gateway.replaying import decide_again
from gateway.store.answers import AnswerBroken
from gateway.store.port import KeptInput, StoreUnavailable
from gateway.store.sealing import SealBroken
from pdp.aside import AsidePolicy
from pdp.errors import PdpError
from pdp.replay import Report

if TYPE_CHECKING:
    from rich.console import Console

LAST_MAX: Final = 1_000_000
GATE_TIMEOUT_SECONDS: Final = 600.0
GATE_NAMED = typer.Option(None, "--gate", envvar="TIDEGATE_GATE", help="Let this gate replay its own calls.")
LAST = typer.Option(1000, "--last", min=1, max=LAST_MAX, help="How many of the newest kept calls.")
TENANT = typer.Option(None, "--tenant", help="Only this tenant's; at a gate it is your token's.")
STRICT = typer.Option(False, "--strict", help="Exit 1 when a call would be decided less strictly.")


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(replay)


def replay(
    last: int = LAST,
    bundle: Path | None = BUNDLE_OPTION,
    config: Path | None = CONFIG_OPTION,
    tenant: str | None = TENANT,
    strict: bool = STRICT,
    gate: str | None = GATE_NAMED,
    token_file: Path | None = TOKEN_FILE_OPTION,
    as_json: bool = JSON_OPTION,
) -> None:
    """Decide recorded calls again with another bundle, and show what is looser apart from what is stricter."""
    if gate is not None and config is None:
        document = _at_gate(gate, token_file, last, bundle, as_json)
    elif bundle is None:
        fail("usage", "give --bundle FILE", status=EXIT_USAGE, as_json=as_json)
    else:
        document = _offline(needed_config(config, as_json=as_json), bundle, (last, tenant), as_json)
    emit(as_json, document, lambda out: _say(out, document))
    if strict and document["counts"]["loosening"]:
        raise typer.Exit(EXIT_REFUSED)


def _at_gate(gate: str, token_file: Path | None, last: int, bundle: Path | None, as_json: bool) -> dict[str, Any]:
    body: dict[str, Any] = {"last": last}
    if bundle is not None:
        try:
            body["bundle"] = base64.b64encode(bundle.read_bytes()).decode("ascii")
        except OSError as missing:
            fail("bundle_missing", f"{bundle}: {missing.strerror}", status=EXIT_UNAVAILABLE, as_json=as_json)
    client = gate_client(gate, token_file, timeout_seconds=GATE_TIMEOUT_SECONDS)
    return dict(at_gate(lambda: client.request("POST", "/v1/replay", body).json(), as_json=as_json))


def _offline(config: GatewayConfig, path: Path, wanted: tuple[int, str | None], as_json: bool) -> dict[str, Any]:
    policy: AsidePolicy | None = None
    report = Report()
    try:
        bundle = read_bundle(path, config)
        policy = AsidePolicy(bundle.content)
        with open_inputs(config, as_json=as_json) as inputs:
            kept = inputs.newest(wanted[0], tenant=wanted[1])
            decide_again(policy, _watched(kept, wanted[0], show=not as_json and sys.stderr.isatty()), report)
    except (BundleError, PdpError, ConfigError) as failed:
        failed_offline(failed, as_json)
    except StoreUnavailable as failed:
        fail(failed.code, failed.detail, status=EXIT_UNAVAILABLE, as_json=as_json)
    except (SealBroken, AnswerBroken, GateError) as failed:
        fail("input_unreadable", str(failed), status=EXIT_UNAVAILABLE, as_json=as_json)
    finally:
        if policy is not None:
            policy.close()
    return _document(report, bundle)


def _document(report: Report, bundle: OfflineBundle) -> dict[str, Any]:
    return {**report.document(), "bundle": bundle.document()}


def _watched(kept: Iterator[KeptInput], total: int, *, show: bool) -> Iterator[KeptInput]:
    """The same, with a progress bar on a terminal."""
    if not show:
        yield from kept
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("replaying", total=total)
        for each in kept:
            yield each
            progress.advance(task)
        progress.update(task, completed=total)


def _say(out: Console, document: dict[str, Any]) -> None:
    counts = document["counts"]
    out.print(f"{document['compared']} calls decided again, {document['unreadable']} could not be read")
    if not document["bundle"].get("verified", True):
        out.print(f"the bundle is not verified: {shown(document['bundle']['unverified_because'])}")
    for kind, heading in (
        ("loosening", "[red]looser[/red]"),
        ("tightening", "[yellow]stricter[/yellow]"),
        ("changed", "[cyan]changed[/cyan]"),
        ("reasons", "other reasons"),
    ):
        out.print(f"{heading}: {counts[kind]}")
        if kind != "reasons":
            for item in document[kind]:
                say_difference(out, item)
    for row in document["by_rule"]:
        out.print(f"  {shown(row['rule'])}: holds now {row['holds_now']}, held before {row['held_before']}")
