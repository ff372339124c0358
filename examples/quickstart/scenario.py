"""The triage scenario: a read, a forbidden write, a held write and its approval, and the ledger's proof.

Every step checks what it tells; anything else raises `WentOtherwise`.
"""

from __future__ import annotations

import http.client
import json
import threading
import time
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from examples.quickstart.processes import Processes

TABLE = "/c/servicenow/api/now/table/incident"
HOLD_SECONDS = 30


class WentOtherwise(Exception):
    """A step did not end as the scenario says."""


@dataclass(frozen=True, slots=True)
class Answered:
    """Status, headers (lower case) and JSON body of one answer."""

    status: int
    headers: dict[str, str]
    body: Any


class Scenario:
    """Plays the story once, as two subjects whose tokens are made with it. Raises `StartFailed` without them."""

    def __init__(self, processes: Processes) -> None:
        self._processes = processes
        self._note = f"looked at by triage {time.time_ns()}"
        self._bot = processes.token("triage-bot", "triage")
        self._person = processes.token("alice", "approver")

    def play(self) -> None:
        """All steps, in order. Raises `WentOtherwise`."""
        incident = self._read(self._bot)
        self._denied(self._bot, incident)
        self._held_and_approved(self._bot, self._person, incident)
        self._once(self._bot, incident)
        self._ledger()

    def _read(self, bot: str) -> str:
        print("1. An agent reads incidents of ServiceNow. It knows the gate's address and a Tidegate token, no secret.")
        answer = self._send("GET", f"{TABLE}?sysparm_limit=2", bot)
        self._expect(answer, 200, "the read")
        first = answer.body["result"][0]
        print(f"   ALLOWED. First incident: {first['number']} “{first['short_description']}”.\n")
        return str(first["sys_id"])

    def _denied(self, bot: str, incident: str) -> None:
        print("2. The agent tries to delete that incident.")
        answer = self._send("DELETE", f"{TABLE}/{incident}", bot)
        self._expect(answer, 403, "the delete")
        reason = answer.body["reasons"][0]
        print(f"   DENIED by the signed policy: {reason['message']} (reason {reason['code']}). Nothing was sent.\n")

    def _held_and_approved(self, bot: str, person: str, incident: str) -> None:
        print("3. The agent writes a note to it. This is production, so the policy says a person must approve.")
        answers: list[Answered] = []
        waiting = threading.Thread(target=lambda: answers.append(self._write(bot, incident, HOLD_SECONDS)))
        waiting.start()
        approval = self._pending(person)
        print(f"   HELD. The agent's request waits; approval {approval} is open.")
        print(f"   $ tidegate approvals approve {approval}")
        done = self._processes.tidegate("approvals", "approve", approval, "--reason", "agreed", token=person)
        if done.returncode:
            raise WentOtherwise(f"the vote: {done.stderr.strip()}")
        waiting.join(HOLD_SECONDS + 10)
        if not answers:
            raise WentOtherwise("the held call got no answer")
        self._expect(answers[0], 200, "the approved write")
        print(f"   APPROVED by alice and SENT: ServiceNow answered {answers[0].status}.\n")

    def _pending(self, person: str) -> str:
        deadline = time.monotonic() + HOLD_SECONDS
        while time.monotonic() < deadline:
            answer = self._send("GET", "/v1/approvals?state=pending", person)
            self._expect(answer, 200, "the list of approvals")
            for item in answer.body["items"]:
                if self._note in json.dumps(item["arguments"], ensure_ascii=False):
                    return str(item["id"])
            time.sleep(0.05)
        raise WentOtherwise("no approval was opened")

    def _once(self, bot: str, incident: str) -> None:
        print("4. The agent sends exactly the same write again. An approval is good once.")
        answer = self._write(bot, incident, 0)
        self._expect(answer, 403, "the repeat")
        if answer.body["code"] != "approval_required":
            raise WentOtherwise(f"the repeat ended as {answer.body['code']}")
        print("   HELD again: the used approval does not count twice.\n")

    def _ledger(self) -> None:
        print("5. Everything above is in the ledger, each record chained to the one before it.")
        print("   $ tidegate ledger verify")
        done = self._processes.tidegate("ledger", "verify", "--config", str(self._processes.config))
        if done.returncode:
            raise WentOtherwise(f"the ledger does not verify: {(done.stdout + done.stderr).strip()}")
        for line in done.stdout.strip().splitlines():
            print(f"   {line}")
        print("   VERIFIED.")

    def _write(self, bot: str, incident: str, wait_seconds: int) -> Answered:
        headers = {"Prefer": f"wait={wait_seconds}", "Tidegate-Reason": "triage found the cause"}
        return self._send("PATCH", f"{TABLE}/{incident}", bot, {"work_notes": self._note}, headers)

    def _send(
        self, method: str, path: str, token: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> Answered:
        parts = urlsplit(self._processes.gate_url)
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=HOLD_SECONDS + 10)
        sent = {"Authorization": f"Bearer {token}", **(headers or {})}
        payload = None
        if body is not None:
            payload, sent["Content-Type"] = json.dumps(body), "application/json"
        try:
            connection.request(method, path, payload, sent)
            response = connection.getresponse()
            raw = response.read()
        finally:
            connection.close()
        named = {name.lower(): value for name, value in response.getheaders()}
        return Answered(response.status, named, json.loads(raw) if raw else None)

    @staticmethod
    def _expect(answer: Answered, status: int, what: str) -> None:
        if answer.status != status:
            raise WentOtherwise(f"{what} was answered {answer.status}: {answer.body}")
