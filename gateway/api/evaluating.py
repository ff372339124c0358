"""One evaluation, from a question to its decision: what access evaluations and access requests have in common.

Guarantees: the question is put with what the gate knows for itself, and with an approval only where it is the caller's
own and of exactly this question; whatever fails is a refusal. Leaves what is answered to `authzen` and
`access_requests`, recording the draft to them too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from bundles.canonical import JsonValue, StrictJsonError, parse_strict
from gateway.api.access_request_mapping import Standing, question_fields, referred, standing
from gateway.api.authzen_mapping import CONNECTOR, KnownAction, MalformedQuestion, Question, input_document
from gateway.api.exchange import ApiExchange
from gateway.approvals.model import Approval, ApprovalRefused
from gateway.approvals.render import approval_facts
from gateway.edge.body import read_body
from gateway.edge.identity import Subject
from gateway.edge.problem import refusal
from gateway.flow.describe import ACTOR, decision_record, policy_record, recorded_text, subject_record
from gateway.flow.failures import policy_failed
from gateway.flow.prepare import resource_of
from gateway.flow.switch_scopes import covering_scopes
from gateway.flow.values import InstancePlan
from gateway.ledger.record import LogId, RecordDraft
from gateway.running import Running
from pdp.decided import Decided
from pdp.documents import ActionFacts, Effect
from pdp.errors import InputRefused, PdpError


@dataclass(frozen=True, slots=True)
class Evaluation:
    """One evaluation and where it was asked."""

    running: Running
    caller: Subject
    id: str
    request_id: str | None = None

    @property
    def log(self) -> LogId:
        """The caller's own ledger."""
        return (self.caller.tenant, self.caller.workspace)


@dataclass(frozen=True, slots=True)
class Judged:
    """A decision on a question: the action it is about, whether a switch stops it, and what became of the approval that
    the question refers to (`standing` is None where it refers to none)."""

    question: Question
    known: KnownAction | None
    decided: Decided
    killed: bool
    approval: Approval | None = None
    standing: Standing | None = None

    @property
    def permitted(self) -> bool:
        """Whether policy allows it and nothing stops it."""
        return self.decided.decision.effect is Effect.ALLOW and not self.killed


async def judge(at: Evaluation, question: Question) -> Judged:
    """Put a question to policy. Raises `MalformedQuestion`, `Refusal`; those of `policy_failed` among them."""
    known = _known_action(at.running.assembly.plans, at.caller, question)
    services = at.running.services
    approval, found = await _referred(at, question, known)
    facts = approval_facts(approval) if approval is not None and found is Standing.APPLIES else None
    now = services.clock()
    try:
        document = input_document(question, at.caller, known, now=now, evaluation_id=at.id, approval=facts)
        decided = await services.policy.decide_document(document)
    except InputRefused as refused:
        raise MalformedQuestion(refused.detail) from refused
    except PdpError as failed:
        raise policy_failed(failed, services.metrics) from failed
    services.metrics.observe_decision(decided.engine, decided.seconds, decided.cached)
    killed = _is_killed(at, question, _connector(known))
    own = approval if found is not Standing.UNVERIFIABLE else None
    return Judged(question, known, decided, killed, own, found)


def evaluation_draft(at: Evaluation, judged: Judged) -> RecordDraft:
    """The record of an evaluation: who asked, about whom and what, and what was decided; no properties, no arguments."""
    ids: dict[str, object] = {"call": at.id}
    if at.request_id is not None:
        ids["request"] = at.request_id
    if judged.approval is not None:
        ids["approval"] = judged.approval.id
    question, about = judged.question, judged.question.subject
    return RecordDraft(
        log=at.log,
        kind="evaluation",
        ids=ids,
        subject=subject_record(at.caller),
        action={
            "name": recorded_text(question.action),
            "connector": _connector(judged.known),
            "subject": {"type": recorded_text(about.type), "id": recorded_text(about.id)},
            "resource": {"type": recorded_text(question.resource.type), "id": recorded_text(question.resource.id)},
            "permitted": judged.permitted,
            "code": None if judged.permitted else "killed" if judged.killed else "denied",
        },
        decision=decision_record(judged.decided),
        policy=policy_record(judged.decided),
        digests={},
        actor=ACTOR,
    )


async def json_document(exchange: ApiExchange) -> JsonValue:
    """The JSON body of a request, whatever it holds: unknown members are the sender's business. Raises `Refusal`."""
    content_type = (exchange.head.get("content-type") or "").partition(";")[0].strip().lower()
    if content_type != "application/json":
        raise refusal("malformed_request", "the Content-Type is not application/json")
    raw = await read_body(exchange.request, exchange.body_max_bytes)
    try:
        return parse_strict(raw, max_bytes=exchange.body_max_bytes)
    except StrictJsonError as error:
        raise refusal("malformed_request", f"the body is no strict JSON: {error.code}") from error


async def _referred(
    at: Evaluation, question: Question, known: KnownAction | None
) -> tuple[Approval | None, Standing | None]:
    """The approval that a question refers to, and what it is worth."""
    named = referred(question.context)
    if named is None:
        return None, None
    services = at.running.services
    try:
        approval = await services.approvals.get(at.log, named)
    except ApprovalRefused:
        return None, Standing.UNVERIFIABLE
    fields = question_fields(question, at.caller, known)
    now = int(services.clock() * 1000)
    return approval, standing(approval, fields, at.caller, at.running.chains(), now)


def _known_action(plans: Mapping[str, InstancePlan], caller: Subject, question: Question) -> KnownAction | None:
    """The connector's action of that name at the instance that is named, or at the only one the caller may use.

    Raises `MalformedQuestion` when no one instance is meant, and the refusal `arguments_invalid`.
    """
    having = [plan for plan in plans.values() if plan.manifest.action(question.action) is not None]
    if not having:
        return None
    wanted = question.resource.properties.get("instance")
    usable = [plan for plan in having if plan.admits(caller) and wanted in (None, plan.name)]
    if len(usable) != 1:
        which = "resource.properties.instance must name one of the instances" if usable else "there is no instance"
        raise MalformedQuestion(f"{which} with this action")
    plan = usable[0]
    action = plan.table.action(question.action)
    arguments = question.arguments
    plan.schemas.validate(action.name, arguments)
    facts = ActionFacts(action.name, action.mode, action.risk, action.reversible, action.idempotent)
    return KnownAction(facts, plan.manifest.connector, plan.name, *resource_of(action, arguments))


def _is_killed(at: Evaluation, question: Question, connector: str) -> bool:
    switches = at.running.services.switches.of(at.caller.tenant)
    if not switches:
        return False
    scopes = covering_scopes(replace(at.caller, id=question.subject.id), connector, question.action)
    return any(switch.scope in scopes for switch in switches)


def _connector(known: KnownAction | None) -> str:
    return known.connector if known is not None else CONNECTOR
