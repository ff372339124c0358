"""``tidegate call INSTANCE ACTION``: a governed call from the shell.

A shell has only text, and only the gate knows the action's schema. So ``k=v`` is sent as text, and once more as the number,
boolean, list or object it spells when the gate answers that text does not fit there; nothing was decided or sent by then.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import typer

from cli.gate_call import at_gate
from cli.gate_client import GATE_OPTION, TOKEN_FILE_OPTION, GateRefused, gate_client
from cli.output import JSON_OPTION, emit, shown

if TYPE_CHECKING:
    from rich.console import Console

Result = TypeVar("Result")

EXTRA_WAIT_SECONDS = 30
_MEMBERS = ("id", "state", "effect")
_OTHER_TYPE = "is not of type"


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
        arguments[name] = _said_json(name, value) if as_json else value
    return arguments


def _said_json(name: str, value: str) -> Any:
    try:
        return json.loads(value, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"the value of {name}:= is no JSON ({error}); {name}=… sends it as text") from error


def fitted(pairs: list[str], errors: Any) -> dict[str, Any] | None:
    """The arguments of ``pairs`` with each ``k=v`` that ``errors`` name read as JSON; None when that changes nothing.

    ``errors`` is the member of that name of a problem ``arguments_invalid``: objects with a JSON Pointer (RFC 6901).
    """
    named = {str(error.get("pointer")) for error in errors if isinstance(error, dict)} if errors else set()
    arguments, untyped = parse_arguments(pairs), {pair.partition("=")[0] for pair in pairs}
    read = {name: _as_json(arguments[name]) for name in untyped & arguments.keys() if _pointer(name) in named}
    changed = {name: value for name, value in read.items() if value != arguments[name]}
    return {**arguments, **changed} if changed else None


def errors_of_both(first: Any, again: Any) -> list[dict[str, Any]]:
    """What to say when the arguments fitted neither as text nor as ``fitted`` read them: the errors of ``again``, but those of
    ``first`` for what was right to be text. Both are the member ``errors`` of a problem ``arguments_invalid``."""
    listed = [error for error in again or () if isinstance(error, dict)]
    as_text = [error for error in first or () if isinstance(error, dict)]
    wrong_type = {error.get("pointer") for error in listed if _OTHER_TYPE in str(error.get("message"))}
    kept = wrong_type & {error.get("pointer") for error in as_text}
    return [
        *(error for error in as_text if error.get("pointer") in kept),
        *(error for error in listed if error.get("pointer") not in kept),
    ]


def _pointer(name: str) -> str:
    return "/" + name.replace("~", "~0").replace("/", "~1")


def _as_json(value: str) -> Any:
    try:
        return json.loads(value, parse_constant=_no_constant)
    except ValueError:
        return value


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def sent(ask: Callable[[dict[str, Any]], Result], arguments: dict[str, Any], pairs: list[str]) -> Result:
    """What ``ask`` makes of the arguments as text, or as ``fitted`` reads ``pairs`` when they do not fit so.

    Raises GateRefused, with what is wrong with the arguments either way.
    """
    try:
        return ask(arguments)
    except GateRefused as refused:
        first = refused
    again = fitted(pairs, first.problem.get("errors")) if first.code == "arguments_invalid" else None
    if again is None:
        raise first
    try:
        return ask(again)
    except GateRefused as refused:
        if refused.code != first.code:
            raise
        errors = errors_of_both(first.problem.get("errors"), refused.problem.get("errors"))
        if not errors:
            raise
        raise GateRefused(
            {**refused.problem, "detail": errors[0].get("message"), "errors": errors}, refused.status
        ) from refused


def call(
    instance: str = typer.Argument(..., help="A configured instance."),
    action: str = typer.Argument(..., help="A tool action, for example servicenow.incident.get."),
    arg: list[str] = typer.Option([], "--arg", help="k=v, or k:=JSON to say the type."),
    idempotency_key: str = typer.Option(
        "", "--idempotency-key", help="Sent again with this key, the call is not made twice."
    ),
    ticket: str = typer.Option("", "--ticket", help="The change or incident the call belongs to; shown to policy."),
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

    def ask(arguments: dict[str, Any]) -> dict[str, Any]:
        body = {**document, "arguments": arguments}
        return client.request("POST", "/v1/calls", body, headers).json(*_MEMBERS)

    answer = at_gate(lambda: sent(ask, document["arguments"], arg), as_json=as_json)
    emit(as_json, answer, lambda console: _say(console, answer))


def _say(console: Console, answer: dict[str, Any]) -> None:
    console.print(f"call {shown(answer['id'])}: [bold]{shown(answer['state'])}[/bold] ({shown(answer['effect'])})")
    if answer["state"] == "held" and answer.get("approval"):
        console.print(
            f"waiting for approval {shown(answer['approval']['id'])}; send the same call again once it is approved"
        )
    if answer.get("status") is not None:
        console.print(f"the service answered {answer['status']}")
        for line in json.dumps(answer.get("response"), indent=2, ensure_ascii=False).splitlines():
            console.print(shown(line))
