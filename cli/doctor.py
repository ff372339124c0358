"""``tidegate doctor``: what is wrong, in words, with the mend."""

from __future__ import annotations

import os
import socket
import stat
from dataclasses import asdict, dataclass
from pathlib import Path

import typer
from rich.console import Console

from bundles.errors import BundleError
from cli.gateway import CONFIG_OPTION, check_config
from cli.output import EXIT_REFUSED, JSON_OPTION, emit, shown
from cli.token import read_config
from gateway.config import ConfigError, GatewayConfig
from gateway.errors import GateError


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong and what mends it."""

    what: str
    mend: str


def key_findings(folder: Path) -> list[Finding]:
    """Keys and secrets that another user could read (page 12, rule 27)."""
    found: list[Finding] = []
    if not folder.is_dir():
        return [Finding(f"{folder} is missing", "tidegate init DIR writes one")]
    for path in sorted(folder.iterdir()):
        public = path.name.endswith((".pub.pem", ".jwks.json"))
        if path.is_file() and not public and stat.S_IMODE(path.stat().st_mode) & 0o077:
            found.append(Finding(f"{path} can be read by other users", f"chmod 600 {path}"))
    return found


def listen_findings(config: GatewayConfig) -> list[Finding]:
    """Configured ports that somebody else holds; a running gate holds its own."""
    found: list[Finding] = []
    listen = config.document.listen
    for name, address in (("listen.gate", listen.gate), ("listen.metrics", listen.metrics)):
        if address is None:
            continue
        host, port = config.endpoint(address)
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError as error:
                mend = "nothing to do if this gate is running; else choose another port in the configuration"
                found.append(Finding(f"{name} {address}: {error.strerror}", mend))
    return found


def state_findings(config: GatewayConfig) -> list[Finding]:
    """A state directory that cannot be written, or is open to others."""
    folder = config.store_path.parent
    if not folder.is_dir():
        return []
    if not os.access(folder, os.W_OK):
        return [Finding(f"{folder} cannot be written", "give it to the gate's user")]
    if stat.S_IMODE(folder.stat().st_mode) & 0o077:
        return [Finding(f"{folder} is open to other users", f"chmod 700 {folder}")]
    return []


def doctor(config: Path = CONFIG_OPTION, as_json: bool = JSON_OPTION) -> None:
    """Look for what is wrong; exit 1 when something is."""
    loaded = read_config(config, as_json=as_json)
    findings = [*key_findings(loaded.base_dir / "keys"), *state_findings(loaded)]
    try:
        check_config(loaded)
    except (ConfigError, BundleError) as error:
        findings.append(Finding(f"{error.code}: {error.detail}", "mend the configuration or build the bundle again"))
    except GateError as error:
        findings.append(Finding(str(error), "mend the named key, secret or instance"))
    notes = listen_findings(loaded)
    document = {"findings": [asdict(f) for f in findings], "notes": [asdict(f) for f in notes]}
    emit(as_json, document, lambda console: _say(console, findings, notes))
    if findings:
        raise typer.Exit(EXIT_REFUSED)


def _say(console: Console, findings: list[Finding], notes: list[Finding]) -> None:
    for finding in findings:
        console.print(f"[red]wrong[/red]  {shown(finding.what)}\n       mend: {shown(finding.mend)}")
    for note in notes:
        console.print(f"[yellow]note[/yellow]   {shown(note.what)}\n       {shown(note.mend)}")
    if not findings:
        console.print("[green]nothing is wrong[/green]")
