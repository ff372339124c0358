"""`tidegate init`, `token`, `gateway check`, `doctor`: the starter directory works as written."""

from __future__ import annotations

import json
import os
import shutil
import stat
from pathlib import Path

import jwt
import pytest

from cli.call import parse_arguments
from cli.output import shown
from cli.token import ttl_seconds
from tests.e2e.harness import edit_config, tidegate


def test_init_never_overwrites_when_anything_is_there(starter_directory: Path) -> None:
    before = (starter_directory / "keys" / "hmac.key").read_bytes()
    done = tidegate("init", str(starter_directory))
    assert done.returncode == 1
    assert "exists" in done.stderr
    assert (starter_directory / "keys" / "hmac.key").read_bytes() == before


def test_init_writes_secrets_that_only_the_owner_reads(starter_directory: Path) -> None:
    for path in (starter_directory / "keys").iterdir():
        if not path.name.endswith((".pub.pem", ".jwks.json")):
            assert stat.S_IMODE(path.stat().st_mode) == 0o600, path.name
    assert stat.S_IMODE((starter_directory / "state").stat().st_mode) == 0o700


def test_init_writes_no_key_that_nothing_reads(starter_directory: Path) -> None:
    config = (starter_directory / "tidegate.yaml").read_text()
    used_by_commands = {"bundle.pem", "issuer.pem", "hmac.key"}  # `bundle build`, `token`; the default of `ledger.hmac`
    keys = {path.name for path in (starter_directory / "keys").iterdir()}
    assert {name for name in keys - used_by_commands if f"file:keys/{name}" not in config} == set()


def test_token_carries_the_claims_and_is_signed_by_the_development_issuer(starter_directory: Path) -> None:
    claims = [
        "--subject",
        "bot",
        "--tenant",
        "t",
        "--workspace",
        "w",
        "--environment",
        "e",
        "--role",
        "r",
        "--ttl",
        "5m",
    ]
    done = tidegate("token", "--config", str(starter_directory / "tidegate.yaml"), *claims)
    jwks = json.loads((starter_directory / "keys" / "issuer.jwks.json").read_text())
    key = jwt.PyJWK(jwks["keys"][0])
    found = jwt.decode(done.stdout.strip(), key.key, algorithms=["EdDSA"], audience="tidegate")
    assert (found["sub"], found["tenant"], found["roles"]) == ("bot", "t", ["r"])
    assert found["exp"] - found["iat"] == 300


@pytest.mark.parametrize("ttl", ["", "0m", "1d", "x", "5", "25h"])
def test_token_is_refused_when_its_life_is_no_duration_or_too_long(starter_directory: Path, ttl: str) -> None:
    claims = ["--subject", "b", "--tenant", "t", "--workspace", "w", "--environment", "e", "--ttl", ttl]
    done = tidegate("token", "--config", str(starter_directory / "tidegate.yaml"), *claims)
    assert done.returncode in (1, 2)
    assert not done.stdout.strip()


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("15m", 900), ("1h", 3600)])
def test_ttl_is_read(text: str, seconds: int) -> None:
    assert ttl_seconds(text) == seconds


def test_check_prints_what_would_be_enforced(starter_directory: Path) -> None:
    done = tidegate("gateway", "check", "--json", "--config", str(starter_directory / "tidegate.yaml"))
    document = json.loads(done.stdout)
    assert done.returncode == 0
    assert document["enforcement"]["bundles"][0]["sequence"] == 1
    assert document["config"]["limits"]["grace_seconds"] == 20


@pytest.fixture
def copied(starter_directory: Path, tmp_path: Path) -> Path:
    """A starter directory that may be broken."""
    return Path(shutil.copytree(starter_directory, tmp_path / "gate"))


def test_doctor_finds_nothing_wrong_in_a_starter_directory(starter_directory: Path) -> None:
    done = tidegate("doctor", "--config", str(starter_directory / "tidegate.yaml"))
    assert done.returncode == 0, done.stdout


def test_doctor_names_a_key_that_others_can_read(copied: Path) -> None:
    os.chmod(copied / "keys" / "hmac.key", 0o644)
    done = tidegate("doctor", "--json", "--config", str(copied / "tidegate.yaml"))
    assert done.returncode == 1
    assert "hmac.key" in json.loads(done.stdout)["findings"][0]["what"]


def _remove_secret(directory: Path) -> None:
    (directory / "keys" / "github.secret").unlink()


def _change_bundle(directory: Path) -> None:
    raw = bytearray((directory / "bundle.tar.gz").read_bytes())
    raw[len(raw) // 2] ^= 1
    (directory / "bundle.tar.gz").write_bytes(raw)


def _expose(directory: Path) -> None:
    edit_config(directory, {"listen": {"gate": "0.0.0.0:8080"}})


def _unknown_key(directory: Path) -> None:
    edit_config(directory, {"surprise": True})


def _unknown_connector(directory: Path) -> None:
    edit_config(directory, {"instances": {"github": {"connector": "nosuch"}}})


@pytest.mark.parametrize(
    ("broken", "word"),
    [
        pytest.param(_remove_secret, "secret_missing", id="secret missing"),
        pytest.param(_change_bundle, "bundle_", id="one byte of the bundle changed"),
        pytest.param(_expose, "config_unsafe", id="development reachable from outside"),
        pytest.param(_unknown_key, "surprise", id="unknown key"),
        pytest.param(_unknown_connector, "nosuch", id="connector the bundle does not have"),
    ],
)
def test_gateway_refuses_to_check_and_to_run(copied: Path, broken: object, word: str) -> None:
    if callable(broken):
        broken(copied)
    for verb in ("check", "run"):
        done = tidegate("gateway", verb, "--config", str(copied / "tidegate.yaml"))
        assert done.returncode == 1, done.stdout + done.stderr
        assert word in done.stderr


def test_command_is_unavailable_when_nobody_listens() -> None:
    done = tidegate("approvals", "list", gate="http://127.0.0.1:1", token="t")
    assert done.returncode == 3


@pytest.mark.parametrize("arguments", [["nosuch"], ["token"], ["call"]])
def test_command_line_is_wrong_usage(arguments: list[str]) -> None:
    assert tidegate(*arguments).returncode == 2


def test_arguments_are_text_or_json() -> None:
    assert parse_arguments(["a=1", "b:=1", "c=x=y"]) == {"a": "1", "b": 1, "c": "x=y"}


@pytest.mark.parametrize("pairs", [["a"], ["=x"], ["a=1", "a=2"], ["a:=nope"]])
def test_arguments_are_refused(pairs: list[str]) -> None:
    with pytest.raises(ValueError, match=r".+"):
        parse_arguments(pairs)


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("a\x1b[31m", "a\\u{1b}[31m"),
        ("[bold]x", "\\[bold]x"),
        ("\u202eabc", "\\u{202e}abc"),
        ("\U000e0041", "\\u{e0041}"),
        ("plain ü", "plain ü"),
    ],
    ids=["escape sequence", "console markup", "direction override", "tag character", "ordinary text"],
)
def test_shown_text_has_no_hidden_characters(text: str, seen: str) -> None:
    assert shown(text) == seen
