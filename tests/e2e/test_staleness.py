"""What is under way when a lease runs out: no effect, no retry, no approval used, no stream that goes on (security rule 12)."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.e2e.bundle_services import LEASE_SECONDS, ServiceProcess, asked, follow, resigned
from tests.e2e.calling import LIST, call, host, meanwhile, recorded, until
from tests.e2e.harness import ROOT, GateProcess, _await, child_environment, edit_config, init_directory, read_config
from tests.e2e.hostile import HostileUpstream
from tests.e2e.raw import Answer, request

CUT_WITHIN_SECONDS = 5.0
READ_SECONDS = 20.0
BODY = {"state": "2"}
API_CALL = {"instance": "servicenow", "action": "incident.update", "arguments": {"sys_id": "api", **BODY}}


@pytest.fixture
def upstream() -> Iterator[HostileUpstream]:
    """A service that does what the path says."""
    with HostileUpstream.start() as running:
        yield running


@pytest.fixture
def directory(tmp_path: Path, upstream: HostileUpstream) -> Path:
    """A starter directory in front of it."""
    made = init_directory(tmp_path / "gate")
    edit_config(made, {"instances": {"servicenow": {"base_url": f"http://127.0.0.1:{upstream.port}"}}})
    return made


@pytest.fixture
def service(tmp_path: Path, directory: Path) -> Iterator[ServiceProcess]:
    """A bundle service whose statements hold a few seconds; the gate is set to follow it."""
    made = ServiceProcess.prepare(tmp_path / "service", directory / "keys" / "bundle.pem", ttl_seconds=LEASE_SECONDS)
    with made.running():
        assert made.publish(directory / "bundle.tar.gz").returncode == 0
        follow(directory, made)
        yield made


@contextmanager
def slow_gate(directory: Path, let: Path) -> Iterator[GateProcess]:
    """A gate whose intents wait until the file `let` exists."""
    url, log = f"http://{read_config(directory)['listen']['gate']}", directory / "gate.log"
    command = [sys.executable, "-m", "tests.e2e.slow_ledger", str(directory / "tidegate.yaml"), str(let)]
    with log.open("ab") as output:
        process = subprocess.Popen(command, cwd=ROOT, env=child_environment(), stdout=output, stderr=output)
    _await(process, log, lambda: asked(f"{url}/health/ready") is not None)
    gate = GateProcess(directory, url, process, log)
    try:
        yield gate
    finally:
        gate.stop()


def stale(gate: GateProcess) -> bool | None:
    """Whether an ordinary read is refused for want of a fresh bundle."""
    return True if call(gate, "GET", LIST).code == "policy_stale" else None


def answers(gate: GateProcess) -> bool | None:
    """Whether an ordinary read is answered."""
    return True if call(gate, "GET", LIST).status == 200 else None


def update(gate: GateProcess, number: str, **headers: str) -> Answer:
    """A write that policy lets."""
    return call(gate, "PATCH", f"{LIST}/{number}", BODY, headers={k.replace("_", "-"): v for k, v in headers.items()})


DOORS = {
    "the proxy": (lambda gate: update(gate, "proxied", Idempotency_Key="k1"), "/proxied"),
    "/v1/calls": (lambda gate: call(gate, "POST", "/v1/calls", {**API_CALL, "idempotency_key": "k2"}), "/api"),
}


@pytest.mark.parametrize(("act", "path"), DOORS.values(), ids=DOORS.keys())
def test_call_has_no_effect_when_its_lease_ends_between_decision_and_intent_at(
    service: ServiceProcess, directory: Path, upstream: HostileUpstream, tmp_path: Path, act: object, path: str
) -> None:
    let = tmp_path / "let"
    with slow_gate(directory, let) as gate:
        gate.token("triage-bot", "triage")
        with meanwhile(lambda: act(gate)) as answered:  # type: ignore[operator]
            until("it waits for its intent", lambda: in_flight(gate))
            service.stop()
            until("the lease ends", lambda: stale(gate))
            let.touch()
        assert (answered[0].status, answered[0].code) == (503, "policy_stale")
        records = recorded(gate, answered[0])
        assert [record["kind"] for record in records] == ["intent", "outcome"]
        assert records[-1]["action"]["code"] == "policy_stale"
        assert upstream.times_asked(f"{path} ") == 0
        service.start()
        until("calls resume", lambda: answers(gate))
        again = act(gate)  # type: ignore[operator]
        assert again.status == 200, again.body
        assert upstream.times_asked(f"{path} ") == 1


def in_flight(gate: GateProcess) -> bool | None:
    """Whether a call is being worked on."""
    address = read_config(gate.directory)["listen"]["metrics"]
    parts = urlsplit(f"http://{address}")
    with socket.create_connection((parts.hostname, parts.port), timeout=READ_SECONDS) as link:
        link.sendall(request("GET", "/metrics", {"Host": address, "Connection": "close"}))
        text = read_to_end(link)
    return True if b"tidegate_calls_in_flight 1" in text else None


def test_call_is_asked_about_again_when_another_bundle_comes_between_decision_and_intent(
    service: ServiceProcess, directory: Path, upstream: HostileUpstream, tmp_path: Path
) -> None:
    let = tmp_path / "let"
    with slow_gate(directory, let) as gate:
        gate.token("triage-bot", "triage")
        with meanwhile(lambda: update(gate, "replaced")) as answered:
            until("it waits for its intent", lambda: in_flight(gate))
            newer = directory / "newer.tar.gz"
            resigned(directory / "bundle.tar.gz", directory / "keys" / "bundle.pem", newer, sequence=2)
            assert service.publish(newer).returncode == 0
            until("the newer one", lambda: True if sequence(gate) == 2 else None)
            let.touch()
        assert answered[0].status == 200
        assert upstream.times_asked("/replaced ") == 1
        assert recorded(gate, answered[0])[-1]["policy"]["sequence"] == 2


def sequence(gate: GateProcess) -> int | None:
    """The sequence of the bundle in force."""
    answer = call(gate, "GET", "/v1/enforcement", token=gate.token("ops", "operator"))
    return int(answer.json()["bundles"][0]["sequence"]) if answer.status == 200 else None


def test_call_is_not_sent_again_when_its_lease_ended_meanwhile(
    service: ServiceProcess, directory: Path, upstream: HostileUpstream
) -> None:
    with GateProcess.start(directory) as gate:
        gate.token("triage-bot", "triage")
        with meanwhile(lambda: call(gate, "GET", f"{LIST}/late-1")) as answered:
            until("it was sent", lambda: upstream.times_asked("/late-1") or None)
            service.stop()
            until("the lease ends", lambda: stale(gate))
            upstream.released.set()
        assert (answered[0].status, answered[0].code) == (503, "policy_stale")
        assert upstream.times_asked("/late-1") == 1
        assert recorded(gate, answered[0])[-1]["action"]["code"] == "policy_stale"


def test_approval_is_not_used_up_when_policy_is_stale_at_use(
    service: ServiceProcess, directory: Path, upstream: HostileUpstream
) -> None:
    with GateProcess.start(directory) as gate:
        bot = gate.token("triage-bot", "triage", environment="prod")
        maria = gate.token("maria", "approver", environment="prod")

        def repeat() -> Answer:
            return call(gate, "PATCH", f"{LIST}/approved", BODY, token=bot, headers={"Prefer": "wait=0"})

        approval = repeat().json()["approval"]
        vote = {"decision": "approve", "reason": "once", "action_digest": approval["action_digest"]}
        assert call(gate, "POST", f"/v1/approvals/{approval['id']}/votes", vote, token=maria).status == 200
        service.stop()
        until("the lease ends", lambda: stale(gate))
        assert (repeat().status, repeat().code) == (503, "policy_stale")
        assert upstream.times_asked("/approved") == 0
        service.start()
        until("calls resume", lambda: answers(gate))
        assert repeat().status == 200
        assert upstream.times_asked("/approved") == 1


def test_idle_stream_ends_without_its_terminator_when_its_lease_has_ended(
    service: ServiceProcess, directory: Path
) -> None:
    with GateProcess.start(directory) as gate:
        token, parts = gate.token("triage-bot", "triage"), urlsplit(gate.url)
        with socket.create_connection((parts.hostname, parts.port), timeout=READ_SECONDS) as link:
            headers = {"Host": host(gate), "Authorization": f"Bearer {token}"}
            link.sendall(request("GET", f"{LIST}/idle-1", headers))
            begun = b""
            while b"data: first" not in begun:
                piece = link.recv(65536)
                assert piece, begun
                begun += piece
            service.stop()
            stopped = time.monotonic()
            rest = read_to_end(link)
            assert time.monotonic() - stopped < LEASE_SECONDS + CUT_WITHIN_SECONDS
        assert b"0\r\n\r\n" not in rest
        named = begun.decode("latin-1").lower().partition("tidegate-call: ")[2].partition("\r\n")[0]
        ended = Answer(200, {"tidegate-call": named}, b"")
        last = until("the end is recorded", lambda: found if (found := recorded(gate, ended))[1:] else None)[-1]
        assert last["digests"]["cut"] == "the policy that let the stream begin may no longer decide"


def read_to_end(link: socket.socket) -> bytes:
    """Everything until the other side ends the connection."""
    rest = b""
    try:
        while piece := link.recv(65536):
            rest += piece
    except ConnectionResetError:
        pass
    return rest
