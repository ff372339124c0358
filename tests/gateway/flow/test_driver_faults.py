"""An error of the gate's own while a call is carried out: once the call may have begun, the flow hears of it and records it."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any, cast

import pytest

from gateway.connectors.credentials import Injected
from gateway.errors import Refusal
from gateway.flow import commands as c
from gateway.flow import events as e
from tests.gateway.egress.upstreams import OK, answering
from tests.gateway.flow.driven import DISPATCH, Asked, World, asking, driven
from tests.gateway.flow.test_same_request import CALL

REWRITE = c.RewriteAnswer(CALL, (), b"{}")


class Broken:
    """A credential with an error in it."""

    known = None

    async def headers(self) -> Injected:
        raise ValueError("no credential")


class Lawless:
    """Rewriting rules with an error in them."""

    def of(self, subject: object) -> object:
        raise ValueError("no rules")


def _break(world: World, **parts: Any) -> None:
    world.reach.targets["desk"] = replace(world.reach.targets["desk"], **parts)


async def test_dispatch_fails_as_one_that_may_have_been_sent_when_the_gate_errs_in_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    asked = Asked()
    async with driven(answering(OK)) as world:
        _break(world, injector=cast(Any, Broken()))
        with caplog.at_level(logging.ERROR, "tidegate.flow"):
            await world.driver.run(asking(asked, DISPATCH))
        assert world.trace.fault == "ValueError"
    assert [(type(event), event.kind, event.code) for event in asked.events if isinstance(event, e.DispatchFailed)] == [
        (e.DispatchFailed, "failed", "upstream_failed")
    ]
    assert "no credential" in caplog.text


@pytest.mark.parametrize(
    ("known", "code"),
    [({"sent": True}, "upstream_failed"), ({"intended": True}, "engine_failed")],
    ids=["the call was sent", "its intent is durable"],
)
async def test_flow_hears_a_refusal_when_the_gate_errs_and(known: dict[str, bool], code: str) -> None:
    async with driven(answering(OK)) as world:
        _break(world, rewriters=cast(Any, Lawless()))
        for name, value in known.items():
            setattr(world.trace, name, value)
        with pytest.raises(Refusal) as refused:
            await world.driver.run(asking(Asked(), REWRITE))
    assert refused.value.code == code


async def test_error_goes_on_to_the_connection_when_nothing_of_the_call_has_begun() -> None:
    async with driven(answering(OK)) as world:
        _break(world, rewriters=cast(Any, Lawless()))
        with pytest.raises(ValueError, match="no rules"):
            await world.driver.run(asking(Asked(), REWRITE))
