"""Deltas between real processes: a changed line travels as little, whatever is missing travels whole, OPA notices nothing."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from email.message import Message
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from bundles.archive import read_archive
from bundles.canonical import canonical_json, parse_strict, sha256_hex
from tests.e2e.bundle_services import ServiceProcess, eventually, follow, resigned
from tests.e2e.bundle_services import asked as answered
from tests.e2e.calling import LIST, call, until
from tests.e2e.harness import (
    GateProcess,
    StandIns,
    init_directory,
    point_at_stand_ins,
    read_config,
    tidegate,
)
from tests.e2e.test_bundle_service import opa_polling

ENTRIES = 4_000
WINDOWS = "windows/data.json"


@pytest.fixture
def directory(tmp_path: Path, stand_ins: StandIns) -> Path:
    """A starter directory in front of the stand-ins."""
    made = init_directory(tmp_path / "gate")
    point_at_stand_ins(made, stand_ins)
    return made


@pytest.fixture
def service(tmp_path: Path, directory: Path) -> Iterator[ServiceProcess]:
    """A service that serves version 1 with much data; the gate is set to follow it."""
    made = ServiceProcess.prepare(tmp_path / "service", directory / "keys" / "bundle.pem")
    with made.running():
        assert made.publish(version(directory, 1)).returncode == 0
        follow(directory, made, lease_seconds=600, poll_seconds=1)
        yield made


def version(directory: Path, sequence: int) -> Path:
    """The starter bundle with much data besides, one line of which is the version's; made once."""
    out = directory / f"{sequence}.tar.gz"
    if out.exists():
        return out
    archive = directory / "bundle.tar.gz"
    windows = parse_strict(read_archive(archive.read_bytes())[WINDOWS])
    assert isinstance(windows, dict)
    entries: dict[str, Any] = {f"n{number:05d}": sha256(b"%d" % number).hexdigest() for number in range(ENTRIES)}
    entries["n02000"] = f"version {sequence}"
    content = canonical_json({**windows, "calendar": entries})
    key = directory / "keys" / "bundle.pem"
    return resigned(archive, key, out, sequence=sequence, windows__data_dot_json=content)


def source_of(gate: GateProcess, sequence: int) -> dict[str, Any]:
    """How the bundle came, once the gate has it in force."""

    def found() -> dict[str, Any] | None:
        answer = call(gate, "GET", "/v1/enforcement", token=gate.token("ops", "operator"))
        bundle: dict[str, Any] = answer.json()["bundles"][0] if answer.status == 200 else {"sequence": 0}
        source: dict[str, Any] | None = bundle["source"] if bundle["sequence"] == sequence else None
        return source

    return until(f"sequence {sequence}", found)


def said(service: ServiceProcess, what: str) -> list[dict[str, Any]]:
    """What the service logged."""
    lines = (service.directory / "service.log").read_text().splitlines()
    return [line for line in map(json.loads, lines) if line.get("what") == what]


def asked(service: ServiceProcess, **headers: str) -> tuple[int, Message, bytes]:
    """One GET of the bundle."""
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    with urllib.request.urlopen(urllib.request.Request(service.url, headers=sent), timeout=10) as answer:
        return answer.status, answer.headers, answer.read()


def test_changed_line_travels_as_a_small_delta_over_restarts_of_the_gate(
    service: ServiceProcess, directory: Path
) -> None:
    with GateProcess.start(directory) as gate:
        first = source_of(gate, 1)["last_transfer"]
        assert first == {"kind": "whole", "bytes": version(directory, 1).stat().st_size} and first["bytes"] > 150_000
        assert service.publish(version(directory, 2)).returncode == 0
        second = source_of(gate, 2)
        assert second["last_transfer"]["kind"] == "delta" and second["last_transfer"]["bytes"] < 20_000
        assert (second["deltas_refused"], second["last_error"]) == (0, None)
        assert call(gate, "GET", LIST).status == 200
        address = read_config(directory)["listen"]["metrics"]
        with urllib.request.urlopen(f"http://{address}/metrics", timeout=5) as answer:
            text = answer.read().decode()
        assert 'tidegate_bundle_last_transfer_bytes{kind="whole"} 0.0' in text
        assert f'tidegate_bundle_last_transfer_bytes{{kind="delta"}} {second["last_transfer"]["bytes"]}.0' in text
    with GateProcess.start(directory) as gate:
        assert source_of(gate, 2)["last_transfer"] is None
        assert service.publish(version(directory, 3)).returncode == 0
        assert source_of(gate, 3)["last_transfer"]["kind"] == "delta"
    kept = next(directory.glob("**/bundles/main/bundle.tar.gz"))
    assert kept.read_bytes() == version(directory, 3).read_bytes()


def test_bundle_travels_whole_when_the_service_no_longer_has_what_the_gate_has(
    service: ServiceProcess, directory: Path
) -> None:
    with GateProcess.start(directory) as gate:
        source_of(gate, 1)
    assert service.publish(version(directory, 2)).returncode == 0
    service.stop()
    service.start()
    with GateProcess.start(directory) as gate:
        source = source_of(gate, 2)
        assert source["last_transfer"]["kind"] == "whole" and source["deltas_refused"] == 0
        # The restarted service knows version 2 again, so the next one is a delta.
        assert service.publish(version(directory, 3)).returncode == 0
        assert source_of(gate, 3)["last_transfer"]["kind"] == "delta"


def test_bundle_travels_whole_in_the_same_poll_when_the_gate_lost_its_archive(
    service: ServiceProcess, directory: Path
) -> None:
    with GateProcess.start(directory) as gate:
        source_of(gate, 1)
        next(directory.glob("**/bundles/main/bundle.tar.gz")).unlink()
        assert service.publish(version(directory, 2)).returncode == 0
        source = source_of(gate, 2)
        assert source["last_transfer"]["kind"] == "whole"
        assert (source["deltas_refused"], source["last_delta_refusal"]) == (1, "delta_base_missing")
        assert call(gate, "GET", LIST).status == 200
        assert eventually(lambda: "delta_base_missing" in gate.log.read_text(), 5)


def test_opa_gets_whole_bundles_when_it_polls_as_it_always_does(
    opa_path: Path, tmp_path: Path, service: ServiceProcess, directory: Path
) -> None:
    pem = (service.directory / "bundle.pub.pem").read_bytes()
    with opa_polling(opa_path, tmp_path / "opa", service, pem) as opa:
        address = f"{opa}/v1/data/windows/calendar/n02000"
        assert eventually(lambda: answered(address) == {"result": "version 1"}, 20)
        assert service.publish(version(directory, 2)).returncode == 0
        assert eventually(lambda: answered(address) == {"result": "version 2"}, 20)
    assert said(service, "delta_made") == []


def test_delta_goes_only_to_who_asks_for_it_and_inspect_reads_it_as_a_file(
    service: ServiceProcess, directory: Path, tmp_path: Path
) -> None:
    assert service.publish(version(directory, 2)).returncode == 0
    base = f'"sha256:{sha256_hex(version(directory, 1).read_bytes())}"'
    target = version(directory, 2).read_bytes()
    for headers in ({}, {"Prefer": "modes=snapshot,delta"}, {"Prefer": "modes=snapshot,delta;wait=1"}):
        status, _, body = asked(service, If_None_Match=base, **headers)
        assert (status, body) == (200, target)
    status, given, body = asked(service, If_None_Match=base, A_IM="tidegate-delta", Prefer="modes=snapshot;wait=1")
    assert (status, given["IM"], given["Delta-Base"]) == (226, "tidegate-delta", base)
    assert given["ETag"] == f'"sha256:{sha256_hex(target)}"' and given["Tidegate-Freshness"]
    (tmp_path / "delta").write_bytes(body)
    seen = json.loads(tidegate("bundle", "inspect", str(tmp_path / "delta"), "--json").stdout)
    assert (seen["kind"], seen["sequence"], seen["verified"]) == ("delta", 2, False)
    assert set(seen["edited"]) == {WINDOWS, ".signatures.json"} and seen["keyids"] == ["freshness"]
    done = tidegate(
        "bundle", "verify", str(tmp_path / "delta"), "--key", str(service.directory / "bundle.pub.pem"), "--json"
    )
    assert (done.returncode, json.loads(done.stdout)["error"]["code"]) == (1, "bundle_archive_invalid")
    assert [line["bundle"] for line in said(service, "delta_made")] == ["main"]
