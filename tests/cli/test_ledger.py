"""`tidegate ledger` on a store file: words, JSON and exit codes."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli.ledger import app
from tests.gateway.store.build import LOG, OTHER_LOG, draft, open_store

RUNNER = CliRunner()
ROOT = Path(__file__).resolve().parents[2]


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


@pytest.mark.parametrize(
    ("damage", "found", "seq"),
    [
        pytest.param("DELETE FROM logs WHERE tenant = 'rival'", "log_missing", 0, id="a log no longer listed"),
        pytest.param(
            "INSERT INTO records (log_id, seq, call, data) SELECT log_id, -1, 'x', data FROM records WHERE seq = 2",
            "record_seq", 0, id="a record before the first",
        ),
        pytest.param(
            "INSERT INTO records (log_id, seq, call, data) SELECT log_id, -1e300, 'x', data FROM records WHERE seq = 2",
            "record_row", 0, id="a record at no number, before the first",
        ),
        pytest.param("UPDATE records SET call = 'c9' WHERE seq = 2", "record_call", 2, id="filed under another call"),
        pytest.param("UPDATE records SET call = '' WHERE seq = 2", "record_call", 2, id="filed under no call"),
        pytest.param("UPDATE records SET call = x'63' WHERE seq = 2", "record_row", 2, id="bytes for a call"),
        pytest.param("UPDATE records SET data = CAST(data AS TEXT) WHERE seq = 2", "record_row", 2, id="text for bytes"),
        pytest.param("UPDATE records SET data = 1 << 60 WHERE seq = 2", "record_row", 2, id="a number for bytes"),
        pytest.param("UPDATE records SET seq = 'zz' WHERE seq = 2", "record_missing", 2, id="text for a number"),
        pytest.param(
            "INSERT INTO records (log_id, seq, call, data) VALUES (1, 'zz', 'q', x'00')", "record_row", 4, id="text after all"
        ),
        pytest.param("UPDATE records SET id = 99 WHERE seq = 2", "record_order", 3, id="kept out of order"),
        pytest.param("UPDATE logs SET next_seq = 'x' WHERE id = 1", "log_head", 0, id="a head's number as text"),
        pytest.param("UPDATE logs SET next_seq = -4 WHERE id = 1", "log_head", 0, id="a head's number below zero"),
        pytest.param("UPDATE logs SET hash = CAST(hash AS BLOB) WHERE id = 1", "log_head", 0, id="a head's hash as bytes"),
        pytest.param("UPDATE logs SET tenant = x'ff' WHERE id = 1", "log_head", 0, id="bytes for a tenant"),
    ],
)  # fmt: skip
def test_verify_fails_with_a_verdict_when_the_store_was_tampered_with(
    store_file: Path, damage: str, found: str, seq: int
) -> None:
    with sqlite3.connect(store_file) as connection:
        connection.execute(damage)
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


def test_tail_goes_on_when_it_follows(store_file: Path) -> None:
    # Whoever started this run in the background may have had interrupts ignored, which a child inherits.
    listens = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    program = f"{listens}; from cli.ledger import app; app()"
    arguments = [sys.executable, "-c", program, "tail", "--path", str(store_file), "-n", "1", "--follow", "--json"]
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, cwd=ROOT)
    assert process.stdout is not None
    with process.stdout as output:
        assert json.loads(output.readline())["ids"]["call"] == "other"

        async def append() -> None:
            async with open_store(store_file.parent.parent) as opened:
                await opened.writer.append(draft(call="later"))

        asyncio.run(append())
        assert json.loads(output.readline())["ids"]["call"] == "later"
        process.send_signal(signal.SIGINT)
        output.read()
    assert process.wait() == 0


def test_ledger_finds_the_store_when_only_the_configuration_is_named(store_file: Path, starter_directory: Path) -> None:
    directory = store_file.parent.parent
    text = (starter_directory / "tidegate.yaml").read_text()
    (directory / "tidegate.yaml").write_text(text)
    shutil.copytree(starter_directory / "keys", directory / "keys")
    code, output = run("verify", "--config", str(directory / "tidegate.yaml"), "--json")
    assert (code, json.loads(output)["records"]) == (0, 5)


@pytest.mark.parametrize("value", ["x'ff'", "'text'", "7", "1 << 60"])
def test_tail_fails_when_a_record_is_not_what_was_written(store_file: Path, value: str) -> None:
    with sqlite3.connect(store_file) as connection:
        connection.execute(f"UPDATE records SET data = {value}")
    connection.close()
    for form in ([], ["--json"]):
        code, output = run("tail", "--path", str(store_file), *form)
        assert code == 1 and "record_unreadable" in output
