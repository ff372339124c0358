"""Answering questions: one answer for each, a denial for whatever goes wrong."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable

import pytest

from gateway.edge.problem import refusal
from gateway.envoy.service import ExtAuthzService, FlowIn, Standing
from gateway.errors import Refusal
from gateway.flow.values import Finished, Trace
from tests.gateway.envoy.questions import denial, http_request, question, status_of, yes
from tests.gateway.flow.playbook import NOW, plan

SECONDS = 5.0
FORWARDED = (("accept", "a"), ("accept-encoding", "identity"))


class Runner:
    """Stands in for the gate's runner: says what it is told to and keeps what was counted."""

    def __init__(self, outcome: Finished | Refusal | Exception) -> None:
        self._outcome = outcome
        self.counted: list[tuple[str, int]] = []
        self.asked_for: list[str] = []
        self.release: asyncio.Event | None = None
        self.ended = asyncio.Event()

    async def asked(self, flow_in: FlowIn, trace: Trace) -> Finished | Refusal:
        self.asked_for.append(trace.instance)
        if self.release is not None:
            await self.release.wait()
        self.ended.set()
        if isinstance(self._outcome, Exception) and not isinstance(self._outcome, Refusal):
            raise self._outcome
        return self._outcome

    def settled(self, trace: Trace, code: str, status: int, seconds: float) -> None:
        self.counted.append((code, status))


def service(runner: Runner) -> ExtAuthzService:
    return ExtAuthzService(lambda: Standing({"desk": plan()}, 20, 8192), runner, lambda: NOW)


GOING = Finished(200, FORWARDED, b"", code="handed_over")
ASKED = question(http_request(target="/api/items", headers=(("authorization", "Bearer t"), ("accept", "a"))))


async def test_check_says_yes_when_the_call_may_go() -> None:
    answer = await service(Runner(GOING)).check(ASKED, SECONDS)
    put, removed, told = yes(answer)
    assert (put, removed) == ((("accept-encoding", "identity"),), ("authorization",))
    assert [name for name, _ in told] == ["Tidegate-Call"]


async def test_check_gives_the_problem_document_when_the_call_is_refused() -> None:
    answer = await service(Runner(refusal("denied", "no"))).check(ASKED, SECONDS)
    headers, body = denial(answer)
    document = json.loads(body)
    assert (status_of(answer), document["code"], document["status"]) == (403, "denied", 403)
    assert dict(headers)["Tidegate-Call"] == document["call"]
    assert dict(headers)["Content-Type"] == "application/problem+json"


@pytest.mark.parametrize(
    ("raw", "status", "code"),
    [
        (b"\xff", 400, "malformed_request"),
        (question(http_request(), {}), 400, "malformed_request"),
        (question(http_request(target="/a/../b")), 400, "malformed_request"),
        (question(http_request(host="evil.example")), 403, "unclassified"),
    ],
    ids=["no message", "a route that says nothing", "a path of two readings", "another host"],
)
async def test_check_denies_and_counts_when_the_question_is(raw: bytes, status: int, code: str) -> None:
    runner = Runner(GOING)
    answer = await service(runner).check(raw, SECONDS)
    assert (status_of(answer), json.loads(denial(answer)[1])["code"]) == (status, code)
    assert (runner.counted, runner.asked_for) == ([(code, status)], [])


async def test_check_asks_who_it_is_when_the_instance_is_unknown() -> None:
    runner = Runner(refusal("identity_missing"))
    route = {"tidegate_instance": "nowhere", "tidegate_body": "whole"}
    answer = await service(runner).check(question(http_request(), route), SECONDS)
    assert (status_of(answer), runner.asked_for) == (401, ["nowhere"])


async def test_check_denies_when_something_of_ours_fails() -> None:
    answer = await service(Runner(RuntimeError("a bug"))).check(ASKED, SECONDS)
    assert status_of(answer) == 503
    assert "a bug" not in denial(answer)[1]


async def test_check_denies_at_its_deadline_when_the_decision_takes_longer() -> None:
    runner = Runner(GOING)
    runner.release = asyncio.Event()
    asking = service(runner)
    answer = await asking.check(ASKED, 0.02)
    assert (status_of(answer), json.loads(denial(answer)[1])["code"]) == (408, "too_slow")
    runner.release.set()
    await asyncio.wait_for(runner.ended.wait(), SECONDS)
    await asking.close(SECONDS)


async def test_check_lets_the_flow_end_when_the_caller_gives_up() -> None:
    runner = Runner(GOING)
    runner.release = asyncio.Event()
    asking = service(runner)
    waiting = asyncio.create_task(asking.check(ASKED, SECONDS))
    await _until(lambda: bool(runner.asked_for))
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert not runner.ended.is_set()
    runner.release.set()
    await asyncio.wait_for(runner.ended.wait(), SECONDS)


async def test_close_drops_what_does_not_end_within_the_grace() -> None:
    runner = Runner(GOING)
    runner.release = asyncio.Event()
    asking = service(runner)
    await asking.check(ASKED, 0.02)
    await asking.close(0.02)
    await asking.close(SECONDS)
    assert not runner.ended.is_set()


async def _until(holds: Callable[[], bool]) -> None:
    for _ in range(1000):
        if holds():
            return
        await asyncio.sleep(0.005)
    raise AssertionError("it never came to hold")
