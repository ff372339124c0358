"""Objects of other tenants: the same `not_found` as what there is not, and only the caller's own log is ever looked at."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from gateway.api import approvals, switches
from gateway.api.exchange import ApiExchange
from gateway.api.management import authorize
from gateway.approvals.model import ApprovalRefused
from gateway.edge.headers import RequestHead
from gateway.edge.url import canonical_path
from gateway.errors import Refusal
from gateway.flow.values import Trace
from gateway.ledger.record import LogId
from gateway.running import Running
from gateway.store.port import SwitchRow
from pdp.documents import Effect
from tests.gateway.api.test_authorize import Plane
from tests.gateway.flow.playbook import NOW, SUBJECT, decided

OWN: LogId = (SUBJECT.tenant, SUBJECT.workspace)


class Elsewhere:
    """Approvals and switches that are there for other tenants only; remembers where it was looked."""

    def __init__(self) -> None:
        self.looked: list[object] = []

    async def get(self, log: LogId, approval_id: str) -> None:
        self.looked.append(log)
        raise ApprovalRefused("not_found", "no such approval")

    async def withdraw(self, log: LogId, approval_id: str, who: object) -> None:
        await self.get(log, approval_id)

    def of(self, tenant: str) -> tuple[SwitchRow, ...]:
        self.looked.append(tenant)
        rows = (SwitchRow("rival", "tenant/rival", "theirs", "eve", int(NOW * 1000)),)
        return rows if tenant == "rival" else ()


def _running(plane: Plane, elsewhere: Elsewhere) -> Running:
    services = SimpleNamespace(policy=plane, clock=lambda: NOW, approvals=elsewhere, switches=elsewhere)
    return cast(Running, SimpleNamespace(services=services))


def _exchange(method: str, path: str) -> ApiExchange:
    target = canonical_path(path)
    trace = Trace("call-1", "tidegate", "tidegate")
    head = RequestHead(method, target, ())
    return ApiExchange(cast(Any, None), head, target.segments[1:], SUBJECT, trace, 1000)


async def _code(handle: Any, method: str, path: str) -> tuple[str, Plane, Elsewhere]:
    plane, elsewhere = Plane(decided()), Elsewhere()
    with pytest.raises(Refusal) as caught:
        await handle(_running(plane, elsewhere), _exchange(method, path))
    return caught.value.code, plane, elsewhere


FOREIGN = [
    "tenant/rival",
    "tenant/rival/action/desk.item.update",
    "tenant/rival/subject/bot",
    "tenant/ACME",
    "tenant/acme2",
    "tenant",
    "tenant/acme/other/x",
    "tenant/acme/action/a/b",
    "platform",
]


@pytest.mark.parametrize("scope", FOREIGN)
@pytest.mark.parametrize("method", ["PUT", "DELETE"])
async def test_switch_is_not_found_before_anybody_is_asked_when_its_scope_is(method: str, scope: str) -> None:
    code, plane, _ = await _code(switches.handle, method, f"/v1/switches/{scope}")
    assert (code, plane.asked) == ("not_found", [])


async def test_switch_of_another_tenant_is_not_found_when_it_is_read() -> None:
    code, _, elsewhere = await _code(switches.handle, "GET", "/v1/switches/tenant/rival")
    assert (code, elsewhere.looked) == ("not_found", [SUBJECT.tenant])


async def test_switches_of_other_tenants_are_not_listed() -> None:
    answered = await switches.handle(_running(Plane(decided()), Elsewhere()), _exchange("GET", "/v1/switches"))
    assert answered.body == b'{"items":[],"next":null}'


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/v1/approvals/a1"), ("POST", "/v1/approvals/a1/withdraw")],
    ids=["read", "withdrawn"],
)
async def test_approval_is_looked_for_in_the_callers_own_log_alone_when_it_is(method: str, path: str) -> None:
    code, plane, elsewhere = await _code(approvals.handle, method, path)
    assert (code, elsewhere.looked, len(plane.asked)) == ("not_found", [OWN], 1)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/approvals"),
        ("GET", "/v1/approvals/a1"),
        ("POST", "/v1/approvals/a1/votes"),
        ("POST", "/v1/approvals/a1/withdraw"),
    ],
    ids=["list", "read", "vote", "withdraw"],
)
async def test_approval_is_not_looked_for_when_policy_denies(method: str, path: str) -> None:
    plane, elsewhere = Plane(decided(Effect.DENY)), Elsewhere()
    with pytest.raises(Refusal) as caught:
        await approvals.handle(_running(plane, elsewhere), _exchange(method, path))
    assert (caught.value.code, elsewhere.looked) == ("denied", [])


async def test_question_to_policy_names_the_callers_tenant_whatever_the_path_says() -> None:
    plane = Plane(decided())
    await authorize(
        _running(plane, Elsewhere()), _exchange("GET", "/v1/approvals/rival"), "approval.read", resource_id="rival"
    )
    assert plane.asked[0].subject.tenant == SUBJECT.tenant
