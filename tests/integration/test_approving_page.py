"""`docs/approving.md`: its commands print what the page shows, whom it excludes is excluded, and every member is named."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gateway.approvals.model import ApprovalState
from tests.e2e.harness import GateProcess, child_environment, tidegate
from tests.e2e.test_readme import Terminal
from tests.integration.asking_people import opened, update
from tests.integration.pages import blocks, ids_alike, names, page, rows, section
from tests.integration.test_v1 import held, send

PAGE = page("approving.md")
WORKSPACE = "approving-page"
_WAITING = re.compile(r"waiting for approval ([0-9a-f]{32})")


def _environment(gate: GateProcess) -> dict[str, str]:
    venv = Path(__file__).resolve().parents[2] / ".venv" / "bin"
    environment = child_environment() | {"TIDEGATE_GATE": gate.url, "COLUMNS": "110"}
    return environment | {"PATH": f"{venv}:{environment['PATH']}"}


def _as_shown(printed: str) -> list[str]:
    return [line.rstrip() for line in ids_alike(printed).strip().splitlines()]


@pytest.mark.timeout(180)
def test_commands_print_what_the_page_shows_when_typed_as_written(gate: GateProcess, tmp_path: Path) -> None:
    """In a workspace of their own, so that nobody else's approvals are in the lists."""
    request = opened(gate, gate.token("app", "enforcer", environment="prod"), update("eve", "for the approving page"))
    approval = ""
    with Terminal.open(tmp_path, _environment(gate), "approver") as terminal:
        for block in blocks(PAGE):
            if block.language == "sh":
                for command in block.commands():
                    typed = command.replace("demo/tidegate.yaml", str(gate.config))
                    terminal.run(typed.replace("--workspace ops", f"--workspace {WORKSPACE}"))
                continue
            for command, expected in block.exchanges():
                typed = command.replace(" ID", f" {approval}")
                if "REQUEST" in typed:
                    token = gate.token("maria", "approver", environment="prod")
                    typed = f"TIDEGATE_TOKEN={token} {typed.replace('REQUEST', request)}"
                printed = terminal.run(typed)
                approval = next(iter(_WAITING.findall(printed)), approval)
                assert _as_shown(printed) == _as_shown(expected), command


def _voting(gate: GateProcess, approval: str, token: str, *more: str) -> str:
    """How a vote is answered: `ok` or the code."""
    done = tidegate("approvals", "approve", approval, "--json", *more, token=token, gate=gate.url)
    answer = json.loads(done.stdout)
    assert done.returncode == (1 if "error" in answer else 0), done.stdout
    return str(answer["error"]["code"]) if "error" in answer else "ok"


def _token(gate: GateProcess, subject: str, role: str, *more: str) -> str:
    said = ("--tenant", "acme", "--workspace", "ops", "--environment", "prod", "--role", role)
    done = tidegate("token", "--config", str(gate.config), "--subject", subject, *said, *more)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def _used(gate: GateProcess, approval: str) -> str:
    assert _voting(gate, approval, _token(gate, "maria", "approver")) == "ok"
    return _voting(gate, approval, _token(gate, "peter", "approver"))


def _held_for(gate: GateProcess, person: str) -> str:
    """A call that a workload sends for a person."""
    bot = _token(gate, "delegate", "triage", "--on-behalf-of", person)
    body = {"short_description": "asked for by a person"}
    answered = send(gate, "POST", "/c/servicenow/api/now/table/incident", bot, body, {"Prefer": "wait=0"})
    assert answered.code == "approval_required", answered.body
    return str(answered.body["approval"]["id"])


EXCLUDED: dict[str, Callable[[GateProcess, str], str]] = {
    "the caller itself": lambda gate, held: _voting(gate, held, _token(gate, "self-server", "approver")),
    "the person on whose behalf the caller acts, or another that it acts through": lambda gate, _: _voting(
        gate, _held_for(gate, "paula"), _token(gate, "paula", "approver")
    ),
    "whoever acts for somebody else": lambda gate, held: _voting(
        gate, held, _token(gate, "deputy", "approver", "--on-behalf-of", "maria")
    ),
    "a person without the role of the chain's step": lambda gate, held: _voting(
        gate, held, _token(gate, "olaf", "operator")
    ),
    "a person without the grant `tidegate.approval.vote`": lambda gate, held: _voting(
        gate, held, _token(gate, "trixi", "triage")
    ),
    "anybody with another digest": lambda gate, held: _voting(
        gate, held, _token(gate, "maria", "approver"), "--digest", "sha256:0"
    ),
    "anybody once it is decided, used, withdrawn or expired": _used,
    "anybody of another tenant or workspace": lambda gate, held: _voting(
        gate, held, gate.token("maria", "approver", environment="prod", tenant="globex"), "--digest", "sha256:0"
    ),
}
NEEDS_ANOTHER_GATE = "a subject of an issuer that is not one of people"
"""Held by `tests/gateway/approvals`: the development issuer's subjects are people."""


def _excluded() -> dict[str, str]:
    return {cells[0]: names(cells[1])[0] for cells in _table("## Who may not vote")}


def _table(heading: str) -> list[list[str]]:
    lines = section(PAGE, heading).splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| ")]
    return cells[1:]


def test_page_excludes_whom_these_tests_exclude() -> None:
    assert set(_excluded()) == {*EXCLUDED, NEEDS_ANOTHER_GATE}


@pytest.mark.parametrize("who", EXCLUDED)
def test_vote_is_refused_as_the_page_says(gate: GateProcess, who: str) -> None:
    _, approval = held(gate, f"held for {who}", subject="self-server")
    assert EXCLUDED[who](gate, approval) == _excluded()[who]


def test_page_has_each_state() -> None:
    assert {cells[0].strip("`") for cells in _table("## How it ends")} == {state.value for state in ApprovalState}


def test_page_has_each_member_of_an_approval(gate: GateProcess) -> None:
    told = [name for cells in rows(section(PAGE, "## For programs")) for name in names(cells[0])]
    _, approval = held(gate, "for its members", subject="member-bot")
    person = gate.token("maria", "approver", environment="prod")
    assert _voting(gate, approval, person) == "ok"
    found: dict[str, Any] = send(gate, "GET", f"/v1/approvals/{approval}", person).body
    assert sorted(told) == sorted([*found, "kind"])
    inner = [name for cells in rows(section(PAGE, "## For programs")) for name in names(cells[1])]
    step = found["chain"]["steps"][0]
    parts = (
        found["resource"],
        found["subject"],
        found["reasons"][0],
        found["chain"],
        step,
        step["needs"],
        step["votes"][0],
    )
    for part in parts:
        assert set(part) <= set(inner), part
