"""Listeners of a gate in this process: where they are, what they refuse by themselves, what a reload and a stop do to them."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from tests.e2e.raw import request
from tests.gateway.connectors.parts import subject
from tests.gateway.started import INCIDENTS, Started, load, started

READ_SECONDS = 10.0
HOST = {"Host": "127.0.0.1"}


async def test_gate_says_where_it_listens_when_the_system_gave_its_ports(
    starter_directory: Path, tmp_path: Path
) -> None:
    async with started(starter_directory, tmp_path / "gate") as gate:
        line = await gate.until_logged(what="listening")
        ports = {"gate": f"127.0.0.1:{gate.gate.port}", "metrics": f"127.0.0.1:{gate.gate.metrics_port}"}
        assert line == {"event": "gate", "what": "listening", **ports}
        assert [line["what"] for line in gate.lines(event="gate")] == ["started", "listening"]
        by_name = request("GET", "/metrics", {"Host": f"localhost:{gate.gate.metrics_port}"})
        assert (await gate.send(by_name)).status == 400  # another listener's name
        assert "tidegate_bundle_sequence" in await gate.metrics()


async def test_own_urls_name_the_port_that_the_system_gave(starter_directory: Path, tmp_path: Path) -> None:
    async with started(starter_directory, tmp_path / "gate") as gate:
        own = f"http://127.0.0.1:{gate.gate.port}"
        assembly = gate.gate.running.assembly
        assert assembly.config.external_url == own
        target = assembly.reach.targets["servicenow"]
        location = ("location", f"{target.base_url}/api/now/table/incident/1")
        assert [*target.rewriters.of(subject()).headers((location,))] == [("location", f"{own}{INCIDENTS}/1")]
        described = await gate.ask("GET", "/.well-known/authzen-configuration")
        assert described.json()["policy_decision_point"] == own
        assert await gate.reload({"limits": {"idle_seconds": 60}})
        assert gate.gate.running.assembly.config.external_url == own


def test_own_urls_are_the_configured_ones_when_there_are_any(starter_directory: Path) -> None:
    config = load(starter_directory)
    assert config.external_url == f"http://{config.document.listen.gate}"


REFUSED = {
    "too long a target": (request("GET", f"/{'a' * 9000}", HOST), 414, "uri_too_long"),
    "too large a head": (request("GET", "/", {**HOST, "X": "a" * 40_000}), 431, "headers_too_large"),
    "no HTTP": (b"garbage\r\n\r\n", 400, "malformed_request"),
    "a tunnel": (request("CONNECT", "example:443", HOST), 400, "malformed_request"),
    "half a head": (b"GET / HTTP/1.1\r\nHost: x\r\n", 408, "too_slow"),
}


@pytest.mark.parametrize(("raw", "status", "code"), REFUSED.values(), ids=REFUSED.keys())
async def test_refusal_of_the_listener_is_counted_and_logged_when_it_is(
    starter_directory: Path, tmp_path: Path, raw: bytes, status: int, code: str
) -> None:
    async with started(starter_directory, tmp_path / "gate", {"limits": {"header_read_seconds": 1}}) as gate:
        answer = await gate.send(raw)
        assert (answer.status, answer.code) == (status, code)
        line = await gate.until_logged(event="refused_unidentified", code=code)
        assert (line["listener"], line["peer"], line["status"]) == ("gate", "127.0.0.1", status)
        assert f'tidegate_unauthenticated_total{{code="{code}"}} 1.0' in await gate.metrics()


async def test_refusal_is_counted_once_when_a_call_met_it_in_its_body(starter_directory: Path, tmp_path: Path) -> None:
    async with started(starter_directory, tmp_path / "gate") as gate:
        head = {
            "Host": f"127.0.0.1:{gate.gate.port}",
            "Transfer-Encoding": "chunked",
            "Content-Type": "application/json",
        }
        answer = await gate.ask("GET", "/health/live")
        assert answer.status == 200
        await gate.send(request("POST", INCIDENTS, head), b"nonsense\r\n")
        await gate.until_logged(event="refused_unidentified")
        lines = gate.lines(event="refused_unidentified")
        counted = [
            line for line in (await gate.metrics()).splitlines() if line.startswith("tidegate_unauthenticated_total")
        ]
        assert len(lines) == 1 and [float(line.split()[-1]) for line in counted] == [1.0]


async def _status(gate: Started, fields: int = 0) -> int:
    """The status of a request with so many header fields beside `Host`."""
    return (await gate.send(_health(gate, fields))).status


def _health(gate: Started, fields: int = 0) -> bytes:
    headers = {"Host": f"127.0.0.1:{gate.gate.port}", **{f"X-{number}": "" for number in range(fields)}}
    return request("GET", "/health/live", headers)


async def test_limits_are_the_new_ones_when_a_reload_changed_them(starter_directory: Path, tmp_path: Path) -> None:
    async with started(starter_directory, tmp_path / "gate") as gate:
        assert await _status(gate, fields=20) == 200
        reader, writer = await asyncio.open_connection("127.0.0.1", gate.gate.port)
        async with asyncio.timeout(READ_SECONDS):
            writer.write(_health(gate))
            await reader.readuntil(b'{"live":true}')
            limits = {"headers_max_count": 8, "hold_max_seconds": 1, "holds_per_subject_max": 1}
            assert await gate.reload({"limits": limits})
            assert await _status(gate, fields=20) == 431
            writer.write(_health(gate, fields=20))  # on a connection that stood before
            await reader.readuntil(b'{"live":true}')
        writer.close()
        kept = gate.gate.running.services.approvals.limits
        assert (kept.wait_max_seconds, kept.open_per_subject_max) == (1, 1)


async def test_applied_wait_is_told_when_a_caller_would_wait_longer(starter_directory: Path, tmp_path: Path) -> None:
    async with started(starter_directory, tmp_path / "gate", {"limits": {"hold_max_seconds": 0}}) as gate:
        held = await gate.ask(
            "POST", INCIDENTS, {"short_description": "x"}, environment="prod", headers={"Prefer": "wait=30"}
        )
        assert (held.status, held.code) == (403, "approval_required")
        assert held.headers["preference-applied"] == "wait=0"


DOOR = {"listen": {"ext_authz": {"address": "127.0.0.1:0"}}}


async def test_reload_is_refused_when_it_changes_limits_that_the_door_was_opened_with(
    starter_directory: Path, tmp_path: Path
) -> None:
    async with started(starter_directory, tmp_path / "gate", DOOR) as gate:
        line = await gate.until_logged(what="listening")
        assert line["ext_authz"].startswith("127.0.0.1:") and line["ext_authz"] != "127.0.0.1:0"
        assert not await gate.reload({"limits": {"calls_max": 7, "uri_max_bytes": 512}})
        refused = gate.lines(what="reload_refused")[0]["error"]
        assert refused.startswith("restart_needed: limits.calls_max:")
        assert gate.gate.running.assembly.config.document.limits.calls_max == 2048
        assert await gate.reload({"limits": {"calls_max": 2048, "uri_max_bytes": 512}})


async def test_reload_takes_those_limits_when_there_is_no_door(starter_directory: Path, tmp_path: Path) -> None:
    async with started(starter_directory, tmp_path / "gate") as gate:
        assert await gate.reload({"limits": {"calls_max": 7}})
        assert gate.gate.running.assembly.config.document.limits.calls_max == 7


async def test_nothing_listens_any_more_when_a_stop_waits_for_a_call(starter_directory: Path, tmp_path: Path) -> None:
    async with started(starter_directory, tmp_path / "gate", {**DOOR, "limits": {"grace_seconds": 5}}) as gate:
        ports = [gate.gate.port, gate.gate.metrics_port]
        body = json.dumps({"instance": "servicenow", "action": "incident.list"}).encode()
        headers = {"Host": f"127.0.0.1:{ports[0]}", "Authorization": f"Bearer {gate.token()}"}
        head = {**headers, "Content-Type": "application/json", "Content-Length": str(len(body))}
        reader, writer = await asyncio.open_connection("127.0.0.1", ports[0])
        writer.write(request("POST", "/v1/calls", head))
        await writer.drain()
        assert await _status(gate) == 200  # so the gate has read the other head as well
        stopping = asyncio.create_task(gate.gate.close())
        async with asyncio.timeout(READ_SECONDS):
            while not gate.gate.running.closing:
                await asyncio.sleep(0)
        await asyncio.sleep(0)
        for port in ports:
            with pytest.raises(ConnectionError):
                await asyncio.open_connection("127.0.0.1", port)
        assert not stopping.done()
        writer.write(body)
        async with asyncio.timeout(READ_SECONDS):
            assert (await reader.readline()).startswith(b"HTTP/1.1 ")
        writer.close()
        await stopping
