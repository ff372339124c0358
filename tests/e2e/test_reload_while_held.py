"""People approve a call that waited while the gate was configured anew: it goes out only if it is still the same call."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.e2e.calling import JSON_TYPE, LIST, call, recorded, until
from tests.e2e.harness import GateProcess, edit_config, init_directory, read_config
from tests.e2e.hostile import HostileUpstream
from tests.e2e.raw import Answer
from tests.e2e.rulebook import build, drop_action, drop_argument

CALLS = {
    "its action is gone": ("PUT", f"{LIST}/gone", (403, "unclassified")),
    "its schema takes less": ("PATCH", f"{LIST}/tightened", (422, "arguments_invalid")),
    "its instance is for others": ("POST", LIST.replace("servicenow", "taken"), (403, "unclassified")),
    "its instance is at another address": ("POST", LIST.replace("servicenow", "moved"), (409, "stale_state")),
    "its instance is gone": ("POST", LIST.replace("servicenow", "removed"), (404, "not_found")),
    "nothing of it has changed": ("POST", LIST, (200, "")),
}
BODY = {"impact": "1"}
CALL_KINDS = {"intent", "outcome", "refusal"}


@pytest.fixture(scope="module")
def services() -> Iterator[tuple[HostileUpstream, HostileUpstream]]:
    """The service that calls go to, and the one where an instance moves."""
    with HostileUpstream.start() as first, HostileUpstream.start() as second:
        yield first, second


@pytest.fixture(scope="module")
def answers(
    tmp_path_factory: pytest.TempPathFactory, services: tuple[HostileUpstream, HostileUpstream]
) -> Iterator[tuple[GateProcess, dict[str, Answer]]]:
    """Every call held, everything changed and read anew, every approval given: the gate, and what each call got."""
    directory = init_directory(tmp_path_factory.mktemp("reloaded") / "gate")
    here = {**read_config(directory)["instances"]["servicenow"], "base_url": f"http://127.0.0.1:{services[0].port}"}
    edit_config(directory, {"instances": {name: dict(here) for name in ("servicenow", "taken", "moved", "removed")}})
    with GateProcess.start(directory) as gate:
        bot = gate.token("triage-bot", "triage", environment="prod")
        with ThreadPoolExecutor(len(CALLS)) as callers:
            waiting = {
                name: callers.submit(call, gate, method, path, BODY, token=bot, headers={"Prefer": "wait=60"})
                for name, (method, path, _) in CALLS.items()
            }
            held = until("every call is held", lambda: _held(gate))
            _change(gate, services[1])
            maria = gate.token("maria", "approver", environment="prod")
            for approval in held:
                vote = {"decision": "approve", "reason": "seen", "action_digest": approval["action_digest"]}
                assert call(gate, "POST", f"/v1/approvals/{approval['id']}/votes", vote, token=maria).status == 200
            yield gate, {name: answer.result() for name, answer in waiting.items()}


def _held(gate: GateProcess) -> list[dict[str, str]] | None:
    maria = gate.token("maria", "approver", environment="prod")
    items: list[dict[str, str]] = call(gate, "GET", "/v1/approvals?state=pending", token=maria).json()["items"]
    return items if len(items) == len(CALLS) else None


def _change(gate: GateProcess, elsewhere: HostileUpstream) -> None:
    drop_action(gate.directory, "servicenow", "incident.replace")
    drop_argument(gate.directory, "servicenow", "incident_update.json", "impact")
    build(gate.directory)
    instances = read_config(gate.directory)["instances"]
    instances["taken"]["environments"] = ["test"]
    instances["moved"]["base_url"] = f"http://127.0.0.1:{elsewhere.port}"
    del instances["removed"]
    edit_config(gate.directory, {"instances": None})
    edit_config(gate.directory, {"instances": instances})
    assert gate.reload()


@pytest.mark.parametrize(("name", "expected"), [(name, wanted) for name, (_, _, wanted) in CALLS.items()], ids=CALLS)
def test_approved_call_is_the_same_or_refused_when(
    answers: tuple[GateProcess, dict[str, Answer]], name: str, expected: tuple[int, str]
) -> None:
    gate, given = answers
    assert (given[name].status, given[name].code) == expected
    kinds = [record["kind"] for record in recorded(gate, given[name]) if record["kind"] in CALL_KINDS]
    assert kinds == (["intent", "outcome"] if expected[0] == 200 else ["refusal"])


def test_service_is_asked_for_the_unchanged_call_only_when_all_are_approved(
    answers: tuple[GateProcess, dict[str, Answer]], services: tuple[HostileUpstream, HostileUpstream]
) -> None:
    assert answers[1]
    assert services[0].asked == ["POST /api/now/table/incident HTTP/1.1"]
    assert services[1].asked == []


def test_approval_stays_good_when_its_call_was_refused_by_the_new_configuration(
    answers: tuple[GateProcess, dict[str, Answer]],
) -> None:
    gate, given = answers
    approval = given["its instance is at another address"].headers["tidegate-approval"]
    maria = gate.token("maria", "approver", environment="prod")
    seen = call(gate, "GET", f"/v1/approvals/{approval}", token=maria, headers=JSON_TYPE).json()
    assert seen["state"] == "approved"
