"""R1: `kill -9` on the writer, again and again, on one file: no acknowledged record is ever lost."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from gateway.ledger.verify import LogVerifier
from gateway.store.offline_driver import OfflineLedger

ROOT = Path(__file__).resolve().parents[2]
SHORT_ROUNDS = 20
LONG_ROUNDS = int(os.environ.get("TIDEGATE_SOAK_ROUNDS", "200"))
LONGEST_LIFE_SECONDS = 0.15


def one_round(path: Path, number: int, seconds: float) -> list[list[str]]:
    """Let a writer live for a moment, kill it, and return what it had acknowledged on whole lines."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.soak.ledger_writer_process", str(path), str(number)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stdout is not None
    with process.stdout as output:
        first = output.readline()
        killer = threading.Timer(seconds, os.kill, (process.pid, signal.SIGKILL))
        killer.start()
        rest = output.read()
        killer.join()
    assert process.wait() == -signal.SIGKILL, f"round {number} ended by itself after {first!r}"
    assert first == b"ready\n"
    return [line.split() for line in rest.decode().split("\n")[:-1]]


def check_store(path: Path, acknowledged: dict[tuple[str, int], tuple[str, str]]) -> int:
    """Verify each log and find every acknowledged record at its place; how many records there are."""
    found: dict[tuple[str, int], str] = {}
    with OfflineLedger(path) as ledger:
        for head in ledger.heads():
            verifier = LogVerifier(head.log)
            for seq, data in ledger.records(head.log):
                verifier.feed(data, seq)
                found[(head.log[0], seq)] = data.split(b'"call":"')[1].split(b'"')[0].decode()
            verifier.finish(head)
    lost = [place for place, (call, _hash) in acknowledged.items() if found.get(place) != call]
    assert lost == []
    return len(found)


def run_rounds(path: Path, rounds: int) -> None:
    """Kill `rounds` writers on one file, checking after each tenth and at the end."""
    chance = random.Random(7)
    acknowledged: dict[tuple[str, int], tuple[str, str]] = {}
    for number in range(rounds):
        for tenant, seq, digest, call in one_round(path, number, chance.uniform(0, LONGEST_LIFE_SECONDS)):
            assert (tenant, int(seq)) not in acknowledged
            acknowledged[(tenant, int(seq))] = (call, digest)
        if number % 10 == 9:
            check_store(path, acknowledged)
    assert len(acknowledged) >= rounds
    assert check_store(path, acknowledged) >= len(acknowledged)


def test_acknowledged_records_survive_when_the_writer_is_killed_20_times(tmp_path: Path) -> None:
    run_rounds(tmp_path / "state" / "tidegate.db", SHORT_ROUNDS)


@pytest.mark.soak
@pytest.mark.timeout(7200)
def test_acknowledged_records_survive_when_the_writer_is_killed_often(tmp_path: Path) -> None:
    run_rounds(tmp_path / "state" / "tidegate.db", LONG_ROUNDS)
