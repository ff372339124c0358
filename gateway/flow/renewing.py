"""A call that waited while the gate read its configuration anew, prepared again by what is in force now.

Guarantees: what comes out is the call that was decided, approved and recorded, on the plan in force: the same action with
the same facts and schema, the same arguments, the same bytes to the same target. Anything else is refused, with the code
that the same request would get if it came now, else `stale_state`. Leaves asking policy to `gateway.flow.dispatching`.

**Security**: security rule 12; an approval or an intent of a configuration that is gone sends nothing.
"""

from __future__ import annotations

from gateway.connectors.arguments import gather_parsed
from gateway.connectors.bodies import NO_BODY, parse_body, takes_stream
from gateway.connectors.outbound import forward_headers
from gateway.edge.problem import refusal
from gateway.edge.url import canonical_path
from gateway.flow.prepare import prepare_api, resource_of
from gateway.flow.values import ApiRequest, GovernedCall, InstancePlan, Trace


def renewed(call: GovernedCall, plan: InstancePlan | None) -> GovernedCall:
    """`call` on the plan that its instance has now, None for an instance that is gone.

    Raises the refusals of `gateway.flow.prepare`, and `stale_state` for a call that would no longer be the same.
    """
    if plan is None:
        raise refusal("not_found", "there is no such instance any more")
    fresh = _from_arguments(call, plan) if call.channel == "api" else _from_request(call, plan)
    if _bound(fresh) != _bound(call):
        raise refusal("stale_state", "the gate's configuration has changed what this call does since it was decided")
    return fresh


def _bound(call: GovernedCall) -> tuple[object, ...]:
    """What may not differ between the call as it was decided and the call as it is sent."""
    manifest = call.plan.manifest
    places = (manifest.caller_token, manifest.credential_places)
    resource = (call.resource_type, call.resource_id)
    return (manifest.connector, call.plan.base_url, places, call.action, call.args, resource, call.outbound)


def _from_request(call: GovernedCall, plan: InstancePlan) -> GovernedCall:
    """A request of the reverse proxy, from what of it would be sent."""
    if not plan.admits(call.subject):
        raise refusal("unclassified", "this instance is not for the caller's tenant, workspace or environment")
    outbound = call.outbound
    segments = canonical_path(outbound.path, uri_max_bytes=len(outbound.path), separators_from=0).segments
    candidates = plan.table.candidates(outbound.method, segments, call.query)
    body = NO_BODY
    if outbound.body and not takes_stream(candidates.first):
        body = parse_body(candidates.first.arguments, call.content_type, outbound.body)
    classified = candidates.resolve(body.value)
    args = gather_parsed(classified.action, classified.path_arguments, call.query, body)
    plan.schemas.validate(classified.action.name, args)
    resource_type, resource_id = resource_of(classified.action, args)
    return call._replace(
        plan=plan,
        action=classified.action,
        args=args,
        resource_type=resource_type,
        resource_id=resource_id,
        outbound=outbound._replace(headers=forward_headers(outbound.headers, plan.headers)),
    )


def _from_arguments(call: GovernedCall, plan: InstancePlan) -> GovernedCall:
    """A call in our own words, rendered anew."""
    request = ApiRequest(
        call_id=call.call_id,
        plan=plan,
        subject=call.subject,
        action=call.action.name,
        arguments=call.args,
        idempotency_key=call.idempotency_key,
        ticket=call.ticket,
        run=call.run,
        stated_reason=call.stated_reason,
        prefer=call.prefer,
        received_unix=call.received_unix,
    )
    return prepare_api(request, Trace(call.call_id, plan.manifest.connector, plan.name))
