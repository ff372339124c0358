"""Load for crash tests: senders that remember what was acknowledged, and a target that looks into the ledger itself.

Guarantees: every write and read is named once in a run, so that records, acknowledgements and what arrived can be matched
one to one; a sender ends when its gate is killed. Leaves killing and judging to the tests.
"""

from __future__ import annotations

import http.client
import json
import sqlite3
import threading
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from tests.e2e.counting import CountingTarget

SENDERS = 8
KEYED_EVERY = 4
WITNESSED_EVERY = 4
NEWEST_RECORDS = 512
ANSWER_SECONDS = 10.0

_NEWEST_NAMES = (
    "SELECT count(*) FROM (SELECT data FROM records ORDER BY id DESC LIMIT ?) "
    "WHERE instr(data, ?) > 0 AND instr(data, ?) > 0"
)


class WitnessTarget(CountingTarget):
    """Counts each write, and looks for its intent in the store at the moment the write arrives."""

    def __init__(self) -> None:
        super().__init__()
        self.database: Path | None = None
        self.witnessed = 0
        self.without_intent: list[str] = []
        self._noted = 0

    def note(self, path: str) -> None:
        """Count one write; every `WITNESSED_EVERY`-th is looked up as another process sees the file."""
        super().note(path)
        with self._lock:
            self._noted += 1
            due = self._noted % WITNESSED_EVERY == 0
        if not due or self.database is None:
            return
        found = self._has_intent(self.database, path.strip("/"))
        with self._lock:
            self.witnessed += 1
            if not found:
                self.without_intent.append(path)

    @staticmethod
    def _has_intent(database: Path, resource: str) -> bool:
        with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=ANSWER_SECONDS)) as link:
            values = (NEWEST_RECORDS, b'"kind":"intent"', f'"{resource}"'.encode())
            count: int = link.execute(_NEWEST_NAMES, values).fetchone()[0]
        return count > 0


@dataclass(frozen=True, slots=True)
class Sender:
    """One client: whose token it has, and whether it writes."""

    token: str
    writes: bool


@dataclass(frozen=True, slots=True)
class Keyed:
    """A write under an idempotency key that nobody has acknowledged yet."""

    token: str
    event: str


@dataclass(slots=True)
class Tally:
    """What the clients know at the end: acknowledged calls by id with what they named, and every answer's status."""

    writes: dict[str, str] = field(default_factory=dict)
    reads: dict[str, str] = field(default_factory=dict)
    answers: Counter[str] = field(default_factory=Counter)
    lost: list[Keyed] = field(default_factory=list)


def post_event(link: http.client.HTTPConnection, token: str, event: str, *, keyed: bool) -> http.client.HTTPResponse:
    """Send one event and read its whole answer. Raises `OSError`, `HTTPException`."""
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    if keyed:
        headers["Idempotency-Key"] = event
    link.request("POST", f"/c/webhook/events/{event}", json.dumps({"event": event}), headers)
    answer = link.getresponse()
    answer.read()
    return answer


class Load:
    """Clients that send until told to stop or until the gate is gone."""

    def __init__(self, url: str, senders: list[Sender], round_name: str, tally: Tally) -> None:
        self._address = urlsplit(url)
        self._round = round_name
        self._tally = tally
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self.ended = threading.Event()
        self._running = len(senders)
        self._threads = [
            threading.Thread(target=self._run, args=(number, sender), name=f"sender-{number}")
            for number, sender in enumerate(senders)
        ]

    def start(self) -> None:
        """Start sending."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Stop and wait for the senders."""
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    def connect(self) -> http.client.HTTPConnection:
        """A connection to the gate."""
        return http.client.HTTPConnection(str(self._address.hostname), self._address.port, timeout=ANSWER_SECONDS)

    def retry(self, lost: list[Keyed]) -> None:
        """Repeat writes that a crash left unanswered, each with its own key. Raises `OSError`, `HTTPException`."""
        with closing(self.connect()) as link:
            for keyed in lost:
                self._note(post_event(link, keyed.token, keyed.event, keyed=True), f"events/{keyed.event}", "again ")

    def _run(self, number: int, sender: Sender) -> None:
        with closing(self.connect()) as link:
            try:
                self._send(link, number, sender)
            except (OSError, http.client.HTTPException):
                pass  # the gate was killed under it: what is not acknowledged is not claimed
            finally:
                with self._lock:
                    self._running -= 1
                    if self._running == 0:
                        self.ended.set()

    def _send(self, link: http.client.HTTPConnection, number: int, sender: Sender) -> None:
        count = 0
        while not self._stopping.is_set():
            name = f"{self._round}-{number}-{count}"
            count += 1
            if sender.writes:
                self._write(link, sender, name, keyed=count % KEYED_EVERY == 0)
                continue
            link.request(
                "GET",
                f"/c/servicenow/api/now/table/incident/{name}",
                headers={"Authorization": f"Bearer {sender.token}"},
            )
            answer = link.getresponse()
            answer.read()
            self._note(answer, name, "read ")

    def _write(self, link: http.client.HTTPConnection, sender: Sender, name: str, *, keyed: bool) -> None:
        try:
            answer = post_event(link, sender.token, name, keyed=keyed)
        except (OSError, http.client.HTTPException):
            if keyed:
                with self._lock:
                    self._tally.lost.append(Keyed(sender.token, name))
            raise
        self._note(answer, f"events/{name}", "write ")

    def _note(self, answer: http.client.HTTPResponse, named: str, kind: str) -> None:
        with self._lock:
            self._tally.answers[f"{kind}{answer.status}"] += 1
            if answer.status == 200:
                acknowledged = self._tally.reads if kind == "read " else self._tally.writes
                acknowledged[str(answer.headers["Tidegate-Call"])] = named
