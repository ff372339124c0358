"""`kill -9` under load: acknowledged calls are recorded, the chain holds, nothing was sent without a durable intent."""

from __future__ import annotations

import http.client
import json
import random
import sqlite3
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.e2e.counting import CountingTarget
from tests.e2e.harness import GateProcess, edit_config, init_directory, tidegate

SENDERS = 6
SHORT_ROUNDS = 3
LONG_ROUNDS = 200
ROUND_SECONDS = (0.2, 1.2)
SEED = 20_261_121


class Load:
    """Senders that post unique events until told to stop, and remember which were acknowledged."""

    def __init__(self, url: str, token: str, round_name: str) -> None:
        self._address = urlsplit(url)
        self._token = token
        self._round = round_name
        self._ended = threading.Event()
        self.acknowledged: dict[str, str] = {}
        self._threads = [
            threading.Thread(target=self._send, args=(number,), name=f"sender-{number}") for number in range(SENDERS)
        ]

    def start(self) -> None:
        """Start sending."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Stop and wait for the senders."""
        self._ended.set()
        for thread in self._threads:
            thread.join()

    def _send(self, number: int) -> None:
        headers = {"Authorization": f"Bearer {self._token}", "Content-Type": "application/json"}
        count = 0
        link = http.client.HTTPConnection(str(self._address.hostname), self._address.port, timeout=10)
        try:
            while not self._ended.is_set():
                event = f"{self._round}-{number}-{count}"
                count += 1
                link.request("POST", f"/c/webhook/events/{event}", json.dumps({"event": event}), headers)
                answer = link.getresponse()
                answer.read()
                if answer.status == 200:
                    self.acknowledged[str(answer.headers["Tidegate-Call"])] = f"events/{event}"
        except (OSError, http.client.HTTPException):
            return  # the gate was killed under it: what is not acknowledged is not claimed
        finally:
            link.close()


def _records(directory: Path) -> list[dict[str, object]]:
    database = directory / "state" / "tidegate.db"
    with sqlite3.connect(f"file:{database}?mode=ro", uri=True) as link:
        rows = link.execute("SELECT data FROM records ORDER BY seq").fetchall()
    link.close()
    return [json.loads(row[0]) for row in rows]


def _crash_rounds(directory: Path, rounds: int) -> None:
    chance = random.Random(SEED)
    acknowledged: dict[str, str] = {}
    init_directory(directory)
    with CountingTarget.start() as target:
        edit_config(directory, {"instances": {"webhook": {"base_url": f"http://127.0.0.1:{target.port}"}}})
        for number in range(rounds):
            gate = GateProcess.spawn(directory)
            load = Load(gate.url, gate.token("dev", "developer"), f"r{number}")
            load.start()
            time.sleep(chance.uniform(*ROUND_SECONDS))
            gate.kill()
            load.stop()
            acknowledged |= load.acknowledged
        with GateProcess.start(directory):
            pass
        sent = target.seen()
    verified = tidegate("ledger", "verify", "--config", str(directory / "tidegate.yaml"))
    assert verified.returncode == 0, verified.stdout + verified.stderr
    _check(_records(directory), acknowledged, {path.strip("/"): count for path, count in sent.items()})


def _check(records: list[dict[str, object]], acknowledged: dict[str, str], sent: dict[str, int]) -> None:
    intents: dict[str, str] = {}
    outcomes: set[str] = set()
    for record in records:
        ids, action = record.get("ids"), record.get("action")
        if not isinstance(ids, dict) or not isinstance(action, dict) or "resource" not in action:
            continue
        if record["kind"] == "intent":
            intents[str(ids["call"])] = str(action["resource"]["id"])
        elif record["kind"] == "outcome":
            outcomes.add(str(ids["call"]))
    assert acknowledged, "the load got nothing through: the test tested nothing"
    assert [call for call in acknowledged if call not in intents or call not in outcomes] == []
    assert {call: path for call, path in acknowledged.items() if intents[call] != path} == {}
    durable = set(intents.values())
    assert [path for path in sent if path not in durable] == []
    assert [path for path, count in sent.items() if count > 1] == []


@pytest.mark.timeout(240)
def test_ledger_keeps_every_acknowledged_call_when_killed_under_load(tmp_path: Path) -> None:
    _crash_rounds(tmp_path / "gate", SHORT_ROUNDS)


@pytest.mark.soak
@pytest.mark.timeout(7200)
def test_ledger_keeps_every_acknowledged_call_when_killed_200_times(tmp_path: Path) -> None:
    _crash_rounds(tmp_path / "gate", LONG_ROUNDS)
