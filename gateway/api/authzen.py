"""The OpenID AuthZEN Authorization API 1.0 over HTTP: evaluation, evaluations and the metadata document.

Guarantees: nobody is answered who did not identify and whom the bundle does not let ask; each decision is durable in the
caller's own ledger before it goes out; a question that fails is answered closed. Refusals have the specification's
shape: a status and one JSON string that starts with the stable code. Leaves the words to `authzen_mapping`.

**Source**: OpenID AuthZEN Authorization API 1.0, transport and metadata sections.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Final
from urllib.parse import urlsplit

import orjson

from bundles.canonical import JsonValue
from gateway.api import access_requests
from gateway.api.access_request_mapping import (
    TOKEN_SECONDS,
    Denial,
    bound_members,
    chain_of,
    offers_request,
    seal_denial,
    with_approval,
    with_offer,
)
from gateway.api.access_requests import KEY_PURPOSE, in_profile_words
from gateway.api.authzen_mapping import (
    Asked,
    MalformedQuestion,
    Question,
    decision_answer,
    is_about_caller,
    metadata,
    parse_evaluation,
    parse_evaluations,
    refused_answer,
    settles,
)
from gateway.api.evaluating import Evaluation, Judged, evaluation_draft, json_document, judge
from gateway.api.exchange import ApiExchange
from gateway.api.management import authorize
from gateway.edge.answer import Answer
from gateway.edge.headers import HeaderPairs, RequestHead
from gateway.edge.problem import MEDIA_TYPE, refusal
from gateway.errors import Refusal
from gateway.flow.failures import UNDECIDED
from gateway.ledger.record import RecordDraft
from gateway.running import Running
from pdp.documents import Effect

PREFIX: Final = "/access/v1/"
ACCESS_REQUESTS_PATH: Final = f"{PREFIX}requests"
WELL_KNOWN: Final = "/.well-known/authzen-configuration"
REQUEST_ID: Final = "x-request-id"
REQUEST_ID_MAX_CHARACTERS: Final = 256
_EVALUATE: Final = "access.evaluate"
_FOR_OTHERS: Final = "access.subject"
_JSON: HeaderPairs = (
    ("Content-Type", "application/json"),
    ("Cache-Control", "no-store"),
    ("X-Content-Type-Options", "nosniff"),
)


def is_access_request(head: RequestHead) -> bool:
    """Whether a request is about access requests."""
    path = head.target.path
    return path == ACCESS_REQUESTS_PATH or path.startswith(f"{ACCESS_REQUESTS_PATH}/")


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
    """Answer an evaluation or an access request of an identified caller. Raises `Refusal`."""
    path = exchange.head.target.path.removeprefix(PREFIX)
    if is_access_request(exchange.head):
        return await access_requests.handle(running, exchange)
    if path not in ("evaluation", "evaluations"):
        raise refusal("not_found")
    if exchange.head.method != "POST":
        raise refusal("method_not_allowed", "only POST is allowed here")
    request_id = _request_id(exchange.head)
    await authorize(running, exchange, _EVALUATE)
    document = await json_document(exchange)
    try:
        asked = parse_evaluation(document) if path == "evaluation" else parse_evaluations(document)
    except MalformedQuestion as fault:
        raise refusal("malformed_request", fault.detail) from fault
    caller = exchange.subject
    if any(isinstance(question, Question) and not is_about_caller(question, caller) for question in asked.questions):
        await authorize(running, exchange, _FOR_OTHERS)
    answers = await _answers(Evaluation(running, caller, exchange.call_id, request_id), asked)
    return Answer(200, (*_JSON, ("Tidegate-Call", exchange.call_id)), orjson.dumps(answers))


def in_its_words(answered: Answer, head: RequestHead) -> Answer:
    """An answer as the specification has it: a problem becomes a message string, the request's identifier comes back.

    **Source**: the transport section: the body of an error is a message string; 401 carries a challenge. The profile of
    access requests has problem documents of its own types instead.
    """
    headers = dict(answered.headers)
    status, body = answered.status, answered.body
    if is_access_request(head):
        body = in_profile_words(body) if headers.get("Content-Type") == MEDIA_TYPE and isinstance(body, bytes) else body
    elif headers.get("Content-Type") == MEDIA_TYPE and isinstance(body, bytes):
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


async def _answers(at: Evaluation, asked: Asked) -> dict[str, JsonValue]:
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
            if not asked.several or refused.code in UNDECIDED:
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


async def _one(at: Evaluation, question: Question | MalformedQuestion) -> tuple[dict[str, JsonValue], RecordDraft]:
    if isinstance(question, MalformedQuestion):
        raise question
    judged = await judge(at, question)
    return _answer(at, judged), evaluation_draft(at, judged)


def _answer(at: Evaluation, judged: Judged) -> dict[str, JsonValue]:
    """The decision as it goes out; a denial that people could lift says how to ask them."""
    decided = judged.decided
    answer = decision_answer(decided.decision, decided.decision_id)
    if judged.killed and answer["decision"] is True:
        return refused_answer("killed", "a kill switch stops this action", 403)
    if judged.standing is not None:
        answer = with_approval(answer, judged.standing, judged.approval)
    if decided.decision.effect is not Effect.REQUIRE_HITL:
        return answer
    offer = None if judged.killed or not offers_request(answer) else _offer(at, judged)
    return with_offer(answer, offer, at.running.assembly.config.external_url)


def _offer(at: Evaluation, judged: Judged) -> tuple[str, Denial, str] | None:
    running, decided = at.running, judged.decided
    obligation = decided.decision.approval
    if obligation is None or chain_of(obligation, running.chains()) is None:
        return None
    expires = int(running.services.clock() * 1000) + TOKEN_SECONDS * 1000
    members = bound_members(judged.question)
    denial = Denial(decided.decision_id, decided.bundle_digest, members, expires)
    key = running.tenant_keys.key(at.caller.tenant, KEY_PURPOSE)
    token = seal_denial(denial, at.caller, judged.question, key)
    return (token, denial, obligation.chains[0]) if token is not None else None
