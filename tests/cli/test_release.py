"""``tidegate gateway release``: what is quarantined, and letting one bundle in again."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from cli.gateway import app, quarantine_findings
from gateway.quarantine import Entry
from gateway.quarantine_store import FILE_NAME, QuarantineStore

ENTRY = Entry(1_800_000_000_000, "c1", "sha256:in", "sha256:ours", "sha256:theirs")


@pytest.fixture
def directory(tmp_path: Path, starter_directory: Path) -> Path:
    """A starter directory."""
    shutil.copytree(starter_directory, tmp_path / "gate")
    return tmp_path / "gate"


def release(directory: Path, *arguments: str) -> tuple[int, str]:
    """Exit status and output."""
    done = CliRunner().invoke(app, ["release", *arguments, "--config", str(directory / "tidegate.yaml")])
    return done.exit_code, done.output


def document(directory: Path, *arguments: str) -> tuple[int, Any]:
    status, output = release(directory, *arguments, "--json")
    return status, json.loads(output)


def test_release_lists_nothing_when_nothing_is_quarantined(directory: Path) -> None:
    assert document(directory) == (0, {"released": False, "items": []})
    assert "no bundle is quarantined" in release(directory)[1]


def test_release_lists_what_is_quarantined_and_why(directory: Path) -> None:
    QuarantineStore(directory / "state" / FILE_NAME).add("sha256:a", ENTRY)
    status, listed = document(directory)
    (item,) = listed["items"]
    assert (status, listed["released"], item["bundle"], item["call"]) == (0, False, "sha256:a", "c1")
    assert "2027-01-15T08:00:00" in release(directory)[1]


def test_release_lets_one_bundle_in_again(directory: Path) -> None:
    store = QuarantineStore(directory / "state" / FILE_NAME)
    store.add("sha256:a", ENTRY)
    store.add("sha256:b", ENTRY)
    status, output = release(directory, "sha256:a")
    assert status == 0 and "SIGHUP" in output
    assert list(store.entries()) == ["sha256:b"]


def test_release_is_refused_when_the_bundle_is_not_quarantined(directory: Path) -> None:
    status, refused = document(directory, "sha256:a")
    assert (status, refused["error"]["code"]) == (1, "not_found")


def test_release_changes_nothing_when_the_file_cannot_be_read(directory: Path) -> None:
    store = QuarantineStore(directory / "state" / FILE_NAME)
    store.path.parent.mkdir(exist_ok=True)
    store.path.write_bytes(b"{")
    status, refused = document(directory, "sha256:a")
    assert (status, refused["error"]["code"]) == (3, "quarantine_unreadable")
    assert store.path.read_bytes() == b"{"


def test_check_names_the_call_when_the_bundle_is_quarantined() -> None:
    assert quarantine_findings(None) == []
    (finding,) = quarantine_findings(ENTRY)
    assert "c1" in finding.what and "release" in finding.mend
