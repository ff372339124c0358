"""One call over a socket as a test makes it, and waiting that ends."""

from __future__ import annotations

import json
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar
from urllib.parse import urlencode, urlsplit

from tests.e2e.harness import GateProcess, StartFailed, read_config, tidegate
from tests.e2e.raw import Answer, exchange, request

LIST = "/c/servicenow/api/now/table/incident"
JSON_TYPE = {"Content-Type": "application/json"}
FORM_TYPE = {"Content-Type": "application/x-www-form-urlencoded"}
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


def upload_target(gate: GateProcess, tenant: str = "acme") -> str:
    """An upload URL's target at the gate, as Slack's first step gives it."""
    form = urlencode({"filename": "a.txt", "length": 5}).encode()
    token = gate.token("dev", "developer", tenant=tenant)
    sent = {"Host": host(gate), "Authorization": f"Bearer {token}", **FORM_TYPE}
    answer = exchange(gate.url, request("POST", "/c/slack/api/files.getUploadURLExternal", sent, form), hold_open=True)
    if answer.status != 200:
        raise AssertionError(answer.body)
    parts = urlsplit(answer.json()["upload_url"])
    if parts.netloc != host(gate):
        raise AssertionError(parts.netloc)
    return f"{parts.path}?{parts.query}"


def recorded(gate: GateProcess, answer: Answer) -> list[dict[str, Any]]:
    """The newest records of the call that an answer names, oldest first."""
    done = tidegate("ledger", "tail", "-n", str(TAIL_RECORDS), "--json", "--config", str(gate.config))
    if done.returncode:
        raise StartFailed(f"tidegate ledger tail: {done.stdout}{done.stderr}")
    named = answer.headers["tidegate-call"]
    return [record for record in json.loads(done.stdout)["items"] if record["ids"].get("call") == named]


def logged(gate: GateProcess, named: str) -> dict[str, Any] | None:
    """The first whole log line that holds a text, a call's id say, once it is there."""
    for text in gate.log.read_text(encoding="utf-8").splitlines():
        if named in text and text.endswith("}"):
            line: dict[str, Any] = json.loads(text)
            return line
    return None


def metrics(gate: GateProcess) -> dict[str, float]:
    """Every series of the gate's metrics, with its labels as they are written."""
    address = read_config(gate.directory)["listen"]["metrics"]
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as answer:
        lines = [line for line in answer.read().decode().splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}


def counted(gate: GateProcess, family: str, code: str, action: str = "") -> float:
    """How often a family counts a code, of one action if it is named."""
    labels = [f'code="{code}"', *([f'action="{action}"'] if action else [])]
    series = [(name, value) for name, value in metrics(gate).items() if name.startswith(family + "{")]
    return sum(value for name, value in series if all(label in name for label in labels))


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


@contextmanager
def unwritable(gate: GateProcess) -> Iterator[None]:
    """The ledger's file has a second name, under which somebody else might change it: the gate writes nothing more."""
    file = gate.directory / "state" / "tidegate.db"
    second = file.with_name("second.db")
    second.hardlink_to(file)
    try:
        yield
    finally:
        second.unlink()
