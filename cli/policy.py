"""``tidegate policy``: ask policy without doing anything, and compare what bundles say.

``simulate --bundle`` works offline; without a bundle the gate's own is asked, as the person whose token is given.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import typer

from bundles.errors import BundleError
from bundles.manifest import load_manifests
from cli import policy_coverage, policy_explain, policy_replay
from cli.call import errors_of_both, fitted, parse_arguments, sent
from cli.gate_call import at_gate
from cli.gate_client import GATE_OPTION, TOKEN_FILE_OPTION, GateClient, gate_client
from cli.output import EXIT_USAGE, JSON_OPTION, console, emit, fail, shown
from cli.policy_answers import decided_offline, failed_offline, say_answer, say_difference
from cli.policy_source import (
    BUNDLE_OPTION,
    CONFIG_OPTION,
    INPUT_OPTION,
    OfflineBundle,
    configured,
    read_bundle,
    read_questions,
)
from gateway.edge.identity import Subject
from gateway.edge.problem import refusal
from gateway.errors import GateError, Refusal
from gateway.simulation import TypedCall, plan_of, typed_question
from pdp.aside import AsidePolicy
from pdp.errors import PdpError

if TYPE_CHECKING:
    from rich.console import Console

app = typer.Typer(no_args_is_help=True, help="Ask policy without doing anything; compare bundles; test.")

Ask = Callable[[dict[str, Any]], dict[str, Any]]
Body = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Typed:
    """A question typed as options; `pairs` are the arguments as they were typed."""

    instance: str
    action: str
    pairs: list[str]
    arguments: dict[str, Any]
    subject: dict[str, Any]
    tenant: str
    workspace: str
    ticket: str | None

    def fitted(self, errors: Any) -> Typed | None:
        """With what `errors` name read as the types they want, as `tidegate call` does; None when nothing changes."""
        arguments = fitted(self.pairs, errors)
        return replace(self, arguments=arguments) if arguments is not None else None


@app.command()
def simulate(
    input_file: Path | None = INPUT_OPTION,
    call: str = typer.Option("", "--call", help="A recorded call whose input the gate kept."),
    instance: str = typer.Option("", "--instance", help="A configured instance; offline, a connector."),
    action: str = typer.Option("", "--action", help="A tool action, for example servicenow.incident.get."),
    arg: list[str] = typer.Option([], "--arg", help="k=v, or k:=JSON to say the type."),
    subject: str = typer.Option("", "--subject", help="Who would ask; default yourself."),
    role: list[str] = typer.Option([], "--role", help="May be given several times."),
    environment: str = typer.Option("", "--environment", help="Where they would ask from, for example prod."),
    tenant: str = typer.Option("simulated", "--tenant", help="Offline only; at a gate it is your token's."),
    workspace: str = typer.Option("simulated", "--workspace", help="Offline only."),
    ticket: str = typer.Option("", "--ticket", help="The change or incident the call would belong to."),
    bundle: Path | None = BUNDLE_OPTION,
    config: Path | None = CONFIG_OPTION,
    gate: str = GATE_OPTION,
    token_file: Path | None = TOKEN_FILE_OPTION,
    as_json: bool = JSON_OPTION,
) -> None:
    """Decide without doing: a question from a file, of a recorded call, or typed as options."""
    if sum((input_file is not None, bool(call), bool(action))) != 1:
        fail("usage", "give one of --input, --call and --action", status=EXIT_USAGE, as_json=as_json)
    try:
        given = {"id": subject, "roles": role, "environment": environment}
        changed = {name: value for name, value in given.items() if value}
        typed = Typed(instance, action, arg, parse_arguments(arg), changed, tenant, workspace, ticket or None)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    if bundle is None:
        client = gate_client(gate, token_file)

        def at(body: Body) -> Body:
            return at_gate(lambda: _asked(client, body, typed), as_json=as_json)

        _print_all(_bodies(input_file, call, typed), at, as_json)
        return
    if call:
        fail(
            "usage",
            "ask another bundle about a recorded call with `policy explain CALL --bundle FILE`",
            status=EXIT_USAGE,
            as_json=as_json,
        )
    _offline(bundle, config, input_file, typed, as_json)


def _asked(client: GateClient, body: Body, typed: Typed) -> Body:
    if "arguments" not in body:
        return dict(client.request("POST", "/v1/simulate", body).json())
    return sent(
        lambda arguments: dict(client.request("POST", "/v1/simulate", {**body, "arguments": arguments}).json()),
        typed.arguments,
        typed.pairs,
    )


def _bodies(input_file: Path | None, call: str, typed: Typed) -> Iterable[Body]:
    """What is sent to the gate, one body for each question."""
    if input_file is not None:
        return ({"input": question} for question in read_questions(input_file))
    if call:
        return ({"call": call},)
    body: Body = {"instance": typed.instance, "action": typed.action, "arguments": typed.arguments}
    if typed.subject:
        body["subject"] = typed.subject
    if typed.ticket:
        body["ticket"] = typed.ticket
    return (body,)


def _offline(path: Path, config: Path | None, input_file: Path | None, typed: Typed, as_json: bool) -> None:
    trusting = configured(config, as_json=as_json) if config is not None else None
    policy: AsidePolicy | None = None
    try:
        bundle = read_bundle(path, trusting)
        policy = AsidePolicy(bundle.content)
        asked = policy
        questions = read_questions(input_file) if input_file is not None else (_fitted_document(bundle, typed),)
        _print_all(questions, lambda question: decided_offline(bundle, asked, question), as_json)
    except (BundleError, PdpError, Refusal, OSError, GateError) as failed:
        failed_offline(failed, as_json)
    finally:
        if policy is not None:
            policy.close()


def _fitted_document(bundle: OfflineBundle, typed: Typed) -> dict[str, Any]:
    try:
        return _typed_document(bundle, typed)
    except Refusal as refused:
        first = refused
    again = typed.fitted(first.extra.get("errors")) if first.code == "arguments_invalid" else None
    if again is None:
        raise first
    try:
        return _typed_document(bundle, again)
    except Refusal as refused:
        errors = errors_of_both(first.extra.get("errors"), refused.extra.get("errors"))
        if refused.code != first.code or not errors:
            raise
        raise refusal(first.code, str(errors[0].get("message", "")), errors=errors) from refused


def _typed_document(bundle: OfflineBundle, typed: Typed) -> dict[str, Any]:
    """A typed question as the gate would put it; raises ``Refusal`` as it would."""
    name = typed.instance or typed.action.partition(".")[0]
    manifests = load_manifests(bundle.content.data)
    manifest = manifests.get(name) or manifests.get(typed.action.partition(".")[0])
    if manifest is None:
        raise refusal("unclassified", f"the bundle has no connector {name!r}; it has {', '.join(sorted(manifests))}")
    who = typed.subject
    subject = Subject(
        id=who.get("id", "simulated"),
        type="agent",
        issuer="",
        tenant=typed.tenant,
        workspace=typed.workspace,
        environment=who.get("environment", "test"),
        roles=tuple(who.get("roles", ())),
        acr=None,
        amr=(),
        auth_time=None,
        on_behalf_of=None,
        actors=(),
        people=False,
        expires_at=0,
    )
    asked = TypedCall(name, typed.action, typed.arguments, typed.ticket)
    return dict(typed_question(plan_of(manifest, name), subject, asked, call_id="simulated", now=time.time()))


def _print_all(questions: Iterable[dict[str, Any]], ask: Ask, as_json: bool) -> None:
    """Every answer, one line of JSON each or in words."""
    out = None if as_json else console()
    try:
        for question in questions:
            answer = ask(question)
            if out is None:
                sys.stdout.write(json.dumps(answer, ensure_ascii=False) + "\n")
            else:
                say_answer(out, answer)
    except (PdpError, OSError) as failed:
        failed_offline(failed, as_json)


@app.command()
def shadow(
    kind: str = typer.Option(
        "", "--kind", help="loosening, tightening, changed, or engine for what OPA decides otherwise."
    ),
    cursor: str = typer.Option("", "--cursor", help="Where the page before ended."),
    gate: str = GATE_OPTION,
    token_file: Path | None = TOKEN_FILE_OPTION,
    as_json: bool = JSON_OPTION,
) -> None:
    """What the gate's shadow bundle decides differently, newest first."""
    given = {"kind": kind, "cursor": cursor}
    query = "&".join(f"{name}={quote(value)}" for name, value in given.items() if value)
    client = gate_client(gate, token_file)
    answer = at_gate(lambda: client.request("GET", f"/v1/shadow{'?' if query else ''}{query}").json(), as_json=as_json)
    emit(as_json, answer, lambda out: _say_shadow(out, answer))


def _say_shadow(out: Console, answer: dict[str, Any]) -> None:
    bundle, error = answer.get("shadow"), answer.get("error")
    if bundle is not None:
        out.print(f"shadow: sequence {bundle['sequence']}, revision {shown(bundle['revision'])}")
        out.print(f"offered {answer['offered']}, dropped {answer['dropped']} since the gate started")
    elif error is not None:
        out.print(f"[red]no shadow[/red]: {shown(error['code'])}: {shown(error['detail'])}")
    else:
        out.print("no shadow is configured")
    for kind, count in sorted(answer["counts"].items()):
        out.print(f"{shown(kind)}: {count}")
    for item in answer["items"]:
        say_difference(out, item)
    if answer["next"]:
        out.print(f"more: --cursor {shown(answer['next'])}")


for part in (policy_coverage, policy_explain, policy_replay):
    part.register(app)
