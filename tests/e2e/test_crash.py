"""`kill -9` under load: acknowledged calls are recorded, the chain holds, nothing was sent without a durable intent."""

from __future__ import annotations

import json
import os
import random
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.harness import GateProcess, child_environment, edit_config, init_directory, tidegate
from tests.e2e.hostile import HostileUpstream
from tests.soak.gate_load import SENDERS, Load, Sender, Tally, WitnessTarget

SHORT_ROUNDS = 3
LONG_ROUNDS = int(os.environ.get("TIDEGATE_SOAK_ROUNDS", "200"))
ROUND_SECONDS = (0.1, 1.2)
START_SECONDS = (0.0, 1.5)
KILLED_IN_START_EVERY = 3
SEED = 20_261_121
TENANTS = ("acme", "globex")


@dataclass(slots=True)
class Ledger:
    """What the ledger says, by call: the resource an intent names, how calls ended, which records repeat an answer."""

    intents: dict[str, str] = field(default_factory=dict)
    outcomes: dict[str, str] = field(default_factory=dict)
    reads: dict[str, str] = field(default_factory=dict)
    replays: dict[str, str] = field(default_factory=dict)
    kinds: Counter[str] = field(default_factory=Counter)
    recovered: int = 0

    @classmethod
    def read(cls, directory: Path) -> Ledger:
        """Read every record of the store file."""
        ledger = cls()
        for record in _records(directory):
            ledger._take(record)
        return ledger

    def _take(self, record: dict[str, Any]) -> None:
        kind, action = record["kind"], record["action"]
        self.kinds[kind] += 1
        call = record["ids"].get("call", "")
        if kind == "intent":
            assert call not in self.intents, "two intents of one call"
            self.intents[call] = action["resource"]["id"]
        elif kind == "outcome":
            assert call not in self.outcomes, "two outcomes of one call"
            self.outcomes[call] = str(action["status"] or action["code"])
            self.recovered += record["actor"] == "gate:recovery"
        elif kind == "call" and "replay_of" in record["digests"]:
            self.replays[call] = record["digests"]["replay_of"]
        elif kind == "call":
            self.reads[call] = action["resource"]["id"]


def _records(directory: Path) -> Iterator[dict[str, Any]]:
    with closing(sqlite3.connect(f"file:{directory}/state/tidegate.db?mode=ro", uri=True)) as link:
        for row in link.execute("SELECT data FROM records ORDER BY log_id, seq"):
            yield json.loads(row[0])


def _token(directory: Path, tenant: str) -> str:
    wanted = ["--subject", "loader", "--tenant", tenant, "--workspace", "ops", "--environment", "test", "--ttl", "12h"]
    roles = ["--role", "developer", "--role", "triage"]
    done = tidegate("token", "--config", str(directory / "tidegate.yaml"), *wanted, *roles)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def _kill_in_start(directory: Path, seconds: float) -> None:
    """Start a gate and kill it before, while or just after it marks what an earlier one left open."""
    command = [sys.executable, "-m", "cli.main", "gateway", "run", "--config", str(directory / "tidegate.yaml")]
    with (directory / "gate.log").open("ab") as output:
        process = subprocess.Popen(command, cwd=directory, env=child_environment(), stdout=output, stderr=output)
    try:
        status = process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return
    raise AssertionError(f"the gate ended by itself with {status}")


def _round(directory: Path, number: int, senders: list[Sender], seconds: float, tally: Tally) -> None:
    """Start, repeat what the last crash left unanswered, load, kill at the given moment."""
    gate = GateProcess.spawn(directory)
    try:
        load = Load(gate.url, senders, f"r{number}", tally)
        lost, tally.lost = tally.lost, []
        load.retry(lost)
        load.start()
        died = load.ended.wait(seconds)
        status = gate.process.poll()
    finally:
        gate.kill()
    load.stop()
    assert not died, f"round {number}: the load ended before the gate was killed; the gate's status was {status}"


def _crash_rounds(directory: Path, rounds: int) -> dict[str, object]:
    chance = random.Random(SEED)
    tally = Tally()
    init_directory(directory)
    with WitnessTarget.start() as target, HostileUpstream.start() as readable:
        assert isinstance(target, WitnessTarget)
        target.database = directory / "state" / "tidegate.db"
        here = {"webhook": target.port, "servicenow": readable.port}
        edit_config(
            directory, {"instances": {name: {"base_url": f"http://127.0.0.1:{port}"} for name, port in here.items()}}
        )
        tokens = [_token(directory, tenant) for tenant in TENANTS]
        senders = [Sender(tokens[number % len(tokens)], number < SENDERS // 2) for number in range(SENDERS)]
        for number in range(rounds):
            _round(directory, number, senders, chance.uniform(*ROUND_SECONDS), tally)
            if number % KILLED_IN_START_EVERY == 0:
                _kill_in_start(directory, chance.uniform(*START_SECONDS))
        with GateProcess.start(directory) as last:
            lost, tally.lost = tally.lost, []
            Load(last.url, [], "end", tally).retry(lost)
        sent = Counter({path.strip("/"): count for path, count in target.seen().items()})
        witnessed, without_intent = target.witnessed, target.without_intent
    verified = tidegate("ledger", "verify", "--config", str(directory / "tidegate.yaml"))
    assert verified.returncode == 0, verified.stdout + verified.stderr
    assert without_intent == []
    ledger = Ledger.read(directory)
    _check(ledger, tally, sent)
    return {
        "rounds": rounds,
        "acknowledged_writes": len(tally.writes),
        "acknowledged_reads": len(tally.reads),
        "answers": dict(sorted(tally.answers.items())),
        "writes_at_stand_in": sent.total(),
        "looked_up_on_arrival": witnessed,
        "intents": len(ledger.intents),
        "unknown_after_crash": ledger.recovered,
        "answers_repeated": len(ledger.replays),
        "records": dict(sorted(ledger.kinds.items())),
    }


def _check(ledger: Ledger, tally: Tally, sent: Counter[str]) -> None:
    """Match what clients were told, what the ledger holds and what arrived."""
    assert tally.writes, "the load got nothing through: the test tested nothing"
    assert tally.reads, "the load got nothing through: the test tested nothing"
    assert [call for call, name in tally.reads.items() if ledger.reads.get(call) != name] == []
    first = {call: ledger.replays.get(call, call) for call in tally.writes}
    assert [call for call, name in tally.writes.items() if ledger.intents.get(first[call]) != name] == []
    assert [call for call in tally.writes if ledger.outcomes.get(first[call]) != "200"] == []
    assert [name for name in tally.writes.values() if sent[name] != 1] == []
    durable = set(ledger.intents.values())
    assert [name for name in sent if name not in durable] == []
    assert [name for name, count in sent.items() if count > 1] == []
    assert ledger.intents.keys() == ledger.outcomes.keys()


@pytest.mark.timeout(240)
def test_ledger_keeps_every_acknowledged_call_when_killed_under_load(tmp_path: Path) -> None:
    _crash_rounds(tmp_path / "gate", SHORT_ROUNDS)


@pytest.mark.soak
@pytest.mark.timeout(7200)
def test_ledger_keeps_every_acknowledged_call_when_killed_200_times(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    figures = _crash_rounds(tmp_path / "gate", LONG_ROUNDS)
    with capsys.disabled():
        print(json.dumps(figures, indent=2))
