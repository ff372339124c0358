"""What makes two requests under one idempotency key the same, and whose key it is."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gateway.edge.headers import NO_PREFERENCE
from gateway.flow.once import KeyScope, is_once, key_scope, request_digest
from gateway.flow.values import GovernedCall, Outbound
from tests.gateway.flow.playbook import NOW, SUBJECT, plan

ON = plan()
CALL = GovernedCall(
    call_id="call-1",
    plan=ON,
    subject=SUBJECT,
    action=ON.table.action("desk.item.update"),
    args={"id": "7", "note": "n"},
    resource_type="item",
    resource_id="7",
    outbound=Outbound("PATCH", "/api/items/7", "a=1", (), b'{"note":"n"}'),
    content_type="application/json",
    idempotency_key="k1",
    ticket=None,
    run=None,
    stated_reason="",
    prefer=NO_PREFERENCE,
    received_unix=NOW,
    channel="proxy",
    query=(),
)


def _scope(call: GovernedCall = CALL) -> KeyScope:
    assert is_once(call)
    return key_scope(call)


def _digest(call: GovernedCall) -> str:
    return request_digest(call)


OTHER = {
    "action": CALL._replace(action=ON.table.action("desk.item.put")),
    "method": CALL._replace(outbound=CALL.outbound._replace(method="PUT")),
    "path": CALL._replace(outbound=CALL.outbound._replace(path="/api/items/8")),
    "query": CALL._replace(outbound=CALL.outbound._replace(raw_query="a=2")),
    "end of the path that begins the query": CALL._replace(
        outbound=CALL.outbound._replace(path="/api/items/7a=1", raw_query="")
    ),
    "arguments": CALL._replace(args={"id": "7", "note": "m"}),
    "body": CALL._replace(outbound=CALL.outbound._replace(body=b'{"note": "n"}')),
    "absence of a body": CALL._replace(outbound=CALL.outbound._replace(body=None)),
}


@pytest.mark.parametrize("differing", OTHER)
def test_request_is_another_when_it_differs_in_its(differing: str) -> None:
    assert _digest(OTHER[differing]) != _digest(CALL)


def test_request_is_the_same_when_it_is_sent_again_later() -> None:
    assert _digest(CALL._replace(call_id="call-2", received_unix=NOW + 60)) == _digest(CALL)


STRANGERS = {
    "tenant": CALL._replace(subject=replace(SUBJECT, tenant="rival")),
    "workspace": CALL._replace(subject=replace(SUBJECT, workspace="dev")),
    "subject": CALL._replace(subject=replace(SUBJECT, id="bot-2")),
    "issuer": CALL._replace(subject=replace(SUBJECT, issuer="urn:other")),
    "delegator": CALL._replace(subject=replace(SUBJECT, on_behalf_of="alice")),
    "environment": CALL._replace(subject=replace(SUBJECT, environment="test")),
    "instance": CALL._replace(plan=replace(ON, name="desk-2")),
    "key": CALL._replace(idempotency_key="k2"),
}


@pytest.mark.parametrize("differing", STRANGERS)
def test_key_is_another_when_it_is_of_another(differing: str) -> None:
    assert _scope(STRANGERS[differing]).scope != _scope().scope


def test_key_of_a_client_is_never_one_made_from_arguments() -> None:
    deduped = CALL._replace(action=CALL.action.model_copy(update={"dedupe_seconds": 60}), idempotency_key=None)
    assert _scope(deduped).scope not in {_scope().scope, _scope(deduped._replace(idempotency_key="k1")).scope}


_READ = CALL.action.model_copy(update={"mode": "read"})
KEYLESS = {
    "a write without a key": CALL._replace(idempotency_key=None),
    "a read with a key": CALL._replace(action=_READ),
}


@pytest.mark.parametrize("keyless", KEYLESS)
def test_call_has_no_key_when_it_is(keyless: str) -> None:
    assert not is_once(KEYLESS[keyless])


def test_key_is_the_clients_with_the_digest_of_the_request_when_a_read_is_deduped() -> None:
    read = CALL._replace(action=_READ.model_copy(update={"dedupe_seconds": 60}))
    assert is_once(read)
    assert _scope(read) == _scope()
    assert _scope(read).request_digest == request_digest(CALL)
