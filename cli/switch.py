"""``tidegate switch``: kill switches, which stop calls at once without touching policy."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import typer

from cli.gate_call import at_gate
from cli.gate_client import GATE_OPTION, TOKEN_FILE_OPTION, gate_client
from cli.output import EXIT_USAGE, JSON_OPTION, emit, fail, shown

if TYPE_CHECKING:
    from rich.console import Console

app = typer.Typer(no_args_is_help=True, help="Kill switches: set, clear, list.")
SCOPE_ARGUMENT = typer.Argument(..., help="tenant/T, tenant/T/connector/NAME, …/action/NAME or …/subject/NAME")


def _path(scope: str) -> str:
    """Where a switch stands; a subject's id is one segment, with its slashes encoded."""
    around, subject, name = scope.partition("/subject/")
    return "/v1/switches/" + quote(around, safe="/") + (subject and f"/subject/{quote(name, safe='')}")


@app.command("set")
def set_switch(
    scope: str = SCOPE_ARGUMENT,
    reason: str = typer.Option(..., "--reason", help="Why, for those whose calls it stops."),
    gate: str = GATE_OPTION,
    token_file: Path | None = TOKEN_FILE_OPTION,
    as_json: bool = JSON_OPTION,
) -> None:
    """Stop every call within the scope."""
    if not reason.strip():
        fail("usage", "--reason is empty: say why, for those whose calls it stops", status=EXIT_USAGE, as_json=as_json)
    client = gate_client(gate, token_file)
    answer = at_gate(lambda: client.request("PUT", _path(scope), {"reason": reason}).json(), as_json=as_json)
    emit(as_json, answer, lambda console: _say_set(console, scope, answer.get("warning")))


def _say_set(console: Console, scope: str, warning: Any) -> None:
    if warning:
        console.print(f"the switch {shown(scope)} is set\n[yellow]warning[/yellow]: {shown(warning)}")
    else:
        console.print(f"calls of {shown(scope)} are stopped")


@app.command()
def clear(
    scope: str = SCOPE_ARGUMENT,
    gate: str = GATE_OPTION,
    token_file: Path | None = TOKEN_FILE_OPTION,
    as_json: bool = JSON_OPTION,
) -> None:
    """Let calls within the scope go to policy again."""
    client = gate_client(gate, token_file)
    at_gate(lambda: client.request("DELETE", _path(scope)), as_json=as_json)
    emit(as_json, {"scope": scope, "set": False}, lambda console: console.print(f"{shown(scope)} is clear"))


@app.command("list")
def list_switches(
    gate: str = GATE_OPTION,
    token_file: Path | None = TOKEN_FILE_OPTION,
    as_json: bool = JSON_OPTION,
) -> None:
    """The switches that are set."""
    client = gate_client(gate, token_file)
    answer = at_gate(lambda: client.request("GET", "/v1/switches").page("scope"), as_json=as_json)
    emit(as_json, answer, lambda console: _say(console, answer["items"]))


def _say(console: Console, items: list[dict[str, Any]]) -> None:
    for item in items:
        console.print(f"{shown(item['scope'])}  since {shown(item.get('since'))}  {shown(item.get('reason'))}")
    if not items:
        console.print("no switch is set")
