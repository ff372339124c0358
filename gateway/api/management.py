"""Operations of /v1 as actions of the connector `tidegate`, decided by the bundle like every other call (rule 10).

Guarantees: only ALLOW lets an operation through; the tenant comes from the token alone. Leaves what an operation does to
its own module.
"""

from __future__ import annotations

from collections.abc import Mapping

from bundles.canonical import JsonValue
from gateway.api.exchange import ApiExchange
from gateway.api.operations import CONNECTOR, OPERATIONS, action_name
from gateway.edge.headers import RequestHead
from gateway.edge.identity import Subject
from gateway.edge.jwks import identify
from gateway.edge.problem import refusal
from gateway.edge.tokens import find_token
from gateway.errors import GateMisuse
from gateway.flow.call import reasons_of
from gateway.flow.describe import subject_facts
from gateway.flow.failures import policy_failed
from gateway.running import Running
from pdp.documents import ActionFacts, Effect, PolicyInput, ResourceFacts
from pdp.errors import InputRefused, PdpError


async def caller(running: Running, head: RequestHead) -> Subject:
    """Who asks; the token stands as `Authorization: Bearer`. Raises `Refusal`."""
    found = find_token(head.headers, head.target.query, None, ("bearer",))
    reach = running.assembly.reach
    return await identify(reach.verifier, reach.keys, found.token, running.services.clock())


async def authorize(
    running: Running,
    exchange: ApiExchange,
    operation: str,
    *,
    resource_id: str = "",
    args: Mapping[str, JsonValue] | None = None,
) -> None:
    """Raise `denied` unless the bundle allows `tidegate.<operation>` (`noun.verb`) to the caller.

    The exchange's trace names the operation and its decision from here on.

    **Security**: setting a kill switch must work while no policy can be asked; then, and only then, the configured
    emergency roles decide.
    """
    mode = OPERATIONS.get(operation)
    if mode is None:
        raise GateMisuse(f"{operation} is no operation of the gate")
    subject, trace = exchange.subject, exchange.trace
    trace.action, trace.mode = action_name(operation), mode
    question = PolicyInput(
        subject=subject_facts(subject),
        action=ActionFacts(trace.action, trace.mode),
        resource=ResourceFacts(operation.partition(".")[0], resource_id, CONNECTOR, CONNECTOR),
        args=args or {},
        time_unix=running.services.clock(),
        call=exchange.call_id,
    )
    try:
        decided = await running.services.policy.decide(question)
    except PdpError as failed:
        refused = policy_failed(failed, running.services.metrics)
        emergency = running.assembly.config.document.management.emergency_roles
        could_be_asked = isinstance(failed, InputRefused)
        if operation == "switch.set" and not could_be_asked and set(emergency) & set(subject.roles):
            return
        raise refused from failed
    trace.decided = decided
    if decided.decision.effect is not Effect.ALLOW:
        reasons = reasons_of(decided)
        if decided.decision.effect is not Effect.DENY:
            message = "operations of the gate are not held for approval by this version"
            reasons = [{"code": "not_supported", "rule": "", "message": message}]
        raise refusal("denied", "", reasons=reasons, decision=decided.decision_id)
