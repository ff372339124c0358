"""``tidegate approvals``: see what waits for a person, and decide it."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from cli.gate_call import at_gate
from cli.gate_client import GATE_OPTION, TOKEN_FILE_OPTION, GateClient, gate_client
from cli.output import JSON_OPTION, emit, shown

if TYPE_CHECKING:
    from rich.console import Console

app = typer.Typer(no_args_is_help=True, help="Held calls: list, show, approve, deny, watch.")
WATCH_PAUSE_SECONDS = 2.0
ACCESS_REQUEST = "access request"
"""What a list calls one, on a line of its own that no narrow terminal folds."""


def _list(client: GateClient, state: str, *, as_json: bool) -> dict[str, Any]:
    path = "/v1/approvals" + (f"?state={state}" if state else "")
    answer = at_gate(lambda: client.request("GET", path).json(), as_json=as_json)
    return dict(answer)


def _table(console: Console, items: list[dict[str, Any]]) -> None:
    if not items:
        console.print("nothing waits for approval")
        return
    from rich.table import Table

    table = Table()
    longest = max(len(shown(item["id"])) for item in items)
    table.add_column("approval", no_wrap=True, min_width=longest)  # to be copied: never folded, whatever the width
    table.add_column("action", overflow="fold", min_width=len(ACCESS_REQUEST))
    for heading in ("asked by", "decide by"):
        table.add_column(heading, overflow="fold")
    for item in items:
        subject = item.get("subject")
        who = subject.get("id", subject) if isinstance(subject, dict) else subject
        state, instance = shown(item["state"]), shown(item["instance"])
        called = f"{shown(item['action'])}\non {instance}"
        what = f"{ACCESS_REQUEST}\n{shown(_question(item))}" if _is_access_request(item) else called
        table.add_row(
            f"{shown(item['id'])}\n{state}",
            what,
            shown(who),
            shown(item["decide_by"]),
        )
    console.print(table)


@app.command("list")
def list_approvals(
    state: str = typer.Option("pending", "--state", help="pending, approved, denied…; empty for all."),
    gate: str = GATE_OPTION,
    token_file: Path | None = TOKEN_FILE_OPTION,
    as_json: bool = JSON_OPTION,
) -> None:
    """What waits, newest first."""
    answer = _list(gate_client(gate, token_file), state, as_json=as_json)
    emit(as_json, answer, lambda console: _table(console, answer["items"]))


@app.command()
def show(
    approval: str,
    gate: str = GATE_OPTION,
    token_file: Path | None = TOKEN_FILE_OPTION,
    as_json: bool = JSON_OPTION,
) -> None:
    """Everything about one approval: who, what, why."""
    client = gate_client(gate, token_file)
    found = at_gate(lambda: client.request("GET", f"/v1/approvals/{approval}").json(), as_json=as_json)
    emit(as_json, found, lambda console: _detail(console, found))


def _is_access_request(item: dict[str, Any]) -> bool:
    return item.get("kind") == "access_request"


def _question(item: dict[str, Any]) -> str:
    """An access request in words: who would get what, and where."""
    asked, resource = item.get("arguments") or {}, item.get("resource") or {}
    subject = asked.get("subject") or {}
    who = f"{subject.get('type', '')} {subject.get('id', '')}"
    return f"{who} asks for {item['action']} on {resource.get('type', '')} {resource.get('id', '')}"


def _detail(console: Console, found: dict[str, Any]) -> None:
    if _is_access_request(found):
        console.print(
            f"access request: {shown(_question(found))}. Approving it releases no call: policy is asked once more."
        )
    for name in ("id", "state", "action", "instance", "resource", "subject", "created", "decide_by", "use_by"):
        console.print(f"[bold]{name:>10}[/bold]  {shown(_plain(found.get(name)))}")
    console.print(f"[bold] arguments[/bold]  {shown(json.dumps(found.get('arguments'), ensure_ascii=False))}")
    for reason in found.get("reasons") or []:
        console.print(f"[bold]       why[/bold]  {shown(reason.get('code'))}: {shown(reason.get('message'))}")
    for step in (found.get("chain") or {}).get("steps", []):
        console.print(
            f"[bold]      step[/bold]  {shown(step['id'])}: {shown(step['state'])}, needs {shown(_plain(step['needs']))}"
        )
    console.print(f"[bold]    digest[/bold]  {shown(found['action_digest'])}")


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _vote(approval: str, decision: str, reason: str, digest: str, client: GateClient, as_json: bool) -> None:
    seen = digest or at_gate(
        lambda: client.request("GET", f"/v1/approvals/{approval}").json()["action_digest"], as_json=as_json
    )
    vote = {"decision": decision, "reason": reason, "action_digest": seen}
    voted = at_gate(lambda: client.request("POST", f"/v1/approvals/{approval}/votes", vote).json(), as_json=as_json)
    emit(
        as_json,
        voted,
        lambda console: console.print(f"{shown(voted['id'])} is now [bold]{shown(voted['state'])}[/bold]"),
    )


@app.command()
def approve(
    approval: str,
    reason: str = typer.Option("", "--reason"),
    digest: str = typer.Option("", "--digest", help="The action digest you saw; default: the current one."),
    gate: str = GATE_OPTION,
    token_file: Path | None = TOKEN_FILE_OPTION,
    as_json: bool = JSON_OPTION,
) -> None:
    """Vote for the call."""
    _vote(approval, "approve", reason, digest, gate_client(gate, token_file), as_json)


@app.command()
def deny(
    approval: str,
    reason: str = typer.Option(..., "--reason", help="Shown to the requester."),
    digest: str = typer.Option("", "--digest", help="The action digest you saw; default: the current one."),
    gate: str = GATE_OPTION,
    token_file: Path | None = TOKEN_FILE_OPTION,
    as_json: bool = JSON_OPTION,
) -> None:
    """Vote against the call; one denial ends it."""
    _vote(approval, "deny", reason, digest, gate_client(gate, token_file), as_json)


@app.command()
def watch(
    rounds: int = typer.Option(0, "--rounds", min=0, help="Stop after so many looks; 0 goes on."),
    gate: str = GATE_OPTION,
    token_file: Path | None = TOKEN_FILE_OPTION,
    as_json: bool = JSON_OPTION,
) -> None:
    """Print every approval when it appears or changes its state."""
    client = gate_client(gate, token_file)
    known: dict[str, str] = {}
    look = 0
    while True:
        for item in reversed(_list(client, "", as_json=as_json)["items"]):
            if known.get(item["id"]) == item["state"]:
                continue
            known[item["id"]] = item["state"]
            _announce(item, as_json)
        look += 1
        if rounds and look >= rounds:
            return
        time.sleep(WATCH_PAUSE_SECONDS)


def _announce(item: dict[str, Any], as_json: bool) -> None:
    line = f"{shown(item['id'])}  [bold]{shown(item['state'])}[/bold]  {shown(item['action'])}  decide by {shown(item['decide_by'])}"
    emit(as_json, item, lambda console: console.print(line))
