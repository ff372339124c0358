"""`tidegate ledger` on a store file: words, JSON and exit codes."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli.ledger import app
from tests.gateway.store.build import LOG, OTHER_LOG, draft, open_store

RUNNER = CliRunner()


@pytest.fixture
def store_file(tmp_path: Path) -> Path:
    async def fill() -> Path:
        async with open_store(tmp_path) as opened:
            for number in range(4):
                await opened.writer.append(draft(call=f"c{number}", code="escape\x1b[31m\u202e"))
            await opened.writer.append(draft("outcome", log=OTHER_LOG, call="other", status=200))
            return opened.path

    return asyncio.run(fill())


def run(*arguments: str) -> tuple[int, str]:
    result = RUNNER.invoke(app, list(arguments))
    return result.exit_code, result.output


def test_verify_ends_well_when_nothing_was_changed(store_file: Path) -> None:
    code, output = run("verify", "--path", str(store_file), "--json")
    document = json.loads(output)
    assert (code, document["ok"], document["records"]) == (0, True, 5)
    assert {(log["tenant"], log["records"], log["ok"]) for log in document["logs"]} == {
        ("acme", 4, True),
        ("rival", 1, True),
    }
    code, output = run("verify", "--path", str(store_file))
    assert code == 0 and "5 records in 2 logs checked" in output


@pytest.mark.parametrize(
    ("damage", "found", "seq"),
    [
        pytest.param(
            "UPDATE records SET data = replace(data, 'alice', 'clara') WHERE seq = 1", "record_prev", 2, id="changed"
        ),
        pytest.param("DELETE FROM records WHERE seq = 3", "log_truncated", 3, id="cut off"),
        pytest.param("DELETE FROM records WHERE seq = 0 AND log_id = 1", "record_missing", 0, id="the first removed"),
    ],
)
def test_verify_fails_and_names_the_place_when_the_store_was_changed(
    store_file: Path, damage: str, found: str, seq: int
) -> None:
    with sqlite3.connect(store_file) as connection:
        connection.execute(damage.replace("replace(data", "replace(CAST(data AS TEXT)"))
        connection.execute("UPDATE records SET data = CAST(data AS BLOB)")
    connection.close()
    code, output = run("verify", "--path", str(store_file), "--json")
    broken = [log["error"] for log in json.loads(output)["logs"] if not log["ok"]]
    assert (code, [(error["code"], error["seq"]) for error in broken]) == (1, [(found, seq)])
    code, output = run("verify", "--path", str(store_file))
    assert code == 1 and "broken" in output and found in output


def test_tail_shows_the_newest_when_asked_for_some(store_file: Path) -> None:
    code, output = run("tail", "--path", str(store_file), "-n", "2", "--json")
    document = json.loads(output)
    assert (code, document["next"]) == (0, None)
    assert [item["log"] for item in document["items"]] == [list(LOG), list(OTHER_LOG)]
    code, output = run("tail", "--path", str(store_file), "-n", "0", "--json")
    assert json.loads(output)["items"] == []


def test_tail_escapes_control_characters_when_shown_to_a_person(store_file: Path) -> None:
    code, output = run("tail", "--path", str(store_file))
    assert code == 0
    assert "\x1b[31m" not in output and "\u202e" not in output
    assert "\\u{1b}" in output and "\\u{202e}" in output


@pytest.mark.parametrize("command", ["verify", "tail"])
@pytest.mark.parametrize(
    ("content", "code"),
    [pytest.param(None, 3, id="absent"), pytest.param(b"nonsense" * 400, 3, id="no database")],
)
def test_ledger_is_unavailable_when_there_is_no_store(
    tmp_path: Path, command: str, content: bytes | None, code: int
) -> None:
    path = tmp_path / "tidegate.db"
    if content is not None:
        path.write_bytes(content)
    exit_code, output = run(command, "--path", str(path), "--json")
    assert exit_code == code
    assert json.loads(output)["error"]["code"] in ("store_missing", "store_corrupt")


def test_ledger_refuses_when_the_path_is_a_directory(tmp_path: Path) -> None:
    assert run("verify", "--path", str(tmp_path))[0] == 2
