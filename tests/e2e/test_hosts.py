"""`Host` on every listener: its own names are served, any other one is refused before anything else is looked at."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.calling import LIST, counted, host
from tests.e2e.harness import GateProcess, StandIns, edit_config, init_directory, point_at_stand_ins, read_config
from tests.e2e.raw import Answer, exchange, request

NAMED = "gate.example"


@pytest.fixture(scope="module")
def named(tmp_path_factory: pytest.TempPathFactory, stand_ins: StandIns) -> Iterator[GateProcess]:
    """A gate that is also reached by a name."""
    directory = init_directory(tmp_path_factory.mktemp("named") / "gate")
    point_at_stand_ins(directory, stand_ins)
    edit_config(directory, {"listen": {"hosts": [NAMED]}})
    with GateProcess.start(directory) as running:
        yield running


def _at(gate: GateProcess, listener: str) -> tuple[str, str]:
    """Address and a path of a listener."""
    listen = read_config(gate.directory)["listen"]
    return f"http://{listen[listener]}", {"gate": "/health/live", "metrics": "/metrics"}[listener]


def _ask(gate: GateProcess, listener: str, said: str) -> Answer:
    url, path = _at(gate, listener)
    return exchange(url, request("GET", path, {"Host": said.replace("PORT", url.rpartition(":")[2])}))


LISTENERS = ["gate", "metrics"]
OWN = ["127.0.0.1:PORT", "localhost:PORT", "LOCALHOST:PORT", "[::1]:PORT", NAMED, f"{NAMED}:PORT"]
FOREIGN = [
    pytest.param("", id="nothing"),
    pytest.param("evil.example", id="another name"),
    pytest.param("evil.example:PORT", id="another name with our port"),
    pytest.param("127.0.0.1", id="our address without a port"),
    pytest.param("127.0.0.1:1", id="our address with another port"),
    pytest.param(f"{NAMED}:1", id="our name with another port"),
    pytest.param(f"{NAMED}.evil.example", id="a name that begins with ours"),
]


@pytest.mark.parametrize("listener", LISTENERS)
@pytest.mark.parametrize("said", OWN)
def test_listener_answers_when_the_host_is_its_own(named: GateProcess, listener: str, said: str) -> None:
    assert _ask(named, listener, said).status == 200


@pytest.mark.parametrize("listener", LISTENERS)
@pytest.mark.parametrize("said", FOREIGN)
def test_listener_refuses_when_the_host_is_unknown(named: GateProcess, listener: str, said: str) -> None:
    answer = _ask(named, listener, said)
    assert (answer.status, answer.code) == (400, "malformed_request")
    assert b"tidegate_" not in answer.body


@pytest.mark.parametrize("listener", LISTENERS)
@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_listener_refuses_when_there_is_no_host(named: GateProcess, listener: str, version: str) -> None:
    url, path = _at(named, listener)
    answer = exchange(url, f"GET {path} HTTP/{version}\r\n\r\n".encode())
    assert (answer.status, answer.code) == (400, "malformed_request")


PATHS = [LIST, "/c/nosuch/x", "/v1/calls", "/health/ready", "/openapi.json", "/"]


@pytest.mark.parametrize("path", PATHS)
def test_gate_refuses_every_path_when_the_host_is_unknown(named: GateProcess, path: str) -> None:
    token = named.token("triage-bot", "triage")
    before = counted(named, "tidegate_unauthenticated_total", "malformed_request")
    headers = {"Host": "rebound.example", "Authorization": f"Bearer {token}"}
    answer = exchange(named.url, request("GET", path, headers))
    assert (answer.status, answer.code) == (400, "malformed_request")
    assert counted(named, "tidegate_unauthenticated_total", "malformed_request") == before + 1


def test_gate_refuses_when_only_the_absolute_target_names_it(named: GateProcess) -> None:
    answer = exchange(named.url, request("GET", f"{named.url}/health/live", {"Host": "evil.example"}))
    assert (answer.status, answer.code) == (400, "malformed_request")


def test_gate_refuses_an_absolute_target_when_both_name_another_host(named: GateProcess) -> None:
    answer = exchange(named.url, request("GET", "http://evil.example/health/live", {"Host": "evil.example"}))
    assert (answer.status, answer.code) == (400, "malformed_request")


def test_gate_does_not_answer_for_a_name_when_it_is_not_configured(gate: GateProcess) -> None:
    headers = {"Host": f"{NAMED}:{host(gate).rpartition(':')[2]}"}
    answer = exchange(gate.url, request("GET", "/health/live", headers))
    assert (answer.status, answer.code) == (400, "malformed_request")
