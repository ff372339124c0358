"""``tidegate bundle`` as a person types it: output, JSON and exit status of each outcome."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from bundles.keys import generate_signing_key, public_pem
from cli.bundle import app
from tests.bundles.parts import write_source


@pytest.fixture
def workplace(tmp_path: Path, opa_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with a source and a key, and the pinned OPA."""
    monkeypatch.setenv("TIDEGATE_OPA", str(opa_path))
    monkeypatch.chdir(tmp_path)
    write_source(tmp_path / "bundle")
    (tmp_path / "bundle.pub").write_bytes(public_pem(generate_signing_key(tmp_path / "bundle.pem")))
    return tmp_path


def _run(*arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, list(arguments))
    return done.exit_code, done.stdout


def _json(*arguments: str) -> tuple[int, Any]:
    status, out = _run(*arguments, "--json")
    return status, json.loads(out)


BUILD = ("build", "bundle", "--key", "bundle.pem", "--out", "out.tar.gz")


def test_bundle_is_built_verified_inspected_and_signed_again(workplace: Path) -> None:
    status, built = _json(*BUILD, "--sequence", "5", "--ttl", "1h")
    assert (status, built["sequence"], built["name"], built["tests"]) == (0, 5, "main", built["tests"])
    assert built["agreed"] > 300
    status, said = _json("verify", "out.tar.gz", "--key", "bundle.pub", "--rebuild")
    assert (status, said["verified"], said["rebuilt"], said["sequence"]) == (0, True, True, 5)
    assert said["digest"] == built["digest"] and said["expires_at"] is not None
    status, inside = _json("inspect", "out.tar.gz")
    assert (status, inside["verified"], inside["actions"]) == (0, False, ["shop.order.read"])
    assert (inside["signature"]["name"], inside["signature"]["sequence"]) == ("main", 5)
    status, signed = _json("sign", "out.tar.gz", "--key", "bundle.pem", "--out", "again.tar.gz")
    assert (status, signed["sequence"]) == (0, 5)
    assert _run("verify", "again.tar.gz", "--key", "bundle.pem", "--rebuild")[0] == 0


def test_words_are_printed_when_no_json_is_asked(workplace: Path) -> None:
    (workplace / "bundle/policies/shop/shop_test.rego").unlink()
    status, out = _run(*BUILD)
    assert status == 0 and "sequence 1" in out and "both engines agree" in out and "warning: policies/shop" in out
    assert "sequence 1" in _run("verify", "out.tar.gz", "--key", "bundle.pub", "--rebuild")[1]
    inspected = _run("inspect", "out.tar.gz")[1]
    assert (
        "shop.order.read" in inspected and "\nsignature:\n  keyid: " in inspected and "\n  sequence: 1\n" in inspected
    )
    assert "sequence 1" in _run("sign", "out.tar.gz", "--key", "bundle.pem", "--out", "again.tar.gz")[1]


def test_check_fails_when_the_sequence_was_passed(workplace: Path) -> None:
    _run(*BUILD)
    status, said = _json("verify", "out.tar.gz", "--key", "bundle.pub", "--minimum-sequence", "2")
    assert (status, said["error"]["code"]) == (1, "bundle_rollback")


def test_build_is_refused_when_rego_is_wrong(workplace: Path) -> None:
    (workplace / "bundle/policies/shop/shop.rego").write_text("package policies.shop\n\nallow if nobody\n")
    status, said = _json(*BUILD)
    assert (status, said["error"]["code"]) == (1, "rego_invalid") and "shop.rego:3" in said["error"]["detail"]
    assert not (workplace / "out.tar.gz").exists()
    in_words = CliRunner().invoke(app, list(BUILD)).stderr
    assert "shop.rego:3" in in_words and "\\u{a}" not in in_words


UNAVAILABLE = {
    "the archive is missing": ("verify", "none.tar.gz", "--key", "bundle.pub"),
    "the key is missing": ("build", "bundle", "--key", "none.pem", "--out", "out.tar.gz"),
    "the source is missing": ("build", "none", "--key", "bundle.pem", "--out", "out.tar.gz"),
}


@pytest.mark.parametrize("arguments", UNAVAILABLE.values(), ids=UNAVAILABLE.keys())
def test_status_is_3_when(arguments: tuple[str, ...], workplace: Path) -> None:
    assert _run(*arguments)[0] == 3


MISUSED = {
    "the duration is none": (*BUILD, "--ttl", "soon"),
    "the sequence is 0": (*BUILD, "--sequence", "0"),
    "no key is named": ("build", "bundle", "--out", "out.tar.gz"),
    "the key signs nothing": ("build", "bundle", "--key", "bundle/chains/data.json", "--out", "out.tar.gz"),
}


@pytest.mark.parametrize("arguments", MISUSED.values(), ids=MISUSED.keys())
def test_status_is_2_when(arguments: tuple[str, ...], workplace: Path) -> None:
    (workplace / "bundle/chains/data.json").chmod(0o600)
    assert _run(*arguments)[0] == 2
