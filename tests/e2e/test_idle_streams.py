"""A stream on which nothing comes, answer or upload, ends soon after a kill switch, and at its longest life (rule 12)."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import pytest

from tests.e2e.calling import LIST, call, host, metrics, recorded, until, upload_target
from tests.e2e.harness import GateProcess, StandIns, edit_config, init_directory, point_at_stand_ins
from tests.e2e.hostile import HostileUpstream
from tests.e2e.raw import Answer, read_answer, request

CUT_WITHIN_SECONDS = 5.0
LONGEST_LIFE_SECONDS = 12
READ_SECONDS = 20.0
RESET = struct.pack("ii", 1, 0)
"""Lingering for no time: closing resets the connection."""
SENT_BYTES = 4 << 20


@pytest.fixture(scope="module")
def streaming(tmp_path_factory: pytest.TempPathFactory, stand_ins: StandIns) -> Iterator[GateProcess]:
    """A gate in front of a service that says one thing and then nothing, and of one that takes uploads."""
    directory = init_directory(tmp_path_factory.mktemp("streaming") / "gate")
    point_at_stand_ins(directory, stand_ins)
    with HostileUpstream.start() as upstream:
        here = {"servicenow": {"base_url": f"http://127.0.0.1:{upstream.port}"}}
        edit_config(directory, {"instances": here, "limits": {"stream_max_seconds": LONGEST_LIFE_SECONDS}})
        with GateProcess.start(directory) as running:
            yield running


@contextmanager
def _stream(gate: GateProcess, tenant: str) -> Iterator[tuple[socket.socket, bytes]]:
    """An idle stream of a tenant, and what has come of it: its head and its first event."""
    token = gate.token("listener", "triage", tenant=tenant)
    parts = urlsplit(gate.url)
    with socket.create_connection((parts.hostname, parts.port), timeout=READ_SECONDS) as link:
        headers = {"Host": host(gate), "Authorization": f"Bearer {token}"}
        link.sendall(request("GET", f"{LIST}/idle-1", headers))
        begun = b""
        while b"data: first" not in begun:
            piece = link.recv(65536)
            assert piece, begun
            begun += piece
        yield link, begun


def _rest(link: socket.socket) -> bytes:
    """Everything until the gate ends the connection."""
    rest = b""
    try:
        while piece := link.recv(65536):
            rest += piece
    except ConnectionResetError:
        pass
    return rest


def _call_id(begun: bytes) -> Answer:
    lines = begun.decode("latin-1").split("\r\n")
    named = next(line.partition(": ")[2] for line in lines if line.lower().startswith("tidegate-call:"))
    return Answer(200, {"tidegate-call": named}, b"")


def _cut(gate: GateProcess, begun: bytes) -> str | None:
    last = recorded(gate, _call_id(begun))[-1]
    return str(last["digests"]["cut"]) if last["kind"] == "call" else None


def test_stream_holds_a_place_among_the_calls_until_it_ends(streaming: GateProcess) -> None:
    edit_config(streaming.directory, {"limits": {"calls_max": 1}})
    assert streaming.reload()
    try:
        with _stream(streaming, "acme"):
            assert metrics(streaming)["tidegate_calls_in_flight"] == 1
            refused = call(streaming, "GET", LIST)
            assert (refused.status, refused.code) == (429, "throttled")
        until("its place is free", lambda: call(streaming, "GET", LIST).status == 200 or None)
        assert metrics(streaming)["tidegate_calls_in_flight"] == 0
    finally:
        edit_config(streaming.directory, {"limits": {"calls_max": 2048}})
        assert streaming.reload()


SCOPES = ["tenant/killed", "tenant/killed/connector/servicenow", "tenant/killed/subject/listener"]


@pytest.mark.parametrize("scope", SCOPES)
def test_idle_stream_ends_without_its_terminator_when_a_switch_is_set(streaming: GateProcess, scope: str) -> None:
    operator = streaming.token("op", "operator", tenant="killed")
    with _stream(streaming, "killed") as (link, begun):
        switched = call(streaming, "PUT", f"/v1/switches/{scope}", {"reason": "drill"}, token=operator)
        assert switched.status == 200
        started = time.monotonic()
        rest = _rest(link)
        assert time.monotonic() - started < CUT_WITHIN_SECONDS
    assert b"0\r\n\r\n" not in rest
    assert call(streaming, "DELETE", f"/v1/switches/{scope}", token=operator).status == 200


def test_idle_stream_goes_on_when_the_switch_is_another_tenants_and_ends_at_its_longest_life(
    streaming: GateProcess,
) -> None:
    operator = streaming.token("op", "operator", tenant="killed")
    with _stream(streaming, "acme") as (link, begun):
        started = time.monotonic()
        assert call(streaming, "PUT", "/v1/switches/tenant/killed", {"reason": "r"}, token=operator).status == 200
        rest = _rest(link)
        lived = time.monotonic() - started
    assert CUT_WITHIN_SECONDS < lived < LONGEST_LIFE_SECONDS + CUT_WITHIN_SECONDS
    assert b"0\r\n\r\n" not in rest
    cut = until("the end is recorded", lambda: _cut(streaming, begun))
    assert cut == "the stream reached its longest life"
    assert call(streaming, "DELETE", "/v1/switches/tenant/killed", token=operator).status == 200


def test_cut_stream_is_recorded_with_its_reason_when_a_switch_ended_it(streaming: GateProcess) -> None:
    operator = streaming.token("op", "operator")
    with _stream(streaming, "acme") as (link, begun):
        assert call(streaming, "PUT", "/v1/switches/tenant/acme", {"reason": "r"}, token=operator).status == 200
        _rest(link)
    assert until("the end is recorded", lambda: _cut(streaming, begun)) == "a kill switch ended the stream"
    assert call(streaming, "DELETE", "/v1/switches/tenant/acme", token=operator).status == 200


@contextmanager
def _upload(gate: GateProcess, tenant: str) -> Iterator[socket.socket]:
    """An upload of a tenant whose caller stops after the first megabytes."""
    parts, target = urlsplit(gate.url), upload_target(gate, tenant)
    with socket.create_connection((parts.hostname, parts.port), timeout=READ_SECONDS) as link:
        headers = {"Host": host(gate), "Content-Type": "text/plain", "Content-Length": str(2 * SENT_BYTES)}
        link.sendall(request("POST", target, headers) + b"x" * SENT_BYTES)
        yield link


def _ended(gate: GateProcess, link: socket.socket, limit_seconds: float) -> Answer:
    """What the caller of a stalled upload is answered, which is what is recorded."""
    started = time.monotonic()
    answer = read_answer(link)
    assert time.monotonic() - started < limit_seconds
    records = recorded(gate, answer)
    assert [record["kind"] for record in records] == ["intent", "outcome"]
    assert records[-1]["action"]["code"] == answer.code
    return answer


@pytest.mark.parametrize(
    "scope", ["tenant/killed", "tenant/killed/connector/slack-upload", "tenant/killed/subject/dev"]
)
def test_stalled_upload_ends_when_a_switch_is_set(streaming: GateProcess, scope: str) -> None:
    operator = streaming.token("op", "operator", tenant="killed")
    with _upload(streaming, "killed") as link:
        assert call(streaming, "PUT", f"/v1/switches/{scope}", {"reason": "drill"}, token=operator).status == 200
        answer = _ended(streaming, link, CUT_WITHIN_SECONDS)
    assert (answer.status, answer.code) == (403, "killed")
    assert call(streaming, "DELETE", f"/v1/switches/{scope}", token=operator).status == 200


def test_stalled_upload_ends_at_its_longest_life_when_no_switch_is_set(streaming: GateProcess) -> None:
    with _upload(streaming, "acme") as link:
        answer = _ended(streaming, link, LONGEST_LIFE_SECONDS + CUT_WITHIN_SECONDS)
    assert (answer.status, answer.code) == (408, "too_slow")
    assert answer.json()["detail"] == "the stream reached its longest life"


@pytest.mark.parametrize("how", [pytest.param("reset", id="resets"), pytest.param("close", id="closes")])
def test_idle_stream_ends_and_frees_its_place_when_its_caller(streaming: GateProcess, how: str) -> None:
    with _stream(streaming, "acme") as (link, begun):
        if how == "reset":
            link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    cut = until("the end is recorded", lambda: _cut(streaming, begun), seconds=CUT_WITHIN_SECONDS)
    assert cut == "the caller closed the connection"
