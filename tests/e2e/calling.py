"""One call over a socket as a test makes it, and waiting that ends."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from tests.e2e.harness import GateProcess, StartFailed, tidegate
from tests.e2e.raw import Answer, exchange, request

LIST = "/c/servicenow/api/now/table/incident"
JSON_TYPE = {"Content-Type": "application/json"}
WAIT_SECONDS = 30.0
TAIL_RECORDS = 100
POLL_SECONDS = 0.05

T = TypeVar("T")


def host(gate: GateProcess) -> str:
    """What a client of this gate puts into ``Host``."""
    return gate.url.removeprefix("http://")


def call(
    gate: GateProcess,
    method: str,
    target: str,
    body: object = None,
    *,
    token: str = "",
    headers: dict[str, str] | None = None,
) -> Answer:
    """One call as the triage bot, or with another token."""
    bearer = token or gate.token("triage-bot", "triage")
    sent = {
        "Host": host(gate),
        "Authorization": f"Bearer {bearer}",
        **(JSON_TYPE if body is not None else {}),
        **(headers or {}),
    }
    payload = json.dumps(body).encode() if body is not None else None
    return exchange(gate.url, request(method, target, sent, payload), hold_open=True)


def recorded(gate: GateProcess, answer: Answer) -> list[dict[str, Any]]:
    """The newest records of the call that an answer names, oldest first."""
    done = tidegate("ledger", "tail", "-n", str(TAIL_RECORDS), "--json", "--config", str(gate.config))
    if done.returncode:
        raise StartFailed(f"tidegate ledger tail: {done.stdout}{done.stderr}")
    named = answer.headers["tidegate-call"]
    return [record for record in json.loads(done.stdout)["items"] if record["ids"].get("call") == named]


def until(what: str, attempt: Callable[[], T | None], *, seconds: float = WAIT_SECONDS) -> T:
    """The first thing that `attempt` gives; raises when it gave nothing for `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        found = attempt()
        if found is not None:
            return found
        if time.monotonic() >= deadline:
            raise AssertionError(f"{what}: not within {seconds:g} s")
        time.sleep(POLL_SECONDS)


@contextmanager
def meanwhile(act: Callable[[], Answer]) -> Iterator[list[Answer]]:
    """Make a call beside the block; its answer is in the list once the block has ended."""
    answers: list[Answer] = []
    thread = threading.Thread(target=lambda: answers.append(act()), name="meanwhile")
    thread.start()
    try:
        yield answers
    finally:
        thread.join(WAIT_SECONDS + POLL_SECONDS)
    if not answers:
        raise AssertionError("the call beside got no answer")
