"""The configuration: one text, checked completely."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from cli.init import starter_config
from gateway.config import ConfigError, GatewayConfig, is_loopback, load_config, unsafe_findings


def _load(changes: dict[str, Any] | None = None, environment: dict[str, str] | None = None) -> GatewayConfig:
    document = {**starter_config(), **(changes or {})}
    return load_config(yaml.safe_dump(document), Path("/base"), environment or {})


def test_starter_config_is_accepted_and_its_paths_are_relative_to_the_file() -> None:
    config = _load()
    assert config.store_path == Path("/base/state/tidegate.db")
    assert config.file("file:keys/x") == Path("/base/keys/x")
    assert config.external_url == "http://127.0.0.1:8080"
    assert config.endpoint("[::1]:80") == ("::1", 80)
    assert not unsafe_findings(config.document)
    assert config.effective()["limits"]["body_max_bytes"] == 1 << 20


def _instance(**changes: Any) -> dict[str, Any]:
    base = {"connector": "github", "tenants": ["*"], "base_url": "http://127.0.0.1:1"}
    return {"instances": {"x": {**base, **changes}}}


def _issuer(**changes: Any) -> dict[str, Any]:
    return {"identity": {"issuers": [{**starter_config()["identity"]["issuers"][0], **changes}]}}


def _bundle(**changes: Any) -> dict[str, Any]:
    return {"bundles": [{**starter_config()["bundles"][0], **changes}]}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        pytest.param({"lisen": {}}, "lisen", id="unknown key"),
        pytest.param({"limits": {"body_max": 1}}, "body_max", id="unknown limit"),
        pytest.param({"limits": {"body_max_bytes": 1}}, "body_max_bytes", id="limit below its range"),
        pytest.param({"listen": {"gate": "8080"}}, "HOST:PORT", id="listener without host"),
        pytest.param({"listen": {"gate": "h:70000"}}, "HOST:PORT", id="port out of range"),
        pytest.param({"store": "postgresql://x"}, "sqlite", id="store of a later version"),
        pytest.param(_instance(credential={"token": "s3cret"}), "never inline", id="secret inline"),
        pytest.param(_instance(base_url="http://u:p@h"), "credential", id="secret in base_url"),
        pytest.param(_instance(base_url="ftp://h"), "base_url", id="base_url of another scheme"),
        pytest.param(_issuer(development=False), "development: true", id="every tenant of a real issuer"),
        pytest.param(_issuer(algorithms=["none"]), "algorithms", id="algorithm none"),
        pytest.param(_issuer(algorithms=["HS256"]), "algorithms", id="algorithm HS256"),
        pytest.param(_issuer(tenants=[]), "tenants", id="issuer without tenants"),
        pytest.param(_bundle(freshness="signed"), "not supported", id="freshness of a later version"),
        pytest.param(_bundle(source="https://x/b"), "file:", id="local freshness from a URL"),
        pytest.param(_bundle(trusted_keys=[]), "trusted_keys", id="bundle without keys"),
        pytest.param({"bundles": []}, "bundles", id="no bundle"),
        pytest.param({"instances": {"Bad Name": {}}}, "instances", id="instance name"),
        pytest.param({"identity": {"issuers": []}}, "issuers", id="no issuer"),
    ],
)
def test_config_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match="config_invalid") as refused:
        _load(changes)
    assert words in refused.value.detail


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("store: a\nstore: b\n", id="a key twice"),
        pytest.param("- a\n", id="not a mapping"),
        pytest.param("a: [", id="not YAML"),
        pytest.param("a: &x {b: 1}\nc: {<<: *x}\n", id="merge key"),
        pytest.param("x: " + "y" * (1 << 20), id="too long"),
        pytest.param("a: !!python/object/apply:os.system ['true']\n", id="a tag that would run code"),
    ],
)
def test_config_text_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="config_invalid"):
        load_config(text, Path("/"), {})


def test_config_takes_overrides_from_the_environment() -> None:
    environment = {
        "TIDEGATE_CONFIG__LISTEN__GATE": "127.0.0.1:1",
        "TIDEGATE_CONFIG__INSTANCES__SLACK_UPLOAD__BASE_URL": "http://127.0.0.1:2",
        "TIDEGATE_CONFIG__IDENTITY__ISSUERS__0__PEOPLE": "false",
        "OTHER": "x",
    }
    document = _load(environment=environment).document
    assert document.listen.gate == "127.0.0.1:1"
    assert document.instances["slack-upload"].base_url == "http://127.0.0.1:2"
    assert not document.identity.issuers[0].people


@pytest.mark.parametrize("name", ["STORE__X", "IDENTITY__ISSUERS__9__PEOPLE", "NOSUCH"])
def test_config_refuses_an_override_that_names_no_key(name: str) -> None:
    with pytest.raises(ConfigError):
        _load(environment={f"TIDEGATE_CONFIG__{name}": "1"})


def test_config_is_unsafe_when_development_is_reachable_from_outside() -> None:
    findings = unsafe_findings(_load({"listen": {"gate": "0.0.0.0:8080"}}).document)
    assert len(findings) == 2


@pytest.mark.parametrize(
    ("address", "loopback"),
    [("127.0.0.1:1", True), ("[::1]:1", True), ("localhost:1", True), ("10.0.0.1:1", False), ("gate:1", False)],
)
def test_loopback_is_known(address: str, loopback: bool) -> None:
    assert is_loopback(address) is loopback
