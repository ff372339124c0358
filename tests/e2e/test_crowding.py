"""One subject, or nobody at all, that takes as many places as it can: everybody else goes on."""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from urllib.parse import urlsplit

import pytest

from tests.e2e.calling import LIST, call, counted, host, metrics, until
from tests.e2e.harness import GateProcess, StandIns, edit_config, init_directory, point_at_stand_ins
from tests.e2e.raw import exchange, read_answer, request

CALLS_MAX, HOLDS_MAX, REFUSED = 6, 2, 300
BODY = b'{"short_description":"again and again"}'


@pytest.fixture(scope="module")
def crowded(tmp_path_factory: pytest.TempPathFactory, stand_ins: StandIns) -> Iterator[GateProcess]:
    """A gate with room for a few calls, where a subject may wait twice."""
    directory = init_directory(tmp_path_factory.mktemp("crowded") / "gate")
    point_at_stand_ins(directory, stand_ins)
    edit_config(directory, {"limits": {"calls_max": CALLS_MAX, "holds_per_subject_max": HOLDS_MAX}})
    with GateProcess.start(directory) as running:
        yield running


def _others(gate: GateProcess) -> tuple[int, str]:
    answer = call(gate, "GET", LIST, token=gate.token("zoe", "triage", tenant="rival"))
    return answer.status, answer.code


def _in_flight(gate: GateProcess) -> float:
    return metrics(gate)["tidegate_calls_in_flight"]


def _connected(gate: GateProcess, links: ExitStack, sent: bytes) -> socket.socket:
    parts = urlsplit(gate.url)
    link = links.enter_context(socket.create_connection((parts.hostname, parts.port), timeout=30))
    link.sendall(sent)
    return link


def test_others_are_served_when_one_subject_has_the_same_call_held_again_and_again(crowded: GateProcess) -> None:
    bot = crowded.token("triage-bot", "triage", environment="prod")
    headers = {"Host": host(crowded), "Authorization": f"Bearer {bot}", "Content-Type": "application/json"}
    sent = request("POST", LIST, {**headers, "Prefer": "wait=600"}, BODY)
    with ExitStack() as links:
        waiting = [_connected(crowded, links, sent) for _ in range(HOLDS_MAX)]
        until("they wait", lambda: metrics(crowded)["tidegate_callers_waiting"] == HOLDS_MAX or None)
        answers = [read_answer(_connected(crowded, links, sent)) for _ in range(CALLS_MAX)]
        assert Counter((answer.status, answer.code) for answer in answers) == {(429, "throttled"): CALLS_MAX}
        assert _others(crowded) == (200, "")
        assert len(waiting) == _in_flight(crowded)
    until("those who hung up hold no place", lambda: _in_flight(crowded) == 0 or None)


def test_others_are_served_when_slow_clients_without_a_token_are_waited_for(crowded: GateProcess) -> None:
    form = {"Host": host(crowded), "Content-Type": "application/x-www-form-urlencoded", "Content-Length": "100000"}
    with ExitStack() as links:
        for _ in range(2 * CALLS_MAX):
            _connected(crowded, links, request("POST", "/c/slack/api/auth.test", form) + b"x=")
        for _ in range(CALLS_MAX):
            assert _others(crowded) == (200, "")
        slow = _connected(crowded, links, request("POST", "/c/slack/api/auth.test", {**form, "Content-Length": "4"}))
        slow.sendall(b"x=11")
        assert read_answer(slow).status == 401
    until("nobody holds a place", lambda: _in_flight(crowded) == 0 or None)


def test_refusals_are_all_counted_and_sampled_in_the_log_when_nobody_says_who_they_are(crowded: GateProcess) -> None:
    family, code = "tidegate_unauthenticated_total", "identity_missing"
    before, lines = counted(crowded, family, code), crowded.log.read_text().count(f'"code":"{code}"')
    for _ in range(REFUSED):
        exchange(crowded.url, request("GET", LIST, {"Host": host(crowded)}), hold_open=True)
    assert counted(crowded, family, code) - before == REFUSED
    call(crowded, "GET", LIST)
    until("the log has caught up", lambda: '"event":"call"' in crowded.log.read_text().splitlines()[-1] or None)
    logged = crowded.log.read_text().count(f'"code":"{code}"') - lines
    assert 0 < logged < REFUSED
