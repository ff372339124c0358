"""``tidegate policy explain``: which rules held, which nearly did, and where those stopped.

The embedded engine decides; on a machine with OPA its trace says the rest, and a decision that it makes otherwise is said too.
A recorded call is read from the store of the configuration; of one whose input was not kept, what its records say is shown.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from bundles.compiler import find_opa
from bundles.errors import BundleError, BundleUnavailable
from cli.output import EXIT_REFUSED, EXIT_UNAVAILABLE, EXIT_USAGE, JSON_OPTION, emit, fail, shown
from cli.policy_answers import decided_offline, failed_offline, say_answer
from cli.policy_source import (
    BUNDLE_OPTION,
    CONFIG_OPTION,
    INPUT_OPTION,
    OfflineBundle,
    configured,
    configured_bundle,
    needed_config,
    open_inputs,
    read_bundle,
    read_questions,
)
from gateway.config import ConfigError, GatewayConfig
from gateway.errors import GateError
from gateway.store.answers import AnswerBroken
from gateway.store.port import StoreUnavailable
from gateway.store.sealing import SealBroken
from pdp.aside import AsidePolicy
from pdp.decided import NO_ANSWER, REFUSED_BY
from pdp.decision_document import comparable
from pdp.errors import PdpError
from pdp.explain import explain as explain_by_opa
from pdp.explain import nearly_held, rule_document
from pdp.replay import Recorded, kind_of, read_recorded, summary_of

if TYPE_CHECKING:
    from rich.console import Console

CALL = typer.Argument(None, help="A recorded call.")
NEARLY_SHOWN = 5


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(explain)


def explain(
    call: str | None = CALL,
    input_file: Path | None = INPUT_OPTION,
    bundle: Path | None = BUNDLE_OPTION,
    config: Path | None = CONFIG_OPTION,
    as_json: bool = JSON_OPTION,
) -> None:
    """Say why a recorded call, or a question in a file, is decided as it is."""
    if (call is None) is (input_file is None):
        fail("usage", "give a call or --input FILE", status=EXIT_USAGE, as_json=as_json)
    found = configured(config, as_json=as_json) if call is None else needed_config(config, as_json=as_json)
    if bundle is None and found is None:
        fail("usage", "give --bundle FILE or --config FILE", status=EXIT_USAGE, as_json=as_json)
    recorded: Recorded | None = None
    try:
        if call is not None and found is not None:
            recorded = _recorded(found, call, as_json)
            question = dict(recorded.document)
        else:
            question = _one_question(input_file, as_json)
        asked = read_bundle(bundle, found) if bundle is not None else _configured(found)
        document = _explained(asked, question)
    except (BundleError, PdpError, ConfigError, GateError, OSError) as failed:
        failed_offline(failed, as_json)
    if recorded is not None:
        kind = kind_of(recorded.decision, document["decision"])
        document["recorded"] = {**summary_of(recorded.decision), "bundle": dict(recorded.bundle), "now": kind.value}
    emit(as_json, document, lambda out: _say(out, document))
    if document["opa"]["agrees"] is False:
        raise typer.Exit(EXIT_REFUSED)


def _configured(config: GatewayConfig | None) -> OfflineBundle:
    if config is None:
        raise BundleUnavailable("bundle_missing", "no bundle is named")
    return configured_bundle(config)


def _one_question(path: Path | None, as_json: bool) -> dict[str, Any]:
    questions = list(read_questions(path)) if path is not None else []
    if len(questions) != 1:
        fail("usage", "one question is explained at a time", status=EXIT_USAGE, as_json=as_json)
    return questions[0]


def _recorded(config: GatewayConfig, call: str, as_json: bool) -> Recorded:
    """What was asked about a call; without it the command ends with what its records say."""
    with open_inputs(config, as_json=as_json) as inputs:
        try:
            kept = inputs.of_call(call)
            records = inputs.records_of(call)
        except (StoreUnavailable, SealBroken, AnswerBroken) as failed:
            fail(getattr(failed, "code", "input_unreadable"), str(failed), status=EXIT_UNAVAILABLE, as_json=as_json)
    if kept is not None:
        return read_recorded(kept.about, kept.document)
    decided = [record for record in records if record.get("decision")]
    if not decided:
        fail("not_found", f"there is no decided call {call}", as_json=as_json)
    last = decided[-1]
    told = {name: last["decision"].get(name) for name in ("effect", "reasons", "engine", "input")}
    recorded: dict[str, Any] = {**told, **last["policy"]}
    document = {"call": call, "decision": None, "recorded": recorded, "note": "input_not_kept"}
    emit(as_json, document, lambda out: _say_recorded(out, recorded))
    raise typer.Exit(0)


def _explained(bundle: OfflineBundle, question: dict[str, Any]) -> dict[str, Any]:
    policy = AsidePolicy(bundle.content)
    try:
        document = decided_offline(bundle, policy, question)
    finally:
        policy.close()
    try:
        opa = find_opa()
    except BundleUnavailable as missing:
        return {**document, "opa": {"found": False, "agrees": None, "why": missing.code}, "held": None, "nearly": None}
    explained = explain_by_opa(bundle.content, question, opa.path)
    theirs = explained.decision if isinstance(explained.decision, dict) else {}
    # What the gate made of an answer that it cannot enforce is not what either engine said.
    own = {rule["rule"] for rule in document["rules"]} & {REFUSED_BY, NO_ANSWER}
    agrees = None if own else _comparable(document["decision"]) == _comparable(theirs)
    connector = question["resource"].get("properties", {}).get("connector", "")
    return {
        **document,
        "opa": {"found": True, "agrees": agrees, "decision": explained.decision},
        "held": [rule_document(rule) for rule in explained.rules if rule.held],
        "nearly": [rule_document(rule) for rule in nearly_held(explained.rules, str(connector))],
    }


def _comparable(decision: dict[str, Any]) -> bytes:
    """Effect and reasons: the parts that both a checked and a raw decision have in the same form."""
    return comparable({"effect": decision.get("effect"), "reasons": decision.get("reasons", [])})


def _say(out: Console, document: dict[str, Any]) -> None:
    say_answer(out, document)
    opa = document["opa"]
    if not opa["found"]:
        out.print("OPA is not on this machine: with it, the rules that nearly held are shown with their lines")
        return
    if opa["agrees"] is False:
        out.print(f"[red]OPA decides otherwise[/red]: {shown(opa['decision'])}")
    for rule in document["held"]:
        out.print(f"[green]held[/green]    {shown(rule['rule'])}  {shown(rule['file'])}:{rule['line']}")
    for rule in document["nearly"][:NEARLY_SHOWN]:
        place = f"{shown(rule['file'])}:{rule['line']}"
        out.print(f"[yellow]stopped[/yellow] {shown(rule['rule'])}  {place}, {rule['passed']} of {rule['conditions']}")
        condition, indent = rule["failing"], "  "
        while condition is not None:
            out.print(f"{indent}{shown(condition['file'])}:{condition['line']}: {shown(condition['text'])}")
            condition, indent = condition["because"], indent + "  "


def _say_recorded(out: Console, recorded: dict[str, Any]) -> None:
    out.print(f"[bold]{shown(recorded['effect'])}[/bold] when the call was made, by {shown(recorded['engine'])}")
    for rule, code in zip(recorded.get("rules", []), recorded.get("reasons") or [], strict=False):
        out.print(f"  {shown(code)}  ({shown(rule)})")
    out.print("what policy was asked was not kept (records.inputs_keep_seconds), so it cannot be decided again")
