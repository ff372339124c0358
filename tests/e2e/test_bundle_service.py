"""The bundle service as a process: published to by its command, polled by the real OPA with verification on."""

from __future__ import annotations

import json
import re
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from bundles.build import SigningOptions, sign_files
from bundles.keys import generate_signing_key, load_private_key, public_pem
from bundles.service_config import load_service_config
from cli.init import starter_config
from gateway.config import load_config
from tests.bundles.parts import good_files
from tests.e2e.bundle_services import ServiceProcess, asked, eventually, new_key, resigned
from tests.e2e.harness import ROOT, _end, free_port, tidegate
from tests.e2e.raw import conversation

DENY_ALL = b'package tidegate\n\ndecision := {"effect": "DENY"}\n'


@pytest.fixture
def key(tmp_path: Path) -> Path:
    generate_signing_key(tmp_path / "bundle.pem")
    return tmp_path / "bundle.pem"


@pytest.fixture
def archive(tmp_path: Path, key: Path) -> Path:
    """A small bundle with sequence 1."""
    path = tmp_path / "one.tar.gz"
    path.write_bytes(sign_files(good_files(), load_private_key(key), SigningOptions(sequence=1, issued_at=1)))
    return path


@pytest.fixture
def service(tmp_path: Path, key: Path) -> Iterator[ServiceProcess]:
    with ServiceProcess.prepare(tmp_path / "service", key).running() as running:
        yield running


def test_refusal_of_the_listener_is_logged_when_no_handler_sees_it(service: ServiceProcess) -> None:
    assert conversation(f"http://127.0.0.1:{service.port}", b"garbage\r\n\r\n").startswith(b"HTTP/1.1 400 ")

    def said() -> list[dict[str, Any]]:
        lines = (service.directory / "service.log").read_text(encoding="utf-8").splitlines(keepends=True)
        return [
            line for line in (json.loads(line) for line in lines if line.endswith("}\n")) if line["what"] == "refused"
        ]

    assert [(line["status"], line["code"], line["peer"]) for line in eventually(said, 10)] == [
        (400, "malformed_request", "127.0.0.1")
    ]


@contextmanager
def opa_polling(opa: Path, folder: Path, service: ServiceProcess, pem: bytes) -> Iterator[str]:
    """An OPA server that polls the service and believes only this key; its address."""
    folder.mkdir()
    document = {
        "services": {"ours": {"url": f"http://127.0.0.1:{service.port}"}},
        "keys": {"bundle": {"algorithm": "ES256", "key": pem.decode(), "scope": "write"}},
        "bundles": {
            "main": {
                "service": "ours",
                "polling": {"long_polling_timeout_seconds": 30, "min_delay_seconds": 60, "max_delay_seconds": 120},
                "signing": {"keyid": "bundle", "scope": "write"},
            }
        },
    }
    (folder / "opa.yaml").write_text(yaml.safe_dump(document))
    address = f"127.0.0.1:{free_port()}"
    command = [str(opa), "run", "--server", "--addr", address, "--config-file", "opa.yaml", "--disable-telemetry"]
    with (folder / "opa.log").open("wb") as output:
        process = subprocess.Popen(command, cwd=folder, stdout=output, stderr=output)
    try:
        yield f"http://{address}"
    finally:
        _end(process)


def decided(opa: str) -> Any:
    """What OPA decides for a reader."""
    answer = asked(f"{opa}/v1/data/tidegate/decision", {"input": {"subject": {"properties": {"roles": ["reader"]}}}})
    return None if answer is None else answer.get("result", {}).get("effect")


def test_opa_takes_each_published_bundle_at_once_when_it_polls_with_verification_on(
    opa_path: Path, tmp_path: Path, service: ServiceProcess, archive: Path, key: Path
) -> None:
    assert service.publish(archive).returncode == 0
    pem = (service.directory / "bundle.pub.pem").read_bytes()
    with opa_polling(opa_path, tmp_path / "opa", service, pem) as opa:
        assert eventually(lambda: decided(opa), 20) == "ALLOW"
        newer = resigned(archive, key, tmp_path / "two.tar.gz", sequence=2, lib__tidegate__decision_dot_rego=DENY_ALL)
        assert service.publish(newer).returncode == 0
        # Far below OPA's shortest delay between polls: the long poll brought it.
        assert eventually(lambda: decided(opa) == "DENY", 10)


def test_opa_takes_nothing_when_it_trusts_another_key(
    opa_path: Path, tmp_path: Path, service: ServiceProcess, archive: Path
) -> None:
    assert service.publish(archive).returncode == 0
    other = public_pem(new_key(tmp_path / "other.pem"))
    with opa_polling(opa_path, tmp_path / "opa", service, other) as opa:
        log = tmp_path / "opa" / "opa.log"
        assert eventually(lambda: "Bundle load failed" in log.read_text(), 20)
        assert decided(opa) is None


def test_publish_says_what_is_served_when_it_succeeds(service: ServiceProcess, archive: Path) -> None:
    done = service.publish(archive)
    document = json.loads(done.stdout)
    assert (done.returncode, document["sequence"], document["published"]) == (0, 1, True)
    seen = json.loads(tidegate("bundle", "inspect", "--remote", service.url, "--json").stdout)
    assert (seen["digest"], seen["freshness"]["digest"]) == (document["digest"], document["digest"])
    assert 0 < seen["freshness"]["remaining_seconds"] <= 600


def test_publish_fails_with_the_services_code_when_the_sequence_was_used(
    service: ServiceProcess, archive: Path, key: Path, tmp_path: Path
) -> None:
    newer = resigned(archive, key, tmp_path / "two.tar.gz", sequence=2)
    assert service.publish(newer).returncode == 0
    done = service.publish(archive)
    assert (done.returncode, json.loads(done.stdout)["error"]["code"]) == (1, "bundle_rollback")


def test_publish_keeps_what_was_published_when_the_service_starts_again(
    service: ServiceProcess, archive: Path, key: Path, tmp_path: Path
) -> None:
    assert service.publish(archive).returncode == 0
    service.stop()
    done = service.publish(archive)
    assert (done.returncode, json.loads(done.stdout)["error"]["code"]) == (3, "bundle_service_unreachable")
    service.start()
    seen = json.loads(tidegate("bundle", "inspect", "--remote", service.url, "--json").stdout)
    assert seen["freshness"]["seq"] == 1


HOSTS = {"the address": ("", 200), "a configured name": ("bundles.example", 200), "another name": ("evil.example", 400)}


@pytest.mark.parametrize("case", HOSTS)
def test_service_answers_by_the_host_when_it_is(case: str, service: ServiceProcess, archive: Path) -> None:
    assert service.publish(archive).returncode == 0
    service.stop()
    path = service.directory / "service.yaml"
    path.write_text(path.read_text() + 'hosts: ["bundles.example"]\n')
    service.start()
    host, status = HOSTS[case]
    request = urllib.request.Request(service.url, headers={"Host": host} if host else {})
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            given = answer.status
    except urllib.error.HTTPError as refused:
        given = refused.code
        refused.close()
    assert given == status


REFUSED_COMMANDS = {
    "inspect without anything": (["bundle", "inspect", "--json"], 2, "archive_missing"),
    "inspect at no address": (["bundle", "inspect", "--remote", "ftp://x/y", "--json"], 2, "bundle_service_url"),
    "publish an absent archive": (
        ["bundle", "publish", "none.tar.gz", "--to", "http://127.0.0.1:1/bundles/main", "--json"],
        3,
        "file_missing",
    ),
    "serve without a configuration": (["bundle", "serve", "--config", "none.yaml", "--json"], 3, "file_missing"),
}


@pytest.mark.parametrize("case", REFUSED_COMMANDS)
def test_command_is_refused_when_asked_to(case: str, tmp_path: Path) -> None:
    arguments, status, code = REFUSED_COMMANDS[case]
    done = tidegate(*arguments, cwd=tmp_path)
    assert (done.returncode, json.loads(done.stdout)["error"]["code"]) == (status, code)


def test_publish_sends_no_token_when_the_address_is_another_machine_without_tls(tmp_path: Path, archive: Path) -> None:
    (tmp_path / "token").write_text("t" * 30)
    done = tidegate(
        "bundle", "publish", str(archive), "--to", "http://192.0.2.1/bundles/main",
        "--token-file", str(tmp_path / "token"), "--json",
    )  # fmt: skip
    assert (done.returncode, json.loads(done.stdout)["error"]["code"]) == (2, "bundle_service_url")


def test_freshness_key_is_not_replaced_when_it_exists(tmp_path: Path) -> None:
    command = ["bundle", "freshness-key", "--out", str(tmp_path / "f.pem"), "--json"]
    assert tidegate(*command).returncode == 0
    before = (tmp_path / "f.pub.pem").read_bytes()
    done = tidegate(*command)
    assert (done.returncode, json.loads(done.stdout)["error"]["code"]) == (2, "key_exists")
    assert (tmp_path / "f.pub.pem").read_bytes() == before


def test_cosign_adds_a_signature_when_the_module_comes_out_of_the_rego_again(
    opa_path: Path, starter_bundle: Path, bundle_key: Path, tmp_path: Path
) -> None:
    archive = tmp_path / "bundle.tar.gz"
    archive.write_bytes(starter_bundle.read_bytes())
    for name in ("anna", "bert"):
        new_key(tmp_path / f"{name}.pem")
        done = tidegate(
            "bundle", "cosign", str(archive), "--key", str(tmp_path / f"{name}.pem"), "--keyid", name, "--json"
        )
        assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout)["keyids"] == ["anna", "bert"]
    public = bundle_key.parent / "bundle.pub.pem"
    checked = ["bundle", "verify", str(archive), "--key", str(public), "--json"]
    team = [f"--cosigner={name}={tmp_path / name}.pem" for name in ("anna", "bert")]
    done = tidegate(*checked, *team)
    assert json.loads(done.stdout)["keyids"] == ["bundle", "anna", "bert"]
    new_key(tmp_path / "cleo.pem")
    done = tidegate(*checked, *team, f"--cosigner=cleo={tmp_path}/cleo.pem")
    assert (done.returncode, json.loads(done.stdout)["error"]["code"]) == (1, "bundle_threshold")
    assert tidegate(*checked, "--cosigner=anna").returncode == 2


def test_cosign_signs_nothing_when_the_module_is_another(opa_path: Path, archive: Path, tmp_path: Path) -> None:
    new_key(tmp_path / "anna.pem")
    done = tidegate("bundle", "cosign", str(archive), "--key", str(tmp_path / "anna.pem"), "--keyid", "anna", "--json")
    assert (done.returncode, json.loads(done.stdout)["error"]["code"]) == (1, "rebuild_differs")
    assert not Path(f"{archive}.dsse.json").exists()


def _guide() -> list[str]:
    """The YAML blocks of the guide."""
    text = (ROOT / "docs" / "bundle-service.md").read_text(encoding="utf-8")
    return re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)


def test_guide_shows_configurations_that_service_and_gate_accept() -> None:
    service, gate = _guide()
    assert load_service_config(service.encode()).bundles[0].id == "acme/main"
    starter = {**starter_config(), **yaml.safe_load(gate)}
    followed = load_config(yaml.safe_dump(starter), Path("/base"), {}).document.bundles[0]
    assert followed.source.endswith("/bundles/acme/main") and followed.lease_seconds == 600
