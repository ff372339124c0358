"""``tidegate approvals``: see what waits for a person, and decide it."""

from __future__ import annotations

import json
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

import typer

from cli.gate_call import at_gate
from cli.gate_client import GATE_OPTION, TOKEN_FILE_OPTION, GateClient, GateMisused, gate_client
from cli.output import JSON_OPTION, emit, shown

if TYPE_CHECKING:
    from rich.console import Console

app = typer.Typer(no_args_is_help=True, help="Held calls: list, show, approve, deny, watch.")
WATCH_PAUSE_SECONDS = 2.0
PAGES_MAX = 100
"""How many pages a list follows, of 50 approvals each."""
OPEN_STATES = ("pending", "approved")
_MEMBERS = ("id", "state", "action", "instance", "created", "decide_by")
ACCESS_REQUEST = "access request"
"""What a list calls one, on a line of its own that no narrow terminal folds."""


def _page(client: GateClient, state: str, cursor: str) -> dict[str, Any]:
    given = urlencode({name: value for name, value in (("state", state), ("cursor", cursor)) if value})
    return client.request("GET", f"/v1/approvals{'?' if given else ''}{given}").page(*_MEMBERS)


def _list(client: GateClient, state: str, cursor: str = "") -> dict[str, Any]:
    """All pages from `cursor` on, as one; `next` when there are more than `PAGES_MAX`."""
    items: list[dict[str, Any]] = []
    for _ in range(PAGES_MAX):
        page = _page(client, state, cursor)
        items += page["items"]
        cursor = page["next"] or ""
        if not cursor:
            break
    return {"items": items, "next": cursor or None}


def _one(client: GateClient, approval: str) -> dict[str, Any]:
    if not approval:
        raise GateMisused("usage", "say which approval: its id")
    return client.request("GET", _path(approval)).json(*_MEMBERS, "action_digest")


def _path(approval: str) -> str:
    return "/v1/approvals/" + quote(approval, safe="")


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
    cursor: str = typer.Option("", "--cursor", help="Go on where a longer list ended."),
    gate: str = GATE_OPTION,
    token_file: Path | None = TOKEN_FILE_OPTION,
    as_json: bool = JSON_OPTION,
) -> None:
    """What waits, newest first."""
    client = gate_client(gate, token_file)
    answer = at_gate(lambda: _list(client, state, cursor), as_json=as_json)
    emit(as_json, answer, lambda console: _say_list(console, answer))


def _say_list(console: Console, answer: dict[str, Any]) -> None:
    _table(console, answer["items"])
    if answer["next"]:
        console.print(f"there are more: --cursor {shown(answer['next'])}")


@app.command()
def show(
    approval: str,
    gate: str = GATE_OPTION,
    token_file: Path | None = TOKEN_FILE_OPTION,
    as_json: bool = JSON_OPTION,
) -> None:
    """Everything about one approval: who, what, why."""
    client = gate_client(gate, token_file)
    found = at_gate(lambda: _one(client, approval), as_json=as_json)
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
    def ask() -> dict[str, Any]:
        seen = digest or _one(client, approval)["action_digest"]
        vote = {"decision": decision, "reason": reason, "action_digest": seen}
        return client.request("POST", f"{_path(approval)}/votes", vote).json("id", "state")

    voted = at_gate(ask, as_json=as_json)
    emit(
        as_json,
        voted,
        lambda console: console.print(f"{shown(voted['id'])} is now [bold]{shown(voted['state'])}[/bold]"),
    )


@app.command()
def approve(
    approval: str,
    reason: str = typer.Option("", "--reason", help="Kept with the vote."),
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
        found = at_gate(partial(_looked, client, known), as_json=as_json)
        for item in found:
            if known.get(item["id"]) != item["state"]:
                _announce(item, as_json)
        known = {item["id"]: item["state"] for item in found}
        look += 1
        if rounds and look >= rounds:
            return
        time.sleep(WATCH_PAUSE_SECONDS)


def _looked(client: GateClient, known: dict[str, str]) -> list[dict[str, Any]]:
    """What a watcher may have to say something about, oldest first: all that is open, what was open when `known` was made, and
    the newest, which may have come and gone since."""
    found = {item["id"]: item for item in _page(client, "", "")["items"]}
    for state in OPEN_STATES:
        found |= {item["id"]: item for item in _list(client, state)["items"]}
    for approval, state in known.items():
        if state in OPEN_STATES and approval not in found:
            found[approval] = _one(client, approval)
    return sorted(found.values(), key=lambda item: (item["created"], item["id"]))


def _announce(item: dict[str, Any], as_json: bool) -> None:
    line = f"{shown(item['id'])}  [bold]{shown(item['state'])}[/bold]  {shown(item['action'])}  decide by {shown(item['decide_by'])}"
    emit(as_json, item, lambda console: console.print(line))
