"""``POST /v1/simulate``: decide without doing.

Guarantees: nothing is sent, recorded as a call or held; the bundle in force answers as it would a call. Whoever asks needs
`tidegate.simulate.run`, asking for another subject also `simulate.subject`; names of rules and of missing facts are shown
with `simulate.rules` only (security rule 10). Tenant and workspace are the caller's own: anything else is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from bundles.canonical import JsonValue
from gateway.api.exchange import ApiExchange, answer, text
from gateway.api.management import authorize
from gateway.approvals.render import rfc3339
from gateway.edge.answer import Answer
from gateway.edge.problem import refusal
from gateway.errors import Refusal
from gateway.flow.failures import policy_failed
from gateway.running import Running
from gateway.simulation import TypedCall, is_about, overridden, tenant_of, typed_question
from gateway.store.answers import AnswerBroken
from gateway.store.port import KeptInput
from gateway.store.sealing import SealBroken
from pdp.decided import Decided
from pdp.errors import InputRefused, PdpError
from pdp.replay import Recorded, kind_of, read_recorded, summary_of
from pdp.simulate import check_question, decision_document, simulation_document

_TYPED: Final = frozenset({"instance", "action", "arguments", "subject", "ticket", "run"})
_MEMBERS: Final = frozenset({"input", "call"}) | _TYPED
CALL_MAX_CHARACTERS: Final = 128


async def handle(running: Running, exchange: ApiExchange) -> Answer:
    """Answer a request to ``/v1/simulate``."""
    if exchange.head.method != "POST":
        raise refusal("method_not_allowed", "only POST is allowed here")
    await authorize(running, exchange, "simulate.run")
    given = await exchange.document(_MEMBERS)
    recorded: Recorded | None = None
    if "input" in given:
        _only(given, frozenset({"input"}))
        question = await _whole(running, exchange, given["input"])
    elif "call" in given:
        _only(given, frozenset({"call"}))
        recorded = await _of_call(
            running, exchange, text(given, "call", required=True, max_characters=CALL_MAX_CHARACTERS)
        )
        question = dict(recorded.document)
    else:
        question = await _typed(running, exchange, given)
    rules = await _may(running, exchange, "simulate.rules")
    decided = await _decided(running, question)
    active = running.services.policy.current()
    rego = active.bundle.rego if active is not None and active.bundle.digest == decided.bundle_digest else {}
    document = simulation_document(decided, question, rego, rules=rules)
    if recorded is not None:
        document["recorded"] = _recorded_document(recorded, decided, rules=rules)
    return answer(document)


def _only(given: Mapping[str, JsonValue], allowed: frozenset[str]) -> None:
    more = sorted(given.keys() - allowed)
    if more:
        message = f"beside {min(allowed)} nothing else is given"
        raise refusal("arguments_invalid", message, errors=[{"pointer": f"/{more[0]}", "message": message}])


async def _whole(running: Running, exchange: ApiExchange, given: JsonValue) -> dict[str, JsonValue]:
    """A question given as a whole document."""
    try:
        question = check_question(given)
    except InputRefused as refused:
        errors = [{"pointer": "/input", "message": refused.detail}]
        raise refusal("arguments_invalid", refused.detail, errors=errors) from refused
    if tenant_of(question) != (exchange.subject.tenant, exchange.subject.workspace):
        raise refusal("denied", "tenant and workspace of a simulated subject are the caller's own")
    if not is_about(question, exchange.subject):
        await authorize(running, exchange, "simulate.subject")
    return question


async def _typed(running: Running, exchange: ApiExchange, given: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """A question in words: instance, action, arguments."""
    document = dict(given)
    arguments = document.get("arguments", {})
    if not isinstance(arguments, dict):
        raise refusal("arguments_invalid", "arguments is an object", errors=[{"pointer": "/arguments"}])
    subject, other = exchange.subject, document.get("subject")
    if other is not None:
        if not isinstance(other, dict):
            raise refusal("arguments_invalid", "subject is an object", errors=[{"pointer": "/subject"}])
        await authorize(running, exchange, "simulate.subject")
        subject = overridden(subject, other)
    instance = text(document, "instance", required=True, max_characters=64)
    typed = TypedCall(
        instance,
        text(document, "action", required=True, max_characters=128),
        arguments,
        text(document, "ticket") or None,
        text(document, "run") or None,
    )
    plan = running.assembly.plans.get(instance)
    if plan is None or not plan.admits(exchange.subject):
        raise refusal("not_found", "there is no such instance")
    return typed_question(plan, subject, typed, call_id=exchange.call_id, now=running.services.clock())


async def _of_call(running: Running, exchange: ApiExchange, call_id: str) -> Recorded:
    """The question of a recorded call of the caller's own tenant and workspace."""
    kept = await kept_input(running, exchange, call_id)
    if kept is None:
        row = await running.services.store.call(exchange.log, call_id)
        if row is None:
            raise refusal("not_found", "there is no such call")
        recorded = {"effect": row.effect, "code": row.code, "decision": row.decision, "action": row.action}
        told = {"instance": row.instance, "created": rfc3339(row.created)}
        message = "what was asked about this call is not kept (records.inputs_keep_seconds)"
        raise refusal("not_found", message, recorded={**recorded, **told})
    recorded_call = recorded_of(kept)
    if not is_about(recorded_call.document, exchange.subject):
        await authorize(running, exchange, "simulate.subject", resource_id=call_id)
    return recorded_call


async def kept_input(running: Running, exchange: ApiExchange, call_id: str) -> KeptInput | None:
    """A kept input of the caller's own log. Raises `ledger_unavailable` when it does not open."""
    try:
        return await running.services.store.kept_input(exchange.log, call_id)
    except (SealBroken, AnswerBroken) as broken:
        raise refusal("ledger_unavailable") from broken


def recorded_of(kept: KeptInput) -> Recorded:
    """A kept input as it was asked. Raises `ledger_unavailable` when it is not what was written."""
    try:
        return read_recorded(kept.about, kept.document)
    except PdpError as broken:
        raise refusal("ledger_unavailable") from broken


async def _may(running: Running, exchange: ApiExchange, operation: str) -> bool:
    """Whether the bundle allows a further operation, which the exchange's trace then does not name."""
    trace = exchange.trace
    named = (trace.action, trace.mode, trace.decided)
    try:
        await authorize(running, exchange, operation)
    except Refusal as refused:
        if refused.code != "denied":
            raise
        return False
    finally:
        trace.action, trace.mode, trace.decided = named
    return True


async def _decided(running: Running, question: Mapping[str, Any]) -> Decided:
    try:
        return await running.services.policy.decide_document(question)
    except InputRefused as refused:
        raise refusal("arguments_invalid", refused.detail) from refused
    except PdpError as failed:
        raise policy_failed(failed, running.services.metrics) from failed


def _recorded_document(recorded: Recorded, decided: Decided, *, rules: bool) -> dict[str, JsonValue]:
    """What was decided when the call was made, and how today's answer stands to it."""
    before = summary_of(recorded.decision)
    if not rules:
        before["reasons"] = None
    kind = kind_of(recorded.decision, decision_document(decided.decision))
    bundle = {name: recorded.bundle[name] for name in ("revision", "digest", "sequence")}
    return {**before, "bundle": bundle, "now": kind.value}
