"""A gate that follows a bundle service: it stops when it is cut off, resumes by itself, and never goes back."""

from __future__ import annotations

import json
import os
import signal
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from bundles.canonical import sha256_hex
from bundles.freshness import BundleIdentity, sign_statement
from bundles.keys import load_private_key
from tests.e2e.bundle_services import (
    LEASE_SECONDS,
    ServiceProcess,
    eventually,
    follow,
    lying_service,
    resigned,
    spawn_stale,
)
from tests.e2e.calling import LIST, call, until
from tests.e2e.harness import (
    GateProcess,
    StandIns,
    edit_config,
    init_directory,
    point_at_stand_ins,
    read_config,
    tidegate,
)

SLACK_SECONDS = 1.0


@pytest.fixture
def directory(tmp_path: Path, stand_ins: StandIns) -> Path:
    """A starter directory in front of the stand-ins."""
    made = init_directory(tmp_path / "gate")
    point_at_stand_ins(made, stand_ins)
    return made


@pytest.fixture
def service(tmp_path: Path, directory: Path) -> Iterator[ServiceProcess]:
    """A service whose statements hold a few seconds, with the starter bundle; the gate is set to follow it."""
    made = ServiceProcess.prepare(tmp_path / "service", directory / "keys" / "bundle.pem", ttl_seconds=LEASE_SECONDS)
    with made.running():
        assert made.publish(directory / "bundle.tar.gz").returncode == 0
        follow(directory, made)
        yield made


def enforced(gate: GateProcess) -> dict[str, Any] | None:
    """The bundle as `/v1/enforcement` shows it; `None` while no policy can allow the question."""
    answer = call(gate, "GET", "/v1/enforcement", token=gate.token("ops", "operator"))
    if answer.status != 200:
        return None
    bundle: dict[str, Any] = answer.json()["bundles"][0]
    return bundle


def code(gate: GateProcess) -> str:
    """How an ordinary read ends."""
    answer = call(gate, "GET", LIST)
    return "ok" if answer.status == 200 else str(answer.json()["code"])


def newer(service: ServiceProcess, directory: Path, sequence: int) -> Path:
    """The starter bundle under a higher sequence, published."""
    key = directory / "keys" / "bundle.pem"
    made = resigned(directory / "bundle.tar.gz", key, directory / f"{sequence}.tar.gz", sequence=sequence)
    assert service.publish(made).returncode == 0
    return made


def test_calls_stop_at_the_end_of_the_lease_and_resume_when_the_service_is_back(
    service: ServiceProcess, directory: Path
) -> None:
    with GateProcess.start(directory) as gate:
        assert code(gate) == "ok"
        bundle = enforced(gate)
        assert bundle is not None and 0 < bundle["lease_remaining_seconds"] <= LEASE_SECONDS
        service.stop()
        cut = time.monotonic()
        last_allowed = cut

        def stopped() -> str | None:
            nonlocal last_allowed
            began = time.monotonic()
            ended = code(gate)
            if ended == "ok":
                last_allowed = began
                return None
            return ended

        assert until("calls stop", stopped) == "policy_stale"
        assert last_allowed - cut <= LEASE_SECONDS + SLACK_SECONDS
        assert until("not ready", lambda: True if "freshness" in ready(gate) else None)
        service.start()
        until("calls resume", lambda: True if code(gate) == "ok" else None)
        assert not ready(gate)


def ready(gate: GateProcess) -> list[str]:
    """What readiness lacks."""
    missing: list[str] = call(gate, "GET", "/health/ready").json()["missing"]
    return missing


def test_published_bundle_comes_into_force_without_a_restart(service: ServiceProcess, directory: Path) -> None:
    with GateProcess.start(directory) as gate:
        newer(service, directory, 2)
        bundle = until("sequence 2", lambda: found if (found := enforced(gate)) and found["sequence"] == 2 else None)
        assert bundle["source"]["last_error"] is None and bundle["lease_remaining_seconds"] > 0


def test_published_bundle_comes_at_once_when_the_question_is_held(service: ServiceProcess, directory: Path) -> None:
    statements_hold(service, 80)
    follow(directory, service, lease_seconds=80, poll_seconds=20)
    with GateProcess.start(directory) as gate:
        # The first statement came with the start; the next question is held for 20 seconds, or until there is news.
        until("a held question", lambda: True if held(gate) else None)
        newer(service, directory, 2)
        began = time.monotonic()
        until("sequence 2", lambda: True if (b := enforced(gate)) and b["sequence"] == 2 else None)
        assert time.monotonic() - began < 10


def held(gate: GateProcess) -> bool:
    """Whether a question lies at the service now: asked, and not answered since."""
    bundle = enforced(gate)
    return bundle is not None and bundle["source"]["asked_at"] > bundle["source"]["answered_at"]


def statements_hold(service: ServiceProcess, seconds: int) -> None:
    """Start the service anew with a longer time to live."""
    path = service.directory / "service.yaml"
    path.write_text(path.read_text().replace(f"ttl_seconds: {LEASE_SECONDS}", f"ttl_seconds: {seconds}"))
    service.stop()
    service.start()


def reloads(gate: GateProcess) -> list[str]:
    """How each reload so far ended."""
    lines = [line for line in gate.log.read_text().splitlines() if '"reload' in line]
    return [json.loads(line)["what"] for line in lines]


def test_reload_needs_the_service_only_when_what_is_trusted_changed(service: ServiceProcess, directory: Path) -> None:
    statements_hold(service, 80)
    follow(directory, service, lease_seconds=80, poll_seconds=5)
    with GateProcess.start(directory) as gate:
        service.stop()
        edit_config(directory, {"limits": {"calls_max": 77}})
        os.kill(gate.process.pid, signal.SIGHUP)
        assert until("the first reload", lambda: reloads(gate) or None) == ["reloaded"]
        bundle = read_config(directory)["bundles"][0]
        edit_config(directory, {"bundles": [{**bundle, "audience": "another"}]})
        os.kill(gate.process.pid, signal.SIGHUP)
        ended = until("the second reload", lambda: found if len(found := reloads(gate)) > 1 else None)
        assert ended == ["reloaded", "reload_refused"]
        assert code(gate) == "ok"
        service.start()
        edit_config(directory, {"bundles": [{**bundle, "poll_seconds": 1}]})
        os.kill(gate.process.pid, signal.SIGHUP)
        ended = until("the third reload", lambda: found if len(found := reloads(gate)) > 2 else None)
        assert ended[2] == "reloaded" and code(gate) == "ok"
        newer(service, directory, 2)
        until("sequence 2", lambda: True if (b := enforced(gate)) and b["sequence"] == 2 else None)


def test_captured_older_bundle_is_refused_also_after_a_restart(service: ServiceProcess, directory: Path) -> None:
    older = (directory / "bundle.tar.gz").read_bytes()
    identity = BundleIdentity("main", f"sha256:{sha256_hex(older)}", 1)
    online = load_private_key(service.directory / "freshness.pem")

    def statement() -> str:
        return sign_statement(identity, key=online, keyid="freshness", now=int(time.time()), ttl_seconds=LEASE_SECONDS)

    with GateProcess.start(directory) as gate:
        newer(service, directory, 2)
        until("sequence 2", lambda: True if (found := enforced(gate)) and found["sequence"] == 2 else None)
        service.stop()
        with lying_service(service.port, older, statement) as conditions:
            until("the lie was refused", lambda: True if "bundle_rollback" in gate.log.read_text() else None)
            until("calls stop", lambda: True if code(gate) == "policy_stale" else None)
    with lying_service(service.port, older, statement) as conditions:
        again = spawn_stale(directory)
        try:
            asked = len(conditions)
            until("the lie was told again", lambda: True if len(conditions) > asked + 1 else None)
            assert code(again) == "policy_stale"
        finally:
            again.stop()
    with service.running():
        restored = spawn_stale(directory)
        try:
            until("calls resume", lambda: True if code(restored) == "ok" else None)
            bundle = enforced(restored)
            assert bundle is not None and bundle["sequence"] == 2
        finally:
            restored.stop()


def test_restart_decides_with_the_kept_bundle_only_while_its_lease_holds(
    service: ServiceProcess, directory: Path, tmp_path: Path
) -> None:
    follow(directory, service, lease_seconds=30)
    statements_hold(service, 30)
    with GateProcess.start(directory) as gate:
        assert code(gate) == "ok"
    service.stop()
    with GateProcess.start(directory) as gate:
        assert code(gate) == "ok"
        until("the lease ends", lambda: True if code(gate) == "policy_stale" else None)
    again = spawn_stale(directory)
    try:
        assert code(again) == "policy_stale"
    finally:
        again.stop()


def test_gate_does_not_start_when_no_bundle_was_ever_fetched_and_none_comes(
    service: ServiceProcess, directory: Path
) -> None:
    checked = tidegate("gateway", "check", "--config", str(directory / "tidegate.yaml"), "--json")
    assert (checked.returncode, "bundle_missing" in checked.stdout) == (1, True)
    service.stop()
    done = tidegate("gateway", "run", "--config", str(directory / "tidegate.yaml"), "--json")
    assert (done.returncode, "bundle_service_unreachable" in done.stdout) == (3, True)


def test_epoch_recovers_from_a_stolen_key_that_signed_the_highest_sequence(
    service: ServiceProcess, directory: Path
) -> None:
    key = directory / "keys" / "bundle.pem"
    with GateProcess.start(directory) as gate:
        newer(service, directory, 2**53 - 1)
        until("the stolen sequence", lambda: True if (b := enforced(gate)) and b["sequence"] > 2 else None)
        # A new key, epoch 1, sequence from 1: at the service, then at the gate, with a reload.
        done = tidegate("bundle", "freshness-key", "--out", str(directory / "keys" / "recovered.pem"))
        assert done.returncode == 0
        key = directory / "keys" / "recovered.pem"
        trusted = [{"keyid": "recovered", "algorithm": "ES256", "key": f"file:{directory}/keys/recovered.pub.pem"}]
        recover(service, trusted)
        archive = resigned(
            directory / "bundle.tar.gz", key, directory / "anew.tar.gz", sequence=1, epoch=1, keyid="recovered"
        )
        assert service.publish(archive).returncode == 0
        bundle = read_config(directory)["bundles"][0]
        keys = [{"keyid": "recovered", "algorithm": "ES256", "scope": "write", "key": "file:keys/recovered.pub.pem"}]
        edit_config(directory, {"bundles": [{**bundle, "epoch": 1, "trusted_keys": keys}]})
        os.kill(gate.process.pid, signal.SIGHUP)
        found = until("epoch 1", lambda: b if (b := enforced(gate)) and b["epoch"] == 1 else None)
        assert (found["sequence"], found["keyids"]) == (1, ["recovered"])
        assert code(gate) == "ok"
    with GateProcess.start(directory) as gate:
        assert code(gate) == "ok"


def recover(service: ServiceProcess, trusted: list[dict[str, str]]) -> None:
    """Start the service anew with epoch 1 and other keys."""
    service.stop()
    path = service.directory / "service.yaml"
    document = yaml.safe_load(path.read_text())
    document["bundles"][0].update({"epoch": 1, "trusted_keys": trusted})
    path.write_text(yaml.safe_dump(document))
    service.start()


def test_metrics_show_the_lease_and_what_was_refused(service: ServiceProcess, directory: Path) -> None:
    with GateProcess.start(directory) as gate:
        service.stop()
        until("a failure", lambda: True if "bundle_refused" in gate.log.read_text() else None)
        address = read_config(directory)["listen"]["metrics"]
        text = eventually(lambda: scraped(f"http://{address}/metrics"), 10)
        assert "tidegate_bundle_lease_remaining_seconds" in text and "tidegate_bundle_sequence 1.0" in text
        assert 'tidegate_bundle_refused_total{code="bundle_service_unreachable"}' in text


def scraped(url: str) -> str:
    """The metrics as text."""
    with urllib.request.urlopen(url, timeout=5) as answer:
        return str(answer.read().decode())
