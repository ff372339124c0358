"""`docs/calling.md`: its commands print what the page shows, its program runs, and its lists are whole."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from typing import Any, get_args

import pytest
import typer.main

from cli.main import command_line
from gateway.api.openapi import description
from gateway.edge.headers import SINGLE
from gateway.edge.problem import CODES
from gateway.flow.prepare import HEADER_MAX_CHARACTERS, IDEMPOTENCY_KEY_MAX_CHARACTERS
from gateway.store.port import CallState
from tests.e2e.calling import until
from tests.e2e.harness import ROOT, GateProcess, child_environment, tidegate
from tests.e2e.test_readme import Terminal
from tests.integration.pages import Block, blocks, ids_alike, names, page, rows, section
from tests.integration.test_v1 import send

PAGE = page("calling.md")
WORKSPACE = "calling-page"
GATE_ADDRESS = "127.0.0.1:8080"
_CALL = re.compile(r'/v1/calls/([0-9a-f]{32})|"call":\s?"([0-9a-f]{32})"')
_APPROVAL = re.compile(r'"id": "([0-9a-f]{32})"')


def _environment(gate: GateProcess) -> dict[str, str]:
    environment = child_environment() | {"TIDEGATE_GATE": gate.url}
    return environment | {"PATH": f"{ROOT / '.venv' / 'bin'}:{environment['PATH']}"}


def _typed(command: str, gate: GateProcess) -> str:
    address = gate.url.removeprefix("http://")
    ours = command.replace("demo/tidegate.yaml", str(gate.config)).replace(GATE_ADDRESS, address)
    return ours.replace("--workspace ops", f"--workspace {WORKSPACE}")


def _as_shown(printed: str, gate: GateProcess) -> list[str]:
    alike = ids_alike(printed.replace(gate.url.removeprefix("http://"), GATE_ADDRESS))
    return [line.rstrip() for line in alike.strip().splitlines()]


def _run(block: Block, terminal: Terminal, gate: GateProcess, call: str) -> tuple[list[str], str]:
    """What the commands of a block printed, and the last call that was named."""
    shown: list[str] = []
    for command, expected in block.exchanges():
        printed = terminal.run(_typed(command, gate).replace("/CALL", f"/{call}"))
        call = next(("".join(found) for found in reversed(_CALL.findall(printed))), call)
        assert _as_shown(printed, gate) == _as_shown(expected, gate), command
        shown.append(printed.strip())
    return shown, call


@pytest.mark.timeout(180)
def test_commands_print_what_the_page_shows_when_typed_as_written(gate: GateProcess, tmp_path: Path) -> None:
    shown: list[str] = []
    call = ""
    with Terminal.open(tmp_path, _environment(gate), "caller") as terminal:
        for block in blocks(PAGE):
            if block.language == "sh":
                for command in block.commands():
                    terminal.run(_typed(command, gate))
            elif block.language == "console":
                printed, call = _run(block, terminal, gate, call)
                shown += printed
    first, again = [printed for printed in shown if '"once"' in printed]
    assert first == again


@pytest.mark.timeout(120)
def test_program_of_the_page_gets_its_answer_once_somebody_approved(gate: GateProcess, tmp_path: Path) -> None:
    program = next(block.text for block in blocks(PAGE) if block.language == "python")
    (tmp_path / "workflow.py").write_text(program, encoding="utf-8")
    environment = _environment(gate) | {"TIDEGATE_TOKEN": gate.token("workflow", "triage", environment="prod")}
    maria = gate.token("maria", "approver", environment="prod")

    def waiting() -> str | None:
        items = send(gate, "GET", "/v1/approvals?state=pending", maria).body["items"]
        return next((str(item["id"]) for item in items if item["subject"]["id"] == "workflow"), None)

    with Terminal.open(tmp_path, environment, "workflow") as terminal:
        terminal.start("python workflow.py")
        approval = until("the program is held", waiting)
        assert tidegate("approvals", "approve", approval, token=maria, gate=gate.url).returncode == 0
        until("the program ends", lambda: "done 201 None" in terminal.shown() or None)
        assert terminal.shown().split() == ["held", "done", "201", "None"]


def _first_column(heading: str, columns: int = 2) -> list[str]:
    return [name for cells in rows(section(PAGE, heading)) if len(cells) == columns for name in names(cells[0])]


def _of_post() -> dict[str, list[str]]:
    """What the tables about `POST /v1/calls` name first, by the first word of each table's own head."""
    found: dict[str, list[str]] = {}
    for table in re.split(r"\n\n+", section(PAGE, "## `POST /v1/calls`")):
        if table.startswith("| "):
            head = " ".join(cell.strip() for cell in table.partition("\n")[0].split("|")).split()
            found[" ".join(head)] = [name for cells in rows(table) for name in names(cells[0])]
    return found


def test_page_names_each_member_of_a_call(gate: GateProcess) -> None:
    asked = description()["paths"]["/v1/calls"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert sorted(_of_post()["member type"]) == sorted(asked["properties"])
    token = gate.token("member-bot", "triage")
    body = {"instance": "servicenow", "action": "incident.list", "arguments": {"sysparm_limit": 1}}
    call = send(gate, "POST", "/v1/calls", token, body).body
    later = send(gate, "GET", f"/v1/calls/{call['id']}", token).body
    assert sorted(_of_post()["member"]) == sorted(call) == sorted(later)


def test_page_has_each_state_of_a_call() -> None:
    assert sorted(_of_post()["state meaning next"]) == sorted(get_args(CallState))


def test_page_has_each_header_that_the_gate_reads_with_its_limit() -> None:
    told = {name.lower(): cells[1] for cells in rows(section(PAGE, "## Headers")) for name in names(cells[0])}
    ours = {name for name in SINGLE if name.startswith("tidegate-")} | {"idempotency-key"}
    assert ours <= set(told)
    assert all(str(HEADER_MAX_CHARACTERS) in told[name] for name in ours if name.startswith("tidegate-"))
    assert str(IDEMPOTENCY_KEY_MAX_CHARACTERS) in told["idempotency-key"]


def test_page_repeats_only_codes_that_there_are() -> None:
    assert set(_first_column("## What may be repeated")) <= set(CODES)


def test_page_has_each_option_of_the_command() -> None:
    command: Any = typer.main.get_command(command_line(["call"]))
    parameters = (command.commands["call"] if hasattr(command, "commands") else command).params
    options = [option for each in parameters if each.param_type_name == "option" for option in each.opts]
    told = [name for name in _first_column("## Commands") if name.startswith("--")]
    assert sorted(told) == sorted(set(options) - {"--help", "--version"})


def test_page_has_each_variable_that_the_commands_read() -> None:
    texts = [
        node.value
        for package in ("bundles", "cli", "gateway", "pdp", "rego")
        for path in (ROOT / package).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    found = {text for text in texts if re.fullmatch(r"TIDEGATE_[A-Z_]+", text)}
    assert {name for name in _first_column("## Commands") if name.startswith("TIDEGATE_")} == found


def test_commands_end_with_the_status_of_the_page(gate: GateProcess) -> None:
    bot = gate.token("status-bot", "triage")
    read = ("call", "servicenow", "servicenow.incident.list", "--arg", "sysparm_limit=1")
    held = ("call", "servicenow", "servicenow.incident.create", "--arg", "short_description=held", "--json")
    waiting = tidegate(*held, token=gate.token("status-bot", "triage", environment="prod"), gate=gate.url)
    assert (waiting.returncode, json.loads(waiting.stdout)["state"]) == (0, "held")
    assert tidegate(*read, token=bot, gate=gate.url).returncode == 0
    assert tidegate("call", "servicenow", "servicenow.nothing", token=bot, gate=gate.url).returncode == 1
    assert tidegate("call", "servicenow", token=bot, gate=gate.url).returncode == 2
    gone = tidegate(*read, "--json", token=bot, gate="http://127.0.0.1:1")
    assert (gone.returncode, json.loads(gone.stdout)["error"]["code"]) == (3, "gate_unreachable")
