"""Many clients at once: one effect, and for everybody else the code that says so."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.e2e.calling import LIST, call
from tests.e2e.harness import GateProcess, edit_config, init_directory, tidegate
from tests.e2e.hostile import HostileUpstream
from tests.e2e.raw import Answer

AT_ONCE = 16
CALLS = 48
DONE = (200, "")
BODY = {"state": "2"}


@pytest.fixture(scope="module")
def upstream() -> Iterator[HostileUpstream]:
    """A service that answers, and keeps the request lines."""
    with HostileUpstream.start() as running:
        yield running


@pytest.fixture(scope="module")
def crowded(tmp_path_factory: pytest.TempPathFactory, upstream: HostileUpstream) -> Iterator[GateProcess]:
    """A gate in front of it."""
    directory = init_directory(tmp_path_factory.mktemp("crowded") / "gate")
    edit_config(directory, {"instances": {"servicenow": {"base_url": f"http://127.0.0.1:{upstream.port}"}}})
    with GateProcess.start(directory) as running:
        yield running


def _at_once(act: Callable[[int], Answer]) -> Counter[tuple[int, str]]:
    with ThreadPoolExecutor(AT_ONCE) as clients:
        return Counter((answer.status, answer.code) for answer in clients.map(act, range(CALLS)))


def _sent(upstream: HostileUpstream, word: str) -> int:
    return len([line for line in upstream.asked if word in line])


def test_call_is_sent_once_when_many_bring_the_same_key(crowded: GateProcess, upstream: HostileUpstream) -> None:
    crowded.token("triage-bot", "triage")
    headers = {"Idempotency-Key": "many"}
    answers = _at_once(lambda _: call(crowded, "PATCH", f"{LIST}/keyed", BODY, headers=headers))
    assert answers.keys() <= {DONE, (409, "still_running")}
    assert answers[DONE] > 0
    assert _sent(upstream, "/keyed") == 1
    assert call(crowded, "PATCH", f"{LIST}/keyed", BODY, headers=headers).status == 200
    assert _sent(upstream, "/keyed") == 1


def test_approved_call_is_sent_once_when_many_repeat_it(crowded: GateProcess, upstream: HostileUpstream) -> None:
    bot = crowded.token("triage-bot", "triage", environment="prod")

    def repeat(_: int = 0) -> Answer:
        return call(crowded, "PATCH", f"{LIST}/approved", BODY, token=bot, headers={"Prefer": "wait=0"})

    approval = repeat().json()["approval"]
    vote = {"decision": "approve", "reason": "once", "action_digest": approval["action_digest"]}
    maria = crowded.token("maria", "approver", environment="prod")
    assert call(crowded, "POST", f"/v1/approvals/{approval['id']}/votes", vote, token=maria).status == 200
    answers = _at_once(repeat)
    assert answers.keys() <= {DONE, (403, "approval_required"), (409, "stale_state")}
    assert answers[DONE] == 1
    assert _sent(upstream, "/approved") == 1


def test_one_vote_counts_when_many_vote_at_once(crowded: GateProcess) -> None:
    bot = crowded.token("triage-bot", "triage", environment="prod")
    held = call(crowded, "PATCH", f"{LIST}/voted", BODY, token=bot, headers={"Prefer": "wait=0"})
    approval, maria = held.json()["approval"], crowded.token("maria", "approver", environment="prod")

    def vote(number: int) -> Answer:
        ballot = {"decision": ("approve", "deny")[number % 2], "reason": "", "action_digest": approval["action_digest"]}
        return call(crowded, "POST", f"/v1/approvals/{approval['id']}/votes", ballot, token=maria)

    assert _at_once(vote) == {DONE: 1, (409, "stale_state"): CALLS - 1}
    seen = call(crowded, "GET", f"/v1/approvals/{approval['id']}", token=maria).json()
    assert len(seen["chain"]["steps"][0]["votes"]) == 1


def test_ledger_verifies_when_many_have_called(crowded: GateProcess) -> None:
    _at_once(lambda number: call(crowded, "PATCH", f"{LIST}/many-{number}", BODY))
    verified = tidegate("ledger", "verify", "--config", str(crowded.config))
    assert verified.returncode == 0, verified.stdout + verified.stderr
