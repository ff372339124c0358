"""A call that began under a configuration that is gone: sent by the new one if it is still the same, else refused."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest

from gateway.approvals.model import ApprovalState
from gateway.edge.headers import NO_PREFERENCE
from gateway.errors import Refusal
from gateway.flow import commands as c
from gateway.flow import events as e
from gateway.flow.prepare import prepare_api
from gateway.flow.renewing import renewed
from gateway.flow.values import ApiRequest, GovernedCall, InstancePlan, Trace
from tests.gateway.egress.upstreams import hang
from tests.gateway.flow.driven import Asked as Answered
from tests.gateway.flow.driven import asking, driven
from tests.gateway.flow.playbook import IDENTIFIED, MANIFEST, NOW, RECORDED, SUBJECT, Answer, Played, plan
from tests.gateway.flow.test_call import ALLOWED, BODY, HELD, NOT_SENT, SENT, WRITE_HEAD, open_approval, write
from tests.gateway.flow.test_same_request import CALL


def _edited(change: Callable[[dict[str, Any]], object]) -> InstancePlan:
    """The playbook's plan with its write changed in the manifest."""
    document = deepcopy(MANIFEST)
    change(document["actions"][1])
    return plan(document)


PENDING = open_approval(ApprovalState.PENDING)
SAME = _edited(lambda action: None)
NEW: dict[str, tuple[InstancePlan | None, str]] = {
    "its instance is gone": (None, "not_found"),
    "its action is gone": (_edited(lambda action: action["match"].update(method="POST")), "unclassified"),
    "its instance is for others": (plan(tenants=("rival",)), "unclassified"),
    "its instance is at another address": (replace(plan(), base_url="http://other.example"), "stale_state"),
    "its schema asks for more": (
        _edited(lambda action: action["arguments"]["schema"].update(required=["note", "why"])),
        "arguments_invalid",
    ),
    "its schema takes more": (
        _edited(lambda action: action["arguments"]["schema"]["properties"].update(why={})),
        "stale_state",
    ),
    "its risk is another": (_edited(lambda action: action.update(risk="high")), "stale_state"),
    "its resource is another": (_edited(lambda action: action["resource"].update(type="case")), "stale_state"),
    "its body is read otherwise": (
        _edited(lambda action: action["arguments"].update(body="form")),
        "malformed_request",
    ),
    "its token stands elsewhere": (plan({"caller_token": ["x-api-key"]}), "stale_state"),
}
WAYS = pytest.mark.parametrize(("on", "code"), NEW.values(), ids=NEW.keys())


def _released(on: InstancePlan | None) -> e.ApprovalRead:
    return open_approval(ApprovalState.APPROVED)._replace(moved=e.Moved(on))


def _moved(on: InstancePlan | None) -> e.SwitchesRead:
    return e.SwitchesRead((), moved=e.Moved(on))


def _code(played: Played) -> str:
    assert played.refused is not None
    return played.refused.code


@WAYS
def test_approved_call_uses_nothing_up_when_meanwhile(on: InstancePlan | None, code: str) -> None:
    played = write([*WRITE_HEAD, HELD, PENDING, _released(on), RECORDED])
    assert _code(played) == code
    assert played.all_of(c.AppendIntent) == []
    assert played.names[-1] == "AppendRecord:refusal"


@WAYS
def test_intended_call_is_not_sent_when_meanwhile(on: InstancePlan | None, code: str) -> None:
    played = write([*WRITE_HEAD, ALLOWED, RECORDED, _moved(on), RECORDED])
    assert (_code(played), played.all_of(c.Dispatch)) == (code, [])
    assert played.names[-1] == "AppendRecord:outcome"


@WAYS
def test_call_is_not_sent_again_when_meanwhile(on: InstancePlan | None, code: str) -> None:
    played = write([*WRITE_HEAD, ALLOWED, RECORDED, e.SwitchesRead(()), NOT_SENT, e.DONE, _moved(on), RECORDED])
    assert (_code(played), len(played.all_of(c.Dispatch))) == (code, 1)


@WAYS
def test_call_is_not_decided_when_while_its_body_came(on: InstancePlan | None, code: str) -> None:
    played = write([IDENTIFIED, e.BodyRead(BODY), _moved(on), RECORDED])
    assert (_code(played), played.all_of(c.AskPolicy)) == (code, [])


def test_approved_call_goes_out_on_the_new_plan_when_it_is_still_the_same() -> None:
    played = write([*WRITE_HEAD, HELD, PENDING, _released(SAME), ALLOWED, RECORDED, e.SwitchesRead(()), *SENT])
    assert played.finished is not None
    (sent,) = played.all_of(c.Dispatch)
    assert sent.call.plan is SAME
    assert [asked.plan is SAME for asked in played.all_of(c.ReadSwitches)] == [False, True]


def test_intended_call_is_sent_and_its_answer_rewritten_by_the_new_plan_when_it_is_still_the_same() -> None:
    answers: list[Answer] = [*WRITE_HEAD, ALLOWED, RECORDED, _moved(SAME), *SENT]
    played = write(answers)
    assert [one.call.plan is SAME for one in (*played.all_of(c.Dispatch), *played.all_of(c.RewriteAnswer))] == [
        True
    ] * 2


def test_streamed_body_stays_unread_when_its_call_is_prepared_again() -> None:
    sent = CALL.outbound._replace(method="POST", path="/api/files", raw_query="", body=None, streamed=True)
    headers = (("accept-encoding", "identity"),)
    streamed = CALL._replace(
        action=plan().table.action("desk.file.send"),
        args={},
        resource_type="",
        resource_id="",
        outbound=sent._replace(headers=headers),
    )
    assert renewed(streamed, SAME) == streamed._replace(plan=SAME)


def _api_call() -> GovernedCall:
    request = ApiRequest(
        "call-1", plan(), SUBJECT, "desk.item.update", {"id": "7", "note": "n"}, None, None, None, "",
        NO_PREFERENCE, NOW,
    )  # fmt: skip
    return prepare_api(request, Trace("call-1", "desk", "desk"))


def test_call_in_our_own_words_is_rendered_the_same_when_nothing_of_it_changed() -> None:
    call = _api_call()
    assert renewed(call, SAME) == call._replace(plan=SAME)


API = {name: NEW[name] for name in NEW if name not in {"its action is gone", "its body is read otherwise"}}


@pytest.mark.parametrize(("on", "code"), API.values(), ids=API.keys())
def test_call_in_our_own_words_is_refused_when_meanwhile(on: InstancePlan | None, code: str) -> None:
    with pytest.raises(Refusal) as refused:
        renewed(_api_call(), on)
    assert refused.value.code == code


async def test_driver_says_nothing_of_the_configuration_when_it_is_the_same() -> None:
    asked = Answered()
    async with driven(hang) as world:
        question = c.ReadSwitches("acme", "", world.reach.plans["desk"])
        await world.driver.run(asking(asked, question, c.ReadSwitches("acme")))
    assert asked.events == [e.SwitchesRead(()), e.SwitchesRead(())]


async def test_driver_says_what_is_in_force_when_the_configuration_has_changed() -> None:
    asked = Answered()
    async with driven(hang) as world:
        question = c.ReadSwitches("acme", "", world.reach.plans["desk"])
        world.reach = replace(world.reach, plans={"desk": SAME})
        again = c.ReadSwitches("acme", "", SAME)
        await world.driver.run(asking(asked, c.ReadSwitches("acme"), question, again))
        world.reach = replace(world.reach, plans={})
        await world.driver.run(asking(asked, again))
    assert asked.events == [e.SwitchesRead(()), _moved(SAME), e.SwitchesRead(()), _moved(None)]
