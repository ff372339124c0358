"""What the policy commands answer with: a simulated decision, a difference, an error, in words or as JSON.

Guarantees: texts of bundles and calls are shown escaped; errors end a command with their own code.
"""

from __future__ import annotations

import json
from hashlib import sha256
from typing import TYPE_CHECKING, Any, NoReturn

from bundles.errors import BundleUnavailable
from cli.gate_call import with_errors
from cli.output import EXIT_REFUSED, EXIT_UNAVAILABLE, fail, shown
from cli.policy_source import OfflineBundle
from gateway.errors import Refusal
from pdp.aside import AsidePolicy
from pdp.decided import Decided
from pdp.documents import encode_document
from pdp.simulate import simulation_document

if TYPE_CHECKING:
    from rich.console import Console


def failed_offline(failed: Exception, as_json: bool) -> NoReturn:
    """End the command with an error's own code: exit 3 for what is missing, 1 for what is wrong."""
    if isinstance(failed, BundleUnavailable | OSError):
        code = getattr(failed, "code", "input_missing")
        fail(code, getattr(failed, "detail", str(failed)), status=EXIT_UNAVAILABLE, as_json=as_json)
    errors = failed.extra.get("errors") if isinstance(failed, Refusal) else None
    detail = with_errors(getattr(failed, "detail", "") or str(failed), errors)
    fail(getattr(failed, "code", "refused"), detail, status=EXIT_REFUSED, as_json=as_json)


def decided_offline(bundle: OfflineBundle, policy: AsidePolicy, question: dict[str, Any]) -> dict[str, Any]:
    """One simulated answer of a bundle from a file; raises ``InputRefused``."""
    encoded = encode_document(question)
    decision = policy.decide(encoded)
    digest = f"sha256:{sha256(encoded).hexdigest()}"
    asked = (bundle.content.revision, bundle.digest, bundle.sequence, policy.engine)
    decided = Decided(decision, *asked, "", digest, 0.0)
    document: dict[str, Any] = simulation_document(decided, question, bundle.content.rego)
    return {**document, "bundle": bundle.document()}


def say_answer(out: Console, answer: dict[str, Any]) -> None:
    """One simulated answer in words."""
    decision = answer["decision"]
    out.print(f"[bold]{shown(decision['effect'])}[/bold]")
    for reason in decision["reasons"]:
        rule = f"  ({shown(reason['rule'])})" if reason.get("rule") else ""
        out.print(f"  {shown(reason['code'])}: {shown(reason['message'])}{rule}")
    for name, value in decision["obligations"].items():
        out.print(f"  {shown(name)}: {shown(json.dumps(value, ensure_ascii=False))}")
    if answer.get("missing_facts"):
        out.print(f"  missing facts: {shown(', '.join(answer['missing_facts']))}")
    recorded = answer.get("recorded")
    if recorded:
        out.print(f"  when the call was made: {shown(recorded['effect'])}; today's answer is {shown(recorded['now'])}")
    bundle = answer["bundle"]
    verified = "" if bundle.get("verified", True) else f", not verified ({shown(bundle['unverified_because'])})"
    out.print(f"  by {shown(answer['engine'])}, revision {shown(bundle['revision'])}{verified}")


def say_difference(out: Console, item: dict[str, Any]) -> None:
    """One difference in one line."""
    colour = {"loosening": "red", "tightening": "yellow"}.get(item["kind"], "cyan")
    codes = ", ".join(reason["code"] for reason in item["after"]["reasons"])
    out.print(
        f"[{colour}]{shown(item['kind'])}[/{colour}]  {shown(item['at'])}  {shown(item['action'])}  "
        f"{shown(item['subject'])}  {shown(item['before']['effect'])} → {shown(item['after']['effect'])} "
        f"({shown(codes)})  call={shown(item['call'])}"
    )
