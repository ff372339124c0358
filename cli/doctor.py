"""``tidegate doctor``: what is wrong, in words, with the mend."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Final

import typer

from bundles.errors import BundleError
from cli.findings import Finding, file_findings, unreadable, user_name
from cli.gateway import CONFIG_OPTION, check_config
from cli.output import EXIT_REFUSED, JSON_OPTION, emit, shown
from cli.token import read_config
from gateway.config import ConfigError, GatewayConfig
from gateway.errors import GateError
from gateway.store.keyfile import read_key_file
from gateway.store.offline_driver import OfflineLedger
from gateway.store.port import STORE_PROCESS, StoreUnavailable
from gateway.store.sealing import TenantKeys

if TYPE_CHECKING:
    from rich.console import Console

PROCESSES: Final = Path("/proc")
_WRITING: Final = os.O_WRONLY | os.O_RDWR


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
    try:
        if not folder.is_dir():
            return []
    except PermissionError as error:
        return [unreadable(folder, error)]
    if not os.access(folder, os.W_OK):
        user, owner = user_name(os.geteuid()), user_name(folder.stat().st_uid)
        return [
            Finding(f"{folder} cannot be written by the user {user}; it is {owner}'s", "run this as the gate's user")
        ]
    if stat.S_IMODE(folder.stat().st_mode) & 0o077:
        return [Finding(f"{folder} is open to other users", f"chmod 700 {folder}")]
    return []


def writers(store: Path, processes: Path = PROCESSES) -> list[int]:
    """The processes that have a store file open for writing, as far as this user may see them; of a gate and the process that
    writes for it, the gate.

    `processes` is the kernel's directory of them, as Linux shows it in ``/proc``; elsewhere the answer is empty.
    """
    try:
        wanted = store.stat()
    except OSError:
        return []
    numbered = (entry for entry in processes.glob("*") if entry.name.isdecimal())
    found = {int(entry.name): entry for entry in numbered if _writes(entry, (wanted.st_dev, wanted.st_ino))}
    return sorted(number for number, entry in found.items() if _gate_of(entry) not in found)


def _writes(process: Path, file: tuple[int, int]) -> bool:
    return any(flags & _WRITING for opened, flags in _open_files(process) if opened == file)


def _gate_of(process: Path) -> int | None:
    """The gate that a process writes a store for; none when it writes for itself or ended meanwhile."""
    try:
        if STORE_PROCESS.encode() not in (process / "cmdline").read_bytes():
            return None
        fields = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines() if ":" in line)
    except OSError:
        return None
    return int(fields.get("PPid", "0"))


def _open_files(process: Path) -> Iterator[tuple[tuple[int, int], int]]:
    """Identity and flags of what a process has open; nothing when it ended meanwhile or belongs to somebody else."""
    try:
        names = os.listdir(process / "fd")
    except OSError:
        return
    for name in names:
        try:
            opened = os.stat(process / "fd" / name)
            fields = dict(line.split(":", 1) for line in (process / "fdinfo" / name).read_text().splitlines() if line)
        except OSError:
            continue
        yield (opened.st_dev, opened.st_ino), int(fields.get("flags", "0"), 8)


def store_findings(config: GatewayConfig, processes: Path = PROCESSES) -> list[Finding]:
    """More than one gate on the store file: each takes the other's running calls for lost when it starts."""
    found = writers(config.store_path, processes)
    if len(found) < 2:
        return []
    named = ", ".join(map(str, found))
    return [Finding(f"{config.store_path} is written by the processes {named}", "stop all gates but one on this store")]


def ledger_findings(config: GatewayConfig) -> list[Finding]:
    """What keeps a gate from starting on the store; nothing while there is none, since a start makes one."""
    path = config.store_path
    try:
        if path.is_symlink():
            named = f"name {os.path.realpath(path)} as store"
            return [Finding(f"{path} is a link: a gate does not start on one", named)]
        if not path.exists() or (path.is_file() and not path.stat().st_size):
            return []
        keys = TenantKeys(read_key_file(config.file(config.document.ledger.hmac)))
        if path.is_file():
            path.open("rb").close()
        with OfflineLedger(path) as ledger:
            ledger.check_opening(keys)
    except StoreUnavailable as error:
        mend = _STORE_MENDS.get(error.code, "mend the file or its rights, or put a backup of the store back")
        return [Finding(f"a gate does not start on {path}: {error}", mend)]
    except GateError as error:
        return [Finding(str(error), "put the key file back that the store was written with")]
    except PermissionError as error:
        return [unreadable(path, error)]
    except OSError as error:
        return [Finding(f"{path}: {error.strerror}", "give it to the gate's user")]
    return []


_STORE_MENDS: Final = {
    "ledger_broken": "tidegate ledger verify says where; put a backup of the store back, and find out who changed it",
    "store_key_changed": "put the key file back that the store was written with, or begin with a new store",
    "store_version": "run the version of tidegate that wrote the store",
    "store_busy": "ask again when nothing else holds the store",
}


def start_findings(config: GatewayConfig) -> list[Finding]:
    """What keeps a gate from starting with the configuration, and what in it was hardly meant so."""
    try:
        return [Finding(**one) for one in check_config(config)["findings"]]
    except (ConfigError, BundleError) as error:
        return [Finding(f"{error.code}: {error.detail}", "mend the configuration or build the bundle again")]
    except GateError as error:
        return [Finding(str(error), "mend the named key, secret or instance")]


def _is_said(finding: Finding, said: list[Finding]) -> bool:
    """Whether a finding tells no more than those before it: it is one of them, or it is about a file that one of them begins with."""
    files = {word for one in said if "/" in (word := one.what.partition(" ")[0])}
    return finding in said or any(file in finding.what for file in files)


def doctor(config: Path = CONFIG_OPTION, as_json: bool = JSON_OPTION) -> None:
    """Look for what is wrong; exit 1 when something is."""
    loaded = read_config(config, as_json=as_json)
    findings = file_findings(loaded)
    for more in (state_findings(loaded), store_findings(loaded), ledger_findings(loaded), start_findings(loaded)):
        findings += [one for one in more if not _is_said(one, findings)]
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
