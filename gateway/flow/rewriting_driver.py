"""Performs the rewriting of an answer: the gate's addresses, and upload tickets, where it names an upstream.

Leaves the rules to `gateway.connectors.rewrite`, the answer's bytes to `gateway.flow.driver`.
"""

from __future__ import annotations

from collections.abc import Callable

from gateway.connectors.tickets import upload_segments
from gateway.flow.commands import RewriteAnswer
from gateway.flow.events import AnswerRewritten
from gateway.flow.services import Reach, Services
from gateway.flow.values import GovernedCall


def rewritten(services: Services, reach: Reach, command: RewriteAnswer) -> AnswerRewritten:
    """The answer as the caller gets it. Raises the refusals of `Rewriter.body`."""
    call = command.call
    rewriter = reach.targets[call.plan.name].rewriters.of(call.subject)
    headers = tuple(rewriter.headers(command.headers))
    body = command.body
    if body and rewriter.searches_bodies:
        content_type = next((value for name, value in headers if name == "content-type"), None)
        if rewriter.applies_to(content_type):
            body = rewriter.body(body, _ticket_issuer(services, reach, call))
    return AnswerRewritten(headers, body)


def _ticket_issuer(services: Services, reach: Reach, call: GovernedCall) -> Callable[[str, str], str]:
    def issue(instance: str, path: str) -> str:
        actions = reach.targets[instance].table.taking_tickets(upload_segments(path))
        now = services.clock()
        return services.tickets.issue(
            call.subject, instance=instance, actions=actions, path=path, call=call.call_id, now=now
        )

    return issue
