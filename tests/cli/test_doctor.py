"""`tidegate doctor` and `gateway check`: what is hardly meant so, and who else writes the store."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cli.doctor import writers
from cli.gateway import issuer_findings, policy_findings, tenant_findings
from gateway.config import Document
from gateway.ledger.record import freeze
from gateway.store.keyfile import read_key_file
from gateway.store.port import STORE_PROCESS, BatchItem
from gateway.store.sealing import TenantKeys
from gateway.store.sqlite import SqliteAppender
from tests.e2e.harness import GateProcess, edit_config, free_port, read_config, tidegate
from tests.gateway.store.build import AMPLE, FakeClock, draft

READING, WRITING, APPENDING = "0100000", "0100002", "02001"


@pytest.fixture
def copied(starter_directory: Path, tmp_path: Path) -> Path:
    """A starter directory that may be changed."""
    return Path(shutil.copytree(starter_directory, tmp_path / "gate"))


def _with_issuer(directory: Path, **more: Any) -> None:
    """Add an issuer that is not for development."""
    issuers = read_config(directory)["identity"]["issuers"]
    added = {
        "issuer": "https://issuer.example",
        "audience": "tidegate",
        "jwks": "file:keys/issuer.jwks.json",
        "tenants": ["acme"],
        **more,
    }
    edit_config(directory, {"identity": {"issuers": [*issuers, added]}})


def test_check_and_doctor_name_an_issuer_when_it_grants_no_role(copied: Path) -> None:
    _with_issuer(copied)
    config = str(copied / "tidegate.yaml")
    checked, doctor = tidegate("gateway", "check", "--config", config), tidegate("doctor", "--config", config)
    assert (checked.returncode, doctor.returncode) == (0, 1)
    for said in (checked.stdout, doctor.stdout):
        assert "the issuer https://issuer.example names no roles" in said
        assert "roles: []" in said


@pytest.mark.parametrize("roles", [[], ["triage"]], ids=["none on purpose", "one"])
def test_doctor_finds_nothing_when_the_issuer_says_its_roles(copied: Path, roles: list[str]) -> None:
    _with_issuer(copied, roles=roles)
    done = tidegate("doctor", "--json", "--config", str(copied / "tidegate.yaml"))
    assert (done.returncode, json.loads(done.stdout)["findings"]) == (0, [])


def test_issuer_findings_are_empty_when_it_is_for_development(starter_directory: Path) -> None:
    assert issuer_findings(Document.model_validate(read_config(starter_directory))) == []


@pytest.mark.parametrize(
    ("bundle", "instance", "named"),
    [
        pytest.param(["*"], ["acme"], [], id="a bundle for every tenant"),
        pytest.param(["acme", "globex"], ["acme"], [], id="an instance of one of its tenants"),
        pytest.param(
            ["acme"], ["globex", "acme", "initech"], ["globex", "initech"], id="an instance of others as well"
        ),
        pytest.param(["acme"], ["*"], ["*"], id="an instance for every tenant"),
    ],
)
def test_tenant_findings_name_whom_no_bundle_decides_for(
    starter_directory: Path, bundle: list[str], instance: list[str], named: list[str]
) -> None:
    document = read_config(starter_directory)
    document["bundles"][0]["tenants"] = bundle
    document["instances"] = {"desk": {**document["instances"]["servicenow"], "tenants": instance}}
    found = tenant_findings(Document.model_validate(document))
    assert [finding.what.split()[6] for finding in found] == named


def test_policy_findings_name_every_instance_without_policy() -> None:
    assert [found.what.split()[2] for found in policy_findings(["a", "b"])] == ["a", "b"]
    assert policy_findings([]) == []


def _process(processes: Path, number: str, opened: Path, flags: str) -> None:
    """A process as the kernel shows it, with one open file."""
    (processes / number / "fd").mkdir(parents=True)
    (processes / number / "fdinfo").mkdir()
    os.symlink(opened, processes / number / "fd" / "3")
    (processes / number / "fdinfo" / "3").write_text(f"pos:\t0\nflags:\t{flags}\nmnt_id:\t29\n")


@pytest.fixture
def store(tmp_path: Path) -> Path:
    path = tmp_path / "tidegate.db"
    path.write_bytes(b"")
    return path


def test_writers_are_those_that_have_the_store_open_for_writing(store: Path, tmp_path: Path) -> None:
    other, processes = tmp_path / "other.db", tmp_path / "proc"
    other.write_bytes(b"")
    os.symlink(store, tmp_path / "by another name")
    _process(processes, "30", store, WRITING)
    _process(processes, "4", tmp_path / "by another name", APPENDING)
    _process(processes, "5", store, READING)
    _process(processes, "6", other, WRITING)
    _process(processes, "7", tmp_path / "gone", WRITING)
    (processes / "8").mkdir()
    (processes / "sys").mkdir()
    assert writers(store, processes) == [4, 30]


def _is_started(processes: Path, number: str, parent: str, module: str) -> None:
    (processes / number / "cmdline").write_text(f"python\0-P\0-m\0{module}\0007\0")
    (processes / number / "status").write_text(f"Name:\tpython\nPPid:\t{parent}\n")


def test_writer_is_the_gate_when_its_own_process_writes_for_it(store: Path, tmp_path: Path) -> None:
    processes = tmp_path / "proc"
    for number in ("30", "31", "32", "33"):
        _process(processes, number, store, WRITING)
    _is_started(processes, "31", "30", STORE_PROCESS)
    _is_started(processes, "32", "30", "cli.main")
    _is_started(processes, "33", "1", STORE_PROCESS)
    assert writers(store, processes) == [30, 32, 33]


@pytest.mark.parametrize("missing", ["tidegate.db", "proc"])
def test_writers_are_unknown_when_there_is_no(store: Path, tmp_path: Path, missing: str) -> None:
    _process(tmp_path / "proc", "3", store, WRITING)
    shutil.rmtree(tmp_path / "proc") if missing == "proc" else store.unlink()
    assert writers(store, tmp_path / "proc") == []


def test_writers_are_ourselves_when_we_write(store: Path) -> None:
    with store.open("r+b"):
        assert writers(store) == [os.getpid()]
    with store.open("rb"):
        assert writers(store) == []


def test_doctor_names_both_processes_when_something_else_writes_the_store(copied: Path) -> None:
    for name in ("gate", "metrics"):
        edit_config(copied, {"listen": {name: f"127.0.0.1:{free_port()}"}})
    config = str(copied / "tidegate.yaml")
    with GateProcess.start(copied) as gate:
        assert tidegate("doctor", "--config", config).returncode == 0
        with (copied / "state" / "tidegate.db").open("rb+"):
            done = tidegate("doctor", "--config", config)
        pids = sorted((gate.process.pid, os.getpid()))
        assert done.returncode == 1
        assert f"is written by the processes {pids[0]}, {pids[1]}" in done.stdout
        assert "stop all gates but one" in done.stdout
    assert tidegate("doctor", "--config", config).returncode == 0


def _with_records(directory: Path) -> Path:
    keys = TenantKeys(read_key_file(directory / "keys" / "hmac.key"))
    path = directory / "state" / "tidegate.db"
    appender = SqliteAppender(path, keys=keys, clock=FakeClock(), room=lambda _directory: AMPLE)
    appender.open_writer()
    appender.append_batch([BatchItem(freeze(draft(call=f"c{number}"), node="n"), ()) for number in range(40)])
    appender.close_writer()
    return path


def _sql(statement: str) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        changed = sqlite3.connect(path)
        changed.execute(statement)
        changed.commit()
        changed.close()

    return change


def _linked(path: Path) -> None:
    path.rename(path.with_name("elsewhere.db"))
    path.symlink_to(path.with_name("elsewhere.db"))


def _other_key(path: Path) -> None:
    (path.parent.parent / "keys" / "hmac.key").write_text("ab" * 32)


@pytest.mark.parametrize(
    ("damage", "said", "mend"),
    [
        pytest.param(
            _sql("DELETE FROM records WHERE seq = 39"), "ledger_broken: log_truncated", "ledger verify", id="cut off"
        ),
        pytest.param(
            _sql("UPDATE records SET data = CAST('{}' AS BLOB) WHERE seq = 39"), "ledger_broken", "ledger verify", id="edited"
        ),
        pytest.param(lambda path: os.truncate(path, 8192), "store_corrupt", "backup", id="truncated"),
        pytest.param(lambda path: path.write_bytes(b"none" * 999), "store_corrupt", "backup", id="no database"),
        pytest.param(_sql("UPDATE meta SET value = 9 WHERE name = 'schema_version'"), "store_version", "version", id="later"),
        pytest.param(_other_key, "store_key_changed", "put the key file back", id="another key"),
        pytest.param(_linked, "is a link", "elsewhere.db as store", id="a link"),
        pytest.param(lambda path: (path.unlink(), path.mkdir()), "store_missing", "mend", id="a directory"),
    ],
)  # fmt: skip
def test_doctor_and_a_start_refuse_a_store_when_it_is(
    copied: Path, damage: Callable[[Path], object], said: str, mend: str
) -> None:
    for name in ("gate", "metrics"):
        edit_config(copied, {"listen": {name: f"127.0.0.1:{free_port()}"}})
    damage(_with_records(copied))
    config = str(copied / "tidegate.yaml")
    doctor = tidegate("doctor", "--config", config)
    assert (doctor.returncode, doctor.stderr) == (1, "")
    assert said in doctor.stdout
    assert mend in doctor.stdout
    run = tidegate("gateway", "run", "--config", config)
    assert run.returncode == 3
    assert run.stderr.count("ledger_unavailable") + run.stderr.count("store_linked") == 1


@pytest.mark.parametrize("content", [None, b""], ids=["absent", "empty"])
def test_doctor_finds_nothing_when_the_store_is(copied: Path, content: bytes | None) -> None:
    if content is not None:
        (copied / "state" / "tidegate.db").write_bytes(content)
    assert tidegate("doctor", "--config", str(copied / "tidegate.yaml")).returncode == 0


def test_doctor_finds_nothing_when_the_store_verifies(copied: Path) -> None:
    _with_records(copied)
    assert tidegate("doctor", "--config", str(copied / "tidegate.yaml")).returncode == 0
