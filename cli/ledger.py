"""``tidegate ledger``: check and show the records in the store file, also while the gate is down.

Guarantees: the store is opened read-only; a log that does not verify ends with exit 1 and its place; a store that cannot
be read ends with exit 3. Leaves reading to ``gateway.store.offline_driver`` and judging to ``gateway.ledger.verify``.
"""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from cli.findings import unreadable
from cli.output import EXIT_REFUSED, EXIT_UNAVAILABLE, EXIT_USAGE, JSON_OPTION, console, emit, fail, shown
from cli.token import read_config
from gateway.approvals.render import rfc3339
from gateway.ledger.verify import LogBroken, LogHead, LogVerifier
from gateway.store.offline_driver import OfflineLedger
from gateway.store.port import StoredRecord, StoreUnavailable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

FOLLOW_SECONDS = 0.5
FOLLOW_RECORDS_MAX = 1000
TAIL_RECORDS_MAX = 100_000
PROGRESS_EVERY = 1000

app = typer.Typer(help="Check and show the ledger.", no_args_is_help=True)

_CONFIG = typer.Option(Path("tidegate.yaml"), "--config", help="The configuration that names the store.")
_PATH = typer.Option(None, "--path", help="The store file itself, in place of --config.")


@app.command()
def verify(config: Path = _CONFIG, path: Path | None = _PATH, as_json: bool = JSON_OPTION) -> None:
    """Check every record of every log: form, numbers, chain and head."""
    with _opened(config, path, as_json) as ledger:
        try:
            verdicts = list(_verdicts(ledger, show=not as_json and sys.stderr.isatty()))
        except StoreUnavailable as error:
            fail(error.code, error.detail, status=EXIT_UNAVAILABLE, as_json=as_json)
    ok = all(verdict["ok"] for verdict in verdicts)
    records = sum(verdict["records"] for verdict in verdicts)
    document = {"ok": ok, "records": records, "logs": verdicts}
    emit(as_json, document, lambda out: _say_verdicts(out, verdicts, records))
    if not ok:
        raise typer.Exit(EXIT_REFUSED)


@app.command()
def tail(
    config: Path = _CONFIG,
    path: Path | None = _PATH,
    count: int = typer.Option(20, "-n", min=0, max=TAIL_RECORDS_MAX, help="How many of the newest records."),
    follow: bool = typer.Option(False, "--follow", help="Go on with what is written from now on."),
    as_json: bool = JSON_OPTION,
) -> None:
    """Show the newest records, oldest of them first. With --json --follow each line is one record."""
    try:
        with _opened(config, path, as_json) as ledger:
            position = ledger.position()
            newest = ledger.newest(count) if count else ()
            ledger.end_snapshot()
            if as_json and not follow:
                items = [json.loads(record.data) for record in newest]
                sys.stdout.write(json.dumps({"items": items, "next": None}, ensure_ascii=False) + "\n")
                return
            _print_records(newest, as_json)
            while follow:
                time.sleep(FOLLOW_SECONDS)
                position = _print_following(ledger, position, as_json)
    except StoreUnavailable as error:
        fail(error.code, error.detail, status=EXIT_UNAVAILABLE, as_json=as_json)
    except (LogBroken, ValueError, KeyError, TypeError, AttributeError):
        fail("record_unreadable", "a record is not what was written; run `tidegate ledger verify`", as_json=as_json)
    except KeyboardInterrupt:
        raise typer.Exit(0) from None


def _opened(config: Path, path: Path | None, as_json: bool) -> OfflineLedger:
    if path is not None and path.is_dir():
        fail("usage", f"{path} is a directory; --path is the store file", status=EXIT_USAGE, as_json=as_json)
    store = path if path is not None else read_config(config, as_json=as_json).store_path
    try:
        with contextlib.suppress(FileNotFoundError), store.open("rb"):
            pass
        return OfflineLedger(store)
    except StoreUnavailable as error:
        fail(error.code, error.detail, status=EXIT_UNAVAILABLE, as_json=as_json)
    except OSError as error:
        found = unreadable(store, error)
        fail("store_unreadable", f"{found.what}; {found.mend}", status=EXIT_UNAVAILABLE, as_json=as_json)


def _verdicts(ledger: OfflineLedger, *, show: bool) -> Iterator[dict[str, Any]]:
    if not show:
        yield from (_verdict(ledger, log, _unseen) for log in ledger.logs())
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True)) as progress:
        for log in ledger.logs():
            task = progress.add_task(_name(*log.log), total=log.next_seq if isinstance(log, LogHead) else 0)
            yield _verdict(ledger, log, partial(_show, progress, task))


def _show(progress: Progress, task: TaskID, checked: int) -> None:
    progress.update(task, completed=checked)


def _unseen(_checked: int) -> None:
    """Progress that nobody watches."""


def _verdict(ledger: OfflineLedger, log: LogHead | LogBroken, progress: Callable[[int], None]) -> dict[str, Any]:
    verdict: dict[str, Any] = {"tenant": log.log[0], "workspace": log.log[1], "head": "", "ok": True}
    if isinstance(log, LogBroken):
        return {**verdict, **_broken(log), "records": 0}
    verifier = LogVerifier(log.log)
    verdict["head"] = log.hash
    try:
        for row in ledger.rows(log.log):
            verifier.feed_row(row)
            if verifier.next_seq % PROGRESS_EVERY == 0:
                progress(verifier.next_seq)
        verifier.finish(log)
    except LogBroken as error:
        verdict |= _broken(error)
    progress(verifier.next_seq)
    return {**verdict, "records": verifier.next_seq}


def _broken(error: LogBroken) -> dict[str, Any]:
    return {"ok": False, "error": {"code": error.code, "seq": error.seq, "detail": error.detail}}


def _name(tenant: str, workspace: str) -> str:
    return shown(f"{tenant}/{workspace}" if tenant or workspace else "no log")


def _say_verdicts(out: Console, verdicts: list[dict[str, Any]], records: int) -> None:
    for verdict in verdicts:
        name = _name(verdict["tenant"], verdict["workspace"])
        if verdict["ok"]:
            out.print(f"[green]ok[/green]      {name}: {verdict['records']} records, head {verdict['head'][:16]}")
        else:
            error = verdict["error"]
            out.print(f"[red]broken[/red]  {name} at record {error['seq']}: {error['code']} ({shown(error['detail'])})")
    out.print(f"{records} records in {len(verdicts)} logs checked")


def _print_following(ledger: OfflineLedger, position: int, as_json: bool) -> int:
    found = ledger.after(position, FOLLOW_RECORDS_MAX)
    _print_records(found, as_json)
    return position + len(found) if found else position


def _print_records(records: tuple[StoredRecord, ...], as_json: bool) -> None:
    out = console()
    for record in records:
        if as_json:
            sys.stdout.write(record.data.decode("utf-8", "backslashreplace") + "\n")
        else:
            out.print(_line(record))
    sys.stdout.flush()


def _line(record: StoredRecord) -> str:
    document: dict[str, Any] = json.loads(record.data)
    action, decision = document["action"], document["decision"] or {}
    parts = [
        rfc3339(document["wall"]),
        f"{record.log[0]}/{record.log[1]}#{record.seq}",
        document["kind"],
        document["actor"],
        action.get("name", ""),
        decision.get("effect", ""),
        action.get("state", ""),
        action.get("status", ""),
        action.get("code", ""),
        f"call={document['ids']['call']}" if "call" in document["ids"] else "",
    ]
    return "  ".join(shown(part) for part in parts if part not in ("", None))
