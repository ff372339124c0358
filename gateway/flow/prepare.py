"""From a request to a `GovernedCall`: identity, classification, body, arguments, schema.

Guarantees: what comes out is whole (everything that will leave is in it) and fits the action's schema; nothing
undeclared rides along. A refusal raised before the subject is known is unauthenticated and writes no record.
Leaves deciding and doing to `gateway.flow.call`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Final

from bundles.canonical import JsonValue
from bundles.manifest import Action
from gateway.connectors.arguments import gather_parsed
from gateway.connectors.bodies import MEDIA_TYPES, NO_BODY, Body, parse_body, parse_form, takes_stream
from gateway.connectors.classify import Candidates
from gateway.connectors.outbound import forward_headers, strip_form, strip_query, without_token
from gateway.connectors.render import render
from gateway.edge.fields import HeaderFields
from gateway.edge.headers import HeaderPairs, check_head
from gateway.edge.identity import Subject
from gateway.edge.problem import refusal
from gateway.edge.tokens import FoundToken, find_token
from gateway.errors import Refusal
from gateway.flow.commands import ReadBody, RedeemTicket, VerifyToken
from gateway.flow.events import BodyRead, Flow, Identified, expect
from gateway.flow.values import ApiRequest, FlowLimits, GovernedCall, Outbound, ProxyRequest, Trace
from pdp.value import Value

_PLACEHOLDER = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")
HEADER_MAX_CHARACTERS: Final = 512
IDEMPOTENCY_KEY_MAX_CHARACTERS: Final = 255
_STATED: Final = "stated"


class _Reader:
    """The body of one request, read at most once."""

    __slots__ = ("raw",)

    def __init__(self, has_body: bool) -> None:
        self.raw: bytes | None = None if has_body else b""

    def read(self, max_bytes: int) -> Flow[bytes]:
        if self.raw is None:
            self.raw = expect((yield ReadBody(max_bytes)), BodyRead).body
        if len(self.raw) > max_bytes:
            raise refusal("body_too_large", f"the body of this action is at most {max_bytes} bytes")
        return self.raw


def identify(request: ProxyRequest, limits: FlowLimits, reader: _Reader) -> Flow[tuple[Subject, FoundToken]]:
    """Who asks, by the token at the place that the manifest (or the one action that takes tickets) names."""
    plan, head = request.plan, request.head
    places = plan.manifest.caller_token
    action: Action | None = None
    if plan.has_token_overrides:
        action = _overriding_action(request)
        if action is not None and action.caller_token is not None:
            places = action.caller_token
    form = None
    if plan.wants_form and (head.get("content-type") or "").lower().startswith(MEDIA_TYPES["form"]):
        form = parse_form((yield from reader.read(limits.body_max_bytes)))
    found = find_token(head.headers, head.target.query, form, places, plan.manifest.credential_places)
    if found.place == "ticket" and action is not None:
        event = yield RedeemTicket(found.token, plan.name, action.name, request.path)
    else:
        event = yield VerifyToken(found.token)
    return expect(event, Identified).subject, found


def _overriding_action(request: ProxyRequest) -> Action | None:
    """The action that method and path name, when only one can be meant; classification proper comes later."""
    try:
        candidates = request.plan.table.candidates(request.head.method, request.segments, request.head.target.query)
    except Refusal:
        return None
    return candidates.first


def prepare_proxy(
    request: ProxyRequest, trace: Trace, identified: tuple[Subject, FoundToken], reader: _Reader, limits: FlowLimits
) -> Flow[GovernedCall]:
    """Classify, read and check a request of the reverse proxy; `trace` names the action from when it is known."""
    plan, head = request.plan, request.head
    subject, found = identified
    if not plan.admits(subject):
        raise refusal("unclassified", "this instance is not for the caller's tenant, workspace or environment")
    query = without_token(head.target.query, found)
    candidates = plan.table.candidates(head.method, request.segments, query)
    if not candidates.needs_body:
        _name(trace, candidates.first)
    streamed = takes_stream(candidates.first)
    body, raw = NO_BODY, reader.raw
    if streamed:
        streamed = raw is None
    else:
        body, raw = yield from _parsed_body(request, candidates, found, reader, limits)
    classified = candidates.resolve(body.value)
    _name(trace, classified.action)
    args = gather_parsed(classified.action, classified.path_arguments, query, body)
    plan.schemas.validate(classified.action.name, args)
    outbound = Outbound(
        head.method,
        request.path,
        strip_query(head.target.raw_query, head.target.query, found),
        forward_headers(head.headers, plan.headers),
        raw,
        streamed,
    )
    resource_type, resource_id = resource_of(classified.action, args)
    fields = stated(head.headers)
    return GovernedCall(  # in its order: names cost a microsecond here
        request.call_id,
        plan,
        subject,
        classified.action,
        args,
        resource_type,
        resource_id,
        outbound,
        fields.content_type,
        fields.idempotency_key,
        fields.ticket,
        fields.run,
        fields.stated_reason,
        request.prefer,
        request.received_unix,
        "proxy",
        query,
    )


class Stated(Value, frozen=True):
    """What a call's head says of it beside the arguments."""

    content_type: str | None
    idempotency_key: str | None
    ticket: str | None
    run: str | None
    stated_reason: str


def stated(headers: HeaderPairs) -> Stated:
    """What a head that `check_head` admitted says of its call. Raises `malformed_request` for a text that is too long or empty."""
    known: Stated | None = headers.found.get(_STATED) if type(headers) is HeaderFields else None
    if known is None:
        fields = dict(headers)  # `check_head` saw to it that the ones below stand once
        known = Stated(
            fields.get("content-type"),
            _short(fields.get("idempotency-key"), "idempotency-key", IDEMPOTENCY_KEY_MAX_CHARACTERS),
            _short(fields.get("tidegate-ticket"), "tidegate-ticket"),
            _short(fields.get("tidegate-run"), "tidegate-run"),
            _short(fields.get("tidegate-reason"), "tidegate-reason") or "",
        )
        if type(headers) is HeaderFields:
            headers.keep(_STATED, known)
    return known


def _parsed_body(
    request: ProxyRequest, candidates: Candidates, found: FoundToken, reader: _Reader, limits: FlowLimits
) -> Flow[tuple[Body, bytes | None]]:
    arguments = candidates.first.arguments
    if reader.raw == b"":
        return NO_BODY, b""
    if arguments.body == "none":
        raise refusal("malformed_request", "this action takes no body")
    raw = yield from reader.read(min(arguments.body_max_bytes, limits.body_max_bytes))
    raw = strip_form(raw, found)
    return parse_body(arguments, stated(request.head.headers).content_type, raw), raw


def _name(trace: Trace, action: Action) -> None:
    trace.action, trace.mode = action.name, action.mode


def prepare_api(request: ApiRequest, trace: Trace) -> GovernedCall:
    """Render and check a call that came in our own words; `trace` names the action from when it is known."""
    plan = request.plan
    if not plan.admits(request.subject):
        raise refusal("unclassified", "this instance is not for the caller's tenant, workspace or environment")
    action = plan.table.action(request.action)
    _name(trace, action)
    plan.schemas.validate(action.name, request.arguments)
    rendered = render(plan.manifest, action, request.arguments)
    resource_type, resource_id = resource_of(action, request.arguments)
    headers = forward_headers(rendered.headers, plan.headers)
    return GovernedCall(
        call_id=request.call_id,
        plan=plan,
        subject=request.subject,
        action=action,
        args=request.arguments,
        resource_type=resource_type,
        resource_id=resource_id,
        outbound=Outbound(rendered.method, rendered.path, rendered.query, headers, rendered.body or b""),
        content_type=MEDIA_TYPES[action.arguments.body] if rendered.body else None,
        idempotency_key=_short(request.idempotency_key, "idempotency_key", IDEMPOTENCY_KEY_MAX_CHARACTERS),
        ticket=_short(request.ticket, "ticket"),
        run=_short(request.run, "run"),
        stated_reason=request.stated_reason,
        prefer=request.prefer,
        received_unix=request.received_unix,
        channel="api",
        query=(),
    )


def resource_of(action: Action, args: Mapping[str, JsonValue]) -> tuple[str, str]:
    """Type and id of what the action touches; the id template is filled from the arguments, absent ones are empty."""
    if action.resource is None:
        return "", ""
    filled = list(_template_parts(action.resource.id))
    for at in range(1, len(filled), 2):
        value = args.get(filled[at])
        kind = type(value)
        filled[at] = value if kind is str else str(value) if kind is int else ""  # type: ignore[assignment]
    return action.resource.type, "".join(filled)


@lru_cache(maxsize=4096)
def _template_parts(template: str) -> tuple[str, ...]:
    """Text and names of a template in turn, text first and last."""
    return tuple(_PLACEHOLDER.split(template))


def _short(value: str | None, name: str, limit: int = HEADER_MAX_CHARACTERS) -> str | None:
    if value is None:
        return None
    if not value or len(value) > limit:
        raise refusal("malformed_request", f"{name} has 1 to {limit} characters")
    return value


def begin_proxy(request: ProxyRequest, limits: FlowLimits) -> Flow[tuple[Subject, FoundToken, _Reader]]:
    """Check the head and identify the caller; every refusal until here is unauthenticated."""
    check_head(request.head)
    reader = _Reader(request.has_body)
    subject, found = yield from identify(request, limits, reader)
    return subject, found, reader
