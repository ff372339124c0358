"""The command line itself: small commands stay small, and a noun is asked for by its name."""

from __future__ import annotations

import gc
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli.main import command_line
from tests.e2e.harness import ROOT, child_environment

HEAVY = frozenset({"aiohttp", "cryptography", "jwt", "opa_client", "pydantic", "rich", "sqlalchemy", "wasmtime"})


@pytest.mark.parametrize(
    ("noun", "allowed"),
    [
        pytest.param("approvals", set(), id="approvals"),
        pytest.param("call", set(), id="call"),
        pytest.param("switch", set(), id="switch"),
        pytest.param("token", {"pydantic", "cryptography"}, id="token, before it signs"),
        pytest.param("ledger", {"pydantic", "cryptography", "sqlalchemy"}, id="ledger"),
    ],
)
def test_command_imports_no_more_than_it_needs_when_it_is(noun: str, allowed: set[str]) -> None:
    program = (
        "import sys; from cli.main import command_line; command_line([sys.argv[1]]);"
        "print(*{name.partition('.')[0] for name in sys.modules})"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, noun],
        cwd=ROOT,
        env=child_environment(),
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert HEAVY.intersection(done.stdout.split()) <= allowed


@pytest.mark.parametrize("arguments", [[], ["--help"], ["nosuch"]])
def test_command_line_offers_every_noun_when_none_is_named(arguments: list[str]) -> None:
    app = command_line(arguments)
    groups, commands = {group.name for group in app.registered_groups}, {one.name for one in app.registered_commands}
    there = {path.stem for path in (Path(ROOT) / "cli").glob("*.py")}
    assert groups | commands <= there
    assert {"gateway", "ledger", "approvals"} <= groups and {"init", "token", "call", "doctor"} <= commands


def test_version_is_the_installed_ones_and_loads_no_noun() -> None:
    app = command_line(["--version"])
    done = CliRunner().invoke(app, ["--version"])
    assert (done.exit_code, done.output) == (0, f"tidegate {version('tidegate')}\n")
    assert not app.registered_groups and not app.registered_commands


def test_command_line_leaves_the_collector_running() -> None:
    command_line(["switch"])
    assert gc.isenabled()
