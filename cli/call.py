"""``tidegate call INSTANCE ACTION``: a governed call from the shell.

A shell has only text, and only the gate knows the action's schema. So ``k=v`` is sent as text, and once more as the number,
boolean, list or object it spells when the gate answers that text does not fit there; nothing was decided or sent by then.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import typer

from cli.gate_call import at_gate
from cli.gate_client import GATE_OPTION, TOKEN_FILE_OPTION, GateClient, GateRefused, gate_client
from cli.output import JSON_OPTION, emit, shown

if TYPE_CHECKING:
    from rich.console import Console

EXTRA_WAIT_SECONDS = 30
_MEMBERS = ("id", "state", "effect")


def parse_arguments(pairs: list[str]) -> dict[str, Any]:
    """``k=v`` is text, ``k:=JSON`` is JSON. Raises ValueError."""
    arguments: dict[str, Any] = {}
    for pair in pairs:
        name, separator, value = pair.partition("=")
        if not separator or not name:
            raise ValueError(f"{pair!r} is not k=v")
        as_json = name.endswith(":")
        name = name.removesuffix(":")
        if name in arguments:
            raise ValueError(f"{name!r} is given twice")
        arguments[name] = json.loads(value) if as_json else value
    return arguments


def fitted(pairs: list[str], errors: Any) -> dict[str, Any] | None:
    """The arguments of ``pairs`` with each ``k=v`` that ``errors`` name read as JSON; None when that changes nothing.

    ``errors`` is the member of that name of a problem ``arguments_invalid``: objects with a JSON Pointer (RFC 6901).
    """
    named = {str(error.get("pointer")) for error in errors if isinstance(error, dict)} if errors else set()
    arguments, untyped = parse_arguments(pairs), {pair.partition("=")[0] for pair in pairs}
    read = {name: _as_json(arguments[name]) for name in untyped & arguments.keys() if _pointer(name) in named}
    changed = {name: value for name, value in read.items() if value != arguments[name]}
    return {**arguments, **changed} if changed else None


def _pointer(name: str) -> str:
    return "/" + name.replace("~", "~0").replace("/", "~1")


def _as_json(value: str) -> Any:
    try:
        return json.loads(value, parse_constant=_no_constant)
    except ValueError:
        return value


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def _send(client: GateClient, document: dict[str, Any], pairs: list[str], headers: dict[str, str]) -> dict[str, Any]:
    try:
        return client.request("POST", "/v1/calls", document, headers).json(*_MEMBERS)
    except GateRefused as refused:
        arguments = fitted(pairs, refused.problem.get("errors"))
        if refused.code != "arguments_invalid" or arguments is None:
            raise
    return client.request("POST", "/v1/calls", {**document, "arguments": arguments}, headers).json(*_MEMBERS)


def call(
    instance: str = typer.Argument(..., help="A configured instance."),
    action: str = typer.Argument(..., help="A tool action, for example servicenow.incident.get."),
    arg: list[str] = typer.Option([], "--arg", help="k=v, or k:=JSON to say the type."),
    idempotency_key: str = typer.Option("", "--idempotency-key"),
    ticket: str = typer.Option("", "--ticket"),
    reason: str = typer.Option("", "--reason", help="Shown to approvers as untrusted."),
    wait: int = typer.Option(0, "--wait", min=0, max=600, help="Seconds to wait for approval."),
    gate: str = GATE_OPTION,
    token_file: Path | None = TOKEN_FILE_OPTION,
    as_json: bool = JSON_OPTION,
) -> None:
    """Send one governed call and print what became of it."""
    try:
        document: dict[str, Any] = {"instance": instance, "action": action, "arguments": parse_arguments(arg)}
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    if idempotency_key:
        document["idempotency_key"] = idempotency_key
    if ticket:
        document["ticket"] = ticket
    headers = {"Prefer": f"wait={wait}" if wait else "respond-async"}
    if reason:
        headers["Tidegate-Reason"] = reason
    client = gate_client(gate, token_file, timeout_seconds=wait + EXTRA_WAIT_SECONDS)
    answer = at_gate(lambda: _send(client, document, arg, headers), as_json=as_json)
    emit(as_json, answer, lambda console: _say(console, answer))


def _say(console: Console, answer: dict[str, Any]) -> None:
    console.print(f"call {shown(answer['id'])}: [bold]{shown(answer['state'])}[/bold] ({shown(answer['effect'])})")
    if answer.get("approval"):
        console.print(
            f"waiting for approval {shown(answer['approval']['id'])}; send the same call again once it is approved"
        )
    if answer.get("status") is not None:
        console.print(f"the service answered {answer['status']}")
        for line in json.dumps(answer.get("response"), indent=2, ensure_ascii=False).splitlines():
            console.print(shown(line))
