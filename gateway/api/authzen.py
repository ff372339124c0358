"""The OpenID AuthZEN Authorization API 1.0 over HTTP: evaluation, evaluations and the metadata document.

Guarantees: nobody is answered who did not identify and whom the bundle does not let ask; each decision is durable in the
caller's own ledger before it goes out; a question that fails is answered closed. Refusals have the specification's
shape: a status and one JSON string that starts with the stable code. Leaves the words to `authzen_mapping`.

**Source**: OpenID AuthZEN Authorization API 1.0, transport and metadata sections.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final
from urllib.parse import urlsplit

import orjson

from bundles.canonical import JsonValue, StrictJsonError, parse_strict
from gateway.api.authzen_mapping import (
    CONNECTOR,
    Asked,
    KnownAction,
    MalformedQuestion,
    Question,
    decision_answer,
    input_document,
    is_about_caller,
    metadata,
    parse_evaluation,
    parse_evaluations,
    refused_answer,
    settles,
)
from gateway.api.exchange import ApiExchange
from gateway.api.management import authorize
from gateway.edge.answer import Answer
from gateway.edge.body import read_body
from gateway.edge.headers import HeaderPairs, RequestHead
from gateway.edge.identity import Subject
from gateway.edge.problem import MEDIA_TYPE, refusal
from gateway.errors import Refusal
from gateway.flow.describe import ACTOR, RECORDED_TEXT_MAX_CHARACTERS, decision_record, policy_record, subject_record
from gateway.flow.prepare import resource_of
from gateway.flow.switch_scopes import covering_scopes
from gateway.flow.values import InstancePlan
from gateway.ledger.record import RecordDraft
from gateway.running import Running
from pdp.decided import Decided
from pdp.documents import ActionFacts, Effect
from pdp.errors import EngineFailed, InputRefused, PdpError

PREFIX: Final = "/access/v1/"
WELL_KNOWN: Final = "/.well-known/authzen-configuration"
REQUEST_ID: Final = "x-request-id"
REQUEST_ID_MAX_CHARACTERS: Final = 256
_EVALUATE: Final = "access.evaluate"
_FOR_OTHERS: Final = "access.subject"
_UNABLE: Final = frozenset({"policy_stale", "policy_unavailable", "engine_failed"})
_JSON: HeaderPairs = (
    ("Content-Type", "application/json"),
    ("Cache-Control", "no-store"),
    ("X-Content-Type-Options", "nosniff"),
)


@dataclass(frozen=True, slots=True)
class _Evaluation:
    """One evaluation and where it was asked."""

    running: Running
    caller: Subject
    id: str
    request_id: str | None


def is_metadata(path: str) -> bool:
    """Whether a path is the metadata document's."""
    return path == WELL_KNOWN or path.startswith(f"{WELL_KNOWN}/")


def answer_metadata(running: Running, head: RequestHead) -> Answer:
    """The metadata document, for everybody. Raises `not_found` for another decision point than this one."""
    if head.method not in ("GET", "HEAD"):
        raise refusal("method_not_allowed", "only GET is allowed here")
    base_url = running.assembly.config.external_url
    if head.target.path.removeprefix(WELL_KNOWN) != urlsplit(base_url).path:
        raise refusal("not_found", "there is no such decision point")
    return Answer(200, _JSON, orjson.dumps(metadata(base_url)))


async def handle(running: Running, exchange: ApiExchange) -> Answer:
    """Answer an evaluation request of an identified caller. Raises `Refusal`."""
    path = exchange.head.target.path.removeprefix(PREFIX)
    if path not in ("evaluation", "evaluations"):
        raise refusal("not_found")
    if exchange.head.method != "POST":
        raise refusal("method_not_allowed", "only POST is allowed here")
    request_id = _request_id(exchange.head)
    await authorize(running, exchange, _EVALUATE)
    document = await _document(exchange)
    try:
        asked = parse_evaluation(document) if path == "evaluation" else parse_evaluations(document)
    except MalformedQuestion as fault:
        raise refusal("malformed_request", fault.detail) from fault
    caller = exchange.subject
    if any(isinstance(question, Question) and not is_about_caller(question, caller) for question in asked.questions):
        await authorize(running, exchange, _FOR_OTHERS)
    answers = await _answers(_Evaluation(running, caller, exchange.call_id, request_id), asked)
    return Answer(200, (*_JSON, ("Tidegate-Call", exchange.call_id)), orjson.dumps(answers))


def in_its_words(answered: Answer, head: RequestHead) -> Answer:
    """An answer as the specification has it: a problem becomes a message string, the request's identifier comes back.

    **Source**: the transport section: the body of an error is a message string; 401 carries a challenge.
    """
    headers = dict(answered.headers)
    status, body = answered.status, answered.body
    if headers.get("Content-Type") == MEDIA_TYPE and isinstance(body, bytes):
        problem = orjson.loads(body)
        headers |= {"Content-Type": "application/json", "Tidegate-Call": problem["call"]}
        status = 400 if problem["code"] == "arguments_invalid" else status
        body = orjson.dumps(f"{problem['code']}: {problem.get('detail', problem['title'])}")
    try:
        request_id = _request_id(head)
    except Refusal:  # said in the answer already
        request_id = None
    echoed: HeaderPairs = () if request_id is None else (("X-Request-ID", request_id),)
    return Answer(status, (*headers.items(), *echoed), body)


def _request_id(head: RequestHead) -> str | None:
    found = [value for name, value in head.headers if name == REQUEST_ID]
    if not found:
        return None
    if len(found) > 1 or not 0 < len(found[0]) <= REQUEST_ID_MAX_CHARACTERS or not found[0].isprintable():
        raise refusal("malformed_request", "X-Request-ID stands once and has 1 to 256 printable characters")
    return found[0]


async def _document(exchange: ApiExchange) -> JsonValue:
    content_type = (exchange.head.get("content-type") or "").partition(";")[0].strip().lower()
    if content_type != "application/json":
        raise refusal("malformed_request", "the Content-Type is not application/json")
    raw = await read_body(exchange.request, exchange.body_max_bytes)
    try:
        return parse_strict(raw, max_bytes=exchange.body_max_bytes)
    except StrictJsonError as error:
        raise refusal("malformed_request", f"the body is no strict JSON: {error.code}") from error


async def _answers(at: _Evaluation, asked: Asked) -> dict[str, JsonValue]:
    """Evaluate in order; the records of all go to the ledger together, and the answer waits for them."""
    answers: list[JsonValue] = []
    drafts: list[RecordDraft] = []
    for number, question in enumerate(asked.questions):
        one = replace(at, id=f"{at.id}-{number}") if asked.several else at
        try:
            answer, draft = await _one(one, question)
        except MalformedQuestion as fault:
            if not asked.several:
                raise refusal("denied" if fault.status == 403 else "malformed_request", fault.detail) from fault
            answer = refused_answer("malformed_request", fault.detail, fault.status)
        except Refusal as refused:
            if not asked.several or refused.code in _UNABLE:
                raise
            answer = refused_answer(refused.code, refused.detail or refused.title, refused.status)
        else:
            drafts.append(draft)
        answers.append(answer)
        if settles(asked.semantic, answer["decision"] is True):
            break
        await asyncio.sleep(0)  # the embedded engine answers in line: others get their turn between two evaluations
    writer = at.running.services.writer
    await asyncio.gather(*(writer.append(draft) for draft in drafts))
    if asked.several:
        return {"evaluations": answers}
    only = answers[0]
    return only if isinstance(only, dict) else {}


async def _one(at: _Evaluation, question: Question | MalformedQuestion) -> tuple[dict[str, JsonValue], RecordDraft]:
    if isinstance(question, MalformedQuestion):
        raise question
    known = _known_action(at.running.assembly.plans, at.caller, question)
    services = at.running.services
    try:
        document = input_document(question, at.caller, known, now=services.clock(), evaluation_id=at.id)
        decided = await services.policy.decide_document(document)
    except InputRefused as refused:
        raise MalformedQuestion(refused.detail) from refused
    except PdpError as failed:
        if isinstance(failed, EngineFailed):
            services.metrics.engine_errors.inc()
        raise refusal(failed.code if failed.code in _UNABLE else "engine_failed") from failed
    services.metrics.observe_decision(decided.engine, decided.seconds, decided.cached)
    connector = known.connector if known is not None else CONNECTOR
    killed = _is_killed(at, question, connector)
    answer = decision_answer(decided.decision, decided.decision_id)
    if killed and answer["decision"] is True:
        answer = refused_answer("killed", "a kill switch stops this action", 403)
    code = "" if answer["decision"] is True else "killed" if killed else "denied"
    return answer, _draft(at, question, decided, connector, code)


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


def _is_killed(at: _Evaluation, question: Question, connector: str) -> bool:
    switches = at.running.services.switches.of(at.caller.tenant)
    if not switches:
        return False
    scopes = covering_scopes(replace(at.caller, id=question.subject.id), connector, question.action)
    return any(switch.scope in scopes for switch in switches)


def _draft(at: _Evaluation, question: Question, decided: Decided, connector: str, code: str) -> RecordDraft:
    ids: dict[str, object] = {"call": at.id}
    if at.request_id is not None:
        ids["request"] = at.request_id
    about = question.subject
    return RecordDraft(
        log=(at.caller.tenant, at.caller.workspace),
        kind="evaluation",
        ids=ids,
        subject=subject_record(at.caller),
        action={
            "name": _cut(question.action),
            "connector": connector,
            "subject": {"type": _cut(about.type), "id": _cut(about.id)},
            "resource": {"type": _cut(question.resource.type), "id": _cut(question.resource.id)},
            "permitted": decided.decision.effect is Effect.ALLOW and not code,
            "code": code or None,
        },
        decision=decision_record(decided),
        policy=policy_record(decided),
        digests={},
        actor=ACTOR,
    )


def _cut(text: str) -> str:
    return text[:RECORDED_TEXT_MAX_CHARACTERS]
