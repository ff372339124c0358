"""The files a configuration refers to: what `doctor`, `gateway check` and `ledger verify` say of them, and to which user."""

from __future__ import annotations

import json
import os
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli.findings import unreadable
from cli.main import command_line
from tests.e2e.harness import edit_config, free_port, read_config, tidegate

RUNNER = CliRunner()
APP = command_line(())
NOBODY = 65534


@pytest.fixture
def starter(starter_directory: Path) -> Iterator[Path]:
    """A starter directory below a folder that every user may enter."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        directory = Path(shutil.copytree(starter_directory, Path(folder, "gate")))
        os.chmod(directory, 0o755)
        for name in ("gate", "metrics"):
            edit_config(directory, {"listen": {name: f"127.0.0.1:{free_port()}"}})
        yield directory


@contextmanager
def _without_rights(*closed: Path) -> Iterator[None]:
    """Run as a user who may not enter these folders: another one, or this one while nobody may."""
    if os.geteuid() == 0:
        os.seteuid(NOBODY)
        try:
            yield
        finally:
            os.seteuid(0)
        return
    for folder in closed:
        folder.chmod(0)
    try:
        yield
    finally:
        for folder in closed:
            folder.chmod(0o700)


def _doctor(directory: Path) -> tuple[int, list[dict[str, str]]]:
    done = RUNNER.invoke(APP, ["doctor", "--json", "--config", str(directory / "tidegate.yaml")])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, json.loads(done.output)["findings"]


def test_doctor_names_the_user_when_the_keys_are_somebody_elses(starter: Path) -> None:
    with _without_rights(starter / "keys", starter / "state"):
        status, findings = _doctor(starter)
    said = next(one for one in findings if one["what"].startswith(f"{starter / 'keys' / 'hmac.key'} "))
    assert status == 1 and "cannot be read by the user" in said["what"] and "run" in said["mend"] + " right"


@pytest.mark.parametrize(
    "arguments", [("ledger", "verify"), ("ledger", "tail"), ("gateway", "check")], ids=lambda given: " ".join(given)
)
def test_command_ends_with_a_sentence_when_the_folders_are_somebody_elses(
    starter: Path, arguments: tuple[str, ...]
) -> None:
    (starter / "state" / "tidegate.db").write_bytes(b"")
    with _without_rights(starter / "keys", starter / "state"):
        done = RUNNER.invoke(APP, [*arguments, "--json", "--config", str(starter / "tidegate.yaml")])
    assert isinstance(done.exception, SystemExit) and done.exit_code in (1, 3)
    assert "Permission denied" in json.loads(done.output)["error"]["detail"]


def test_unreadable_names_the_owner_when_that_is_another_user(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_bytes(b"")
    said = unreadable(file / "below", PermissionError(13, "Permission denied"))
    assert str(file) in said.what and "Permission denied" in said.what


def test_doctor_finds_nothing_when_the_secrets_stand_in_another_folder(starter: Path) -> None:
    (starter / "keys").rename(starter / "secrets")
    config = starter / "tidegate.yaml"
    config.write_text(config.read_text().replace("file:keys/", "file:secrets/"))
    edit_config(starter, {"ledger": {"hmac": "file:secrets/hmac.key"}})
    assert _doctor(starter) == (0, [])


def _open_to_others(name: str) -> Callable[[Path], None]:
    return lambda directory: (directory / name).chmod(0o644)


def _other_key_set(directory: Path) -> None:
    issuers = read_config(directory)["identity"]["issuers"]
    edit_config(directory, {"identity": {"issuers": [{**issuers[0], "jwks": "file:keys/nope.json"}]}})


def _no_key_set(directory: Path) -> None:
    (directory / "keys" / "issuer.jwks.json").write_text("{}")


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        pytest.param(_open_to_others("keys/hmac.key"), "keys/hmac.key is open to other users", id="a key others read"),
        pytest.param(lambda path: (path / "keys/hmac.key").unlink(), "hmac.key: No such file", id="no key"),
        pytest.param(_open_to_others("keys/github.secret"), "github.secret is open to others", id="a secret others read"),
        pytest.param(_other_key_set, "keys/nope.json cannot be read: No such file", id="no key set"),
        pytest.param(_no_key_set, "issuer.jwks.json: a key set has the member keys", id="a key set that is none"),
    ],
)  # fmt: skip
def test_check_doctor_and_start_refuse_the_same_when_there_is(
    starter: Path, damage: Callable[[Path], None], said: str
) -> None:
    damage(starter)
    config = ("--config", str(starter / "tidegate.yaml"))
    for command in ("check", "run"):
        done = tidegate("gateway", command, *config)
        assert done.returncode and said in done.stderr, done.stderr
        assert done.stderr.count(": No such") <= 1 and "secret_readable: secret_readable" not in done.stderr
    status, findings = _doctor(starter)
    assert status == 1 and findings


def test_doctor_names_a_signing_key_when_others_can_read_it(starter: Path) -> None:
    (starter / "keys" / "bundle.pem").chmod(0o640)
    assert _doctor(starter) == (
        1,
        [{"what": f"{starter}/keys/bundle.pem can be read by other users", "mend": f"chmod 600 {starter}/keys/bundle.pem"}],
    )  # fmt: skip


def test_doctor_says_once_what_refers_to_a_file_that_is_missing(starter: Path) -> None:
    (starter / "keys" / "github.secret").unlink()
    status, findings = _doctor(starter)
    assert (status, len(findings)) == (1, 1)
    assert "instances.github.credential." in findings[0]["what"] and "is missing" in findings[0]["what"]


@pytest.mark.parametrize("name", ["gate", "metrics"])
def test_start_names_the_listener_and_its_address_when_the_port_is_taken(starter: Path, name: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        edit_config(starter, {"listen": {name: address}})
        done = tidegate("gateway", "run", "--config", str(starter / "tidegate.yaml"))
    assert done.returncode == 3
    assert done.stderr.startswith(f"listen_failed: listen.{name} {address}: Address already in use; stop what listens")


def test_start_says_a_code_once_when_a_secret_is_missing(starter: Path) -> None:
    (starter / "keys" / "github.secret").unlink()
    done = tidegate("gateway", "run", "--config", str(starter / "tidegate.yaml"))
    assert done.stderr.startswith("secret_missing: ") and done.stderr.count("secret_missing") == 1


def test_command_says_how_to_name_or_write_a_configuration_when_there_is_none(tmp_path: Path) -> None:
    done = tidegate("gateway", "check", cwd=tmp_path)
    assert done.returncode == 3 and "--config FILE" in done.stderr and "tidegate init DIR" in done.stderr


def test_command_names_the_file_and_the_key_that_was_meant_when_one_is_unknown(starter: Path) -> None:
    config = starter / "tidegate.yaml"
    config.write_text(config.read_text().replace("engine:", "enginee:"))
    done = tidegate("gateway", "check", "--config", str(config))
    assert done.returncode == 1
    assert done.stderr.strip() == f"config_invalid: {config}: enginee: unknown key; did you mean engine?"


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        pytest.param({"--subject": ""}, "--subject: empty", id="no subject"),
        pytest.param({"--tenant": " "}, "--tenant: empty", id="a blank tenant"),
        pytest.param({"--ttl": "99h"}, "--ttl 99h: the issuer allows at most 86400s", id="too long a life"),
    ],
)
def test_token_is_misused_when_it_is_given(starter_directory: Path, changed: dict[str, str], said: str) -> None:
    given = {"--subject": "s", "--tenant": "t", "--workspace": "w", "--environment": "e", **changed}
    options = [part for pair in given.items() for part in pair]
    done = tidegate("token", *options, "--json", "--config", str(starter_directory / "tidegate.yaml"))
    assert (done.returncode, json.loads(done.stdout)["error"]) == (2, {"code": "usage", "detail": said})


def test_build_says_so_when_the_key_is_a_public_one(starter_directory: Path, tmp_path: Path) -> None:
    key, source = starter_directory / "keys" / "bundle.pub.pem", starter_directory / "bundle"
    done = tidegate("bundle", "build", str(source), "--key", str(key), "--out", str(tmp_path / "out"), "--json")
    assert done.returncode and "is no private key" in json.loads(done.stdout)["error"]["detail"]
