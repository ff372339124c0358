"""Who may do what with the gate itself: only ALLOW lets an operation through, and no failure of policy but one does."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest

from gateway.api.exchange import ApiExchange
from gateway.api.management import authorize
from gateway.api.operations import OPERATIONS
from gateway.edge.headers import RequestHead
from gateway.edge.url import canonical_path
from gateway.errors import GateMisuse, Refusal
from gateway.flow.values import Trace
from gateway.operations.metrics import Metrics
from gateway.running import Running
from pdp.decided import Decided
from pdp.documents import Effect, PolicyInput
from pdp.errors import EngineFailed, InputRefused, PdpError, PolicyRefused, PolicyStale, PolicyUnavailable
from tests.gateway.flow.playbook import NOW, SUBJECT, decided

EMERGENCY = "firefighter"


class Plane:
    """A policy plane that answers as it is told and remembers what it was asked."""

    def __init__(self, answer: Decided | PdpError) -> None:
        self.answer = answer
        self.asked: list[PolicyInput] = []

    async def decide(self, question: PolicyInput) -> Decided:
        self.asked.append(question)
        if isinstance(self.answer, PdpError):
            raise self.answer
        return self.answer


def _running(plane: Plane) -> Running:
    management = SimpleNamespace(emergency_roles=[EMERGENCY])
    config = SimpleNamespace(document=SimpleNamespace(management=management))
    services = SimpleNamespace(policy=plane, clock=lambda: NOW, metrics=Metrics())
    return cast(Running, SimpleNamespace(services=services, assembly=SimpleNamespace(config=config)))


def _exchange(*roles: str) -> ApiExchange:
    subject = replace(SUBJECT, roles=roles)
    head = RequestHead("POST", canonical_path("/v1/switches"), ())
    return ApiExchange(cast(Any, None), head, ("switches",), subject, Trace("call-1", "tidegate", "tidegate"), 1000)


async def _refused(answer: Decided | PdpError, operation: str, *roles: str) -> Refusal:
    with pytest.raises(Refusal) as caught:
        await authorize(_running(Plane(answer)), _exchange(*roles), operation)
    return caught.value


async def test_operation_is_let_through_when_the_bundle_allows_it() -> None:
    plane, exchange = Plane(decided()), _exchange("operator")
    await authorize(_running(plane), exchange, "approval.vote", resource_id="a1")
    (asked,) = plane.asked
    assert (asked.subject.tenant, asked.subject.roles) == (SUBJECT.tenant, ("operator",))
    assert (asked.action.name, asked.action.mode) == ("tidegate.approval.vote", "write")
    assert (asked.resource.type, asked.resource.id, asked.resource.connector) == ("approval", "a1", "tidegate")
    assert (exchange.trace.action, exchange.trace.decided) == ("tidegate.approval.vote", decided())


WRITES = {
    "access_request.cancel",
    "access_request.create",
    "approval.vote",
    "approval.withdraw",
    "call.create",
    "opa.log",
    "opa.status",
    "switch.clear",
    "switch.set",
}


@pytest.mark.parametrize("operation", OPERATIONS)
async def test_policy_is_told_that_an_operation_writes_when_it_changes_or_records_something(operation: str) -> None:
    plane, exchange = Plane(decided()), _exchange("operator")
    await authorize(_running(plane), exchange, operation)
    expected = "write" if operation in WRITES else "read"
    assert (plane.asked[0].action.mode, exchange.trace.mode) == (expected, expected)


@pytest.mark.parametrize("effect", [effect for effect in Effect if effect is not Effect.ALLOW])
async def test_operation_is_denied_when_the_effect_is(effect: Effect) -> None:
    refused = await _refused(decided(effect), "switch.clear", EMERGENCY)
    assert (refused.code, refused.status) == ("denied", 403)
    reasons = cast(list[dict[str, str]], refused.extra["reasons"])
    assert reasons[0]["code"] == ("because" if effect is Effect.DENY else "not_supported")


FAILURES: dict[str, tuple[PdpError, str]] = {
    "the lease has ended": (PolicyStale("ended"), "policy_stale"),
    "no bundle is loaded": (PolicyUnavailable("none"), "policy_unavailable"),
    "the engine failed": (EngineFailed("trap"), "engine_failed"),
    "something else went wrong": (PolicyRefused("odd"), "engine_failed"),
}


@pytest.mark.parametrize("case", FAILURES)
@pytest.mark.parametrize("operation", ["switch.clear", "switch.read", "approval.vote", "call.create"])
async def test_operation_is_refused_to_emergency_roles_too_when(case: str, operation: str) -> None:
    failure, code = FAILURES[case]
    assert (await _refused(failure, operation, EMERGENCY)).code == code


@pytest.mark.parametrize("case", FAILURES)
async def test_kill_switch_is_set_by_emergency_roles_alone_when(case: str) -> None:
    failure, code = FAILURES[case]
    await authorize(_running(Plane(failure)), _exchange("triage", EMERGENCY), "switch.set")
    assert (await _refused(failure, "switch.set", "triage", "operator")).code == code
    assert (await _refused(failure, "switch.set")).code == code


async def test_kill_switch_is_refused_to_emergency_roles_when_policy_could_be_asked_but_the_question_may_not_be() -> (
    None
):
    assert (await _refused(InputRefused("too large"), "switch.set", EMERGENCY)).code == "malformed_request"


async def test_kill_switch_is_denied_to_emergency_roles_when_the_bundle_says_so() -> None:
    assert (await _refused(decided(Effect.DENY), "switch.set", EMERGENCY)).code == "denied"


@pytest.mark.parametrize("operation", ["switch.destroy", "switch", "", "tidegate.switch.set"])
async def test_operation_is_misuse_when_there_is_none_called(operation: str) -> None:
    assert operation not in OPERATIONS
    plane = Plane(decided())
    with pytest.raises(GateMisuse):
        await authorize(_running(plane), _exchange(), operation)
    assert plane.asked == []
