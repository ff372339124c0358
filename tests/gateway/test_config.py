"""The configuration: one text, checked completely."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from cli.init import starter_config
from gateway.config import ConfigError, GatewayConfig, is_local, load_config, unsafe_findings


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


_KEY = {"keyid": "freshness", "algorithm": "ES256", "key": "file:keys/freshness.pub.pem"}


def _followed(**changes: Any) -> dict[str, Any]:
    """A bundle that is followed at a service."""
    service = {"freshness": "signed", "source": "https://b.example/bundles/main", "freshness_keys": [_KEY]}
    return _bundle(**{**service, **changes})


def _with_data(*changes: dict[str, Any], **all_changes: Any) -> dict[str, Any]:
    """The starter's bundle with one data bundle for each of `changes`."""
    full = starter_config()["bundles"][0]
    data = {**full, "name": "oncall", "source": "file:oncall.tar.gz", "data_only": True, "roots": ["oncall"]}
    return {"bundles": [full, *({**data, **each, **all_changes} for each in changes or ({},))]}


def test_config_accepts_data_bundles_beside_the_full_one() -> None:
    document = _load(_with_data({}, {"name": "rota", "roots": ["rota"]})).document
    assert document.full_bundle.name == "main" and [bundle.roots for bundle in document.bundles[1:]] == [
        ["oncall"],
        ["rota"],
    ]


FOLLOWED = {
    "at a service with TLS": {},
    "at a service on this machine": {"source": "http://127.0.0.1:8090/bundles/acme/main"},
    "on a short lease beside a development issuer": {"lease_seconds": 2},
    "with a token and from a private address": {"token": "file:keys/service.token", "allow_addresses": ["private"]},
}


@pytest.mark.parametrize("case", FOLLOWED)
def test_config_accepts_a_bundle_that_is_followed(case: str) -> None:
    bundle = _load(_followed(**FOLLOWED[case])).document.bundles[0]
    assert (bundle.freshness, bundle.freshness_keys[0].keyid, bundle.poll_seconds) == ("signed", "freshness", 60)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        pytest.param({"lisen": {}}, "lisen", id="unknown key"),
        pytest.param({"listen": {"console": "127.0.0.1:8081"}}, "listen.console", id="a listener of a later version"),
        pytest.param({"limits": {"body_max": 1}}, "body_max", id="unknown limit"),
        pytest.param({"limits": {"body_max_bytes": 1}}, "body_max_bytes", id="limit below its range"),
        pytest.param({"listen": {"gate": "8080"}}, "HOST:PORT", id="listener without host"),
        pytest.param({"listen": {"gate": ":8080"}}, "HOST:PORT", id="listener with an empty host"),
        pytest.param({"listen": {"gate": "h:"}}, "HOST:PORT", id="listener with an empty port"),
        pytest.param({"listen": {"gate": "h:80 "}}, "HOST:PORT", id="listener with a space behind its port"),
        pytest.param({"listen": {"gate": "h:-1"}}, "HOST:PORT", id="listener with a port below zero"),
        pytest.param({"listen": {"gate": "h:٣"}}, "HOST:PORT", id="listener with digits of another script"),
        pytest.param({"listen": {"gate": "h:65536"}}, "HOST:PORT", id="listener one beyond the last port"),
        pytest.param({"listen": {"gate": "h:70000"}}, "HOST:PORT", id="port out of range"),
        pytest.param({"store": "postgresql://x"}, "sqlite", id="store of a later version"),
        pytest.param(_instance(credential={"token": "s3cret"}), "never inline", id="secret inline"),
        pytest.param(_instance(base_url="http://u:p@h"), "credential", id="secret in base_url"),
        pytest.param(_instance(base_url="ftp://h"), "base_url", id="base_url of another scheme"),
        pytest.param({"external_url": "gate.example"}, "external_url must be", id="external_url without a scheme"),
        pytest.param({"external_url": "https://g/?a=b"}, "external_url must be", id="external_url with a query"),
        pytest.param({"external_url": "https://u:p@g"}, "carries a secret", id="secret in external_url"),
        pytest.param({"external_url": "https://g:0"}, "port 0", id="external_url with port 0"),
        pytest.param(_issuer(development=False), "development: true", id="every tenant of a real issuer"),
        pytest.param(_issuer(algorithms=["none"]), "algorithms", id="algorithm none"),
        pytest.param(_issuer(algorithms=["HS256"]), "algorithms", id="algorithm HS256"),
        pytest.param(_issuer(tenants=[]), "tenants", id="issuer without tenants"),
        pytest.param(_bundle(freshness="signed"), "https: address", id="signed freshness of a file"),
        pytest.param(_followed(freshness_keys=[]), "needs freshness_keys", id="signed freshness without a key"),
        pytest.param(_followed(freshness_keys=[_KEY, _KEY]), "named twice", id="a freshness key twice"),
        pytest.param(_followed(freshness="local"), "needs a file:", id="local freshness of a service"),
        pytest.param(
            _followed(source="http://bundles.example/bundles/main"), "on this machine", id="service without TLS"
        ),
        pytest.param(
            _followed(source="https://user:pass@b.example/main"), "without a secret", id="secret in the source"
        ),
        pytest.param(_followed(source="https://b.example/main?v=1"), "without a secret", id="query in the source"),
        pytest.param(_followed(source="https://b.example"), "HOST/PATH", id="source without a path"),
        pytest.param(_followed(source="https://b.example:0/main"), "port 0", id="source of port 0"),
        pytest.param(_followed(token="t0ken"), "never inline", id="token inline"),
        pytest.param(_followed(lease_seconds=901), "lease_seconds", id="lease longer than allowed"),
        pytest.param(_followed(lease_seconds=0), "lease_seconds", id="lease of nothing"),
        pytest.param(
            {
                "instances": {},
                **_issuer(development=False, tenants=["a"]),
                **_followed(tenants=["a"], lease_seconds=299),
            },
            "lease_seconds is from 300",
            id="short lease beside a real issuer",
        ),
        pytest.param(_with_data(roots=[]), "belong together", id="data bundle without roots"),
        pytest.param(_bundle(roots=["oncall"]), "belong together", id="roots of a full bundle"),
        pytest.param(_with_data(roots=["chains"]), "only a full bundle's", id="data bundle that brings chains"),
        pytest.param(_with_data(roots=["policies"]), "only a full bundle's", id="data bundle that brings policies"),
        pytest.param(_with_data(name="main"), "one name", id="two bundles of one name"),
        pytest.param(_with_data(tenants=["a"]), "the tenants of the full bundle", id="data bundle of other tenants"),
        pytest.param(_with_data({"roots": ["oncall"]}, {"name": "b"}), "one root", id="two data bundles of one root"),
        pytest.param(
            {**_with_data(), "engine": {"opa": "unix:///run/opa.sock"}},
            "engine: wasm",
            id="data bundle beside an OPA server",
        ),
        pytest.param({"bundles": _bundle()["bundles"] * 2}, "exactly one full bundle", id="two full bundles"),
        pytest.param({"bundles": _with_data()["bundles"][1:]}, "exactly one full bundle", id="no full bundle"),
        pytest.param(_bundle(lease_seconds=600), "only for freshness: signed", id="lease of a file"),
        pytest.param(_bundle(freshness_keys=[]), "only for freshness: signed", id="freshness keys of a file"),
        pytest.param(_bundle(deltas=False), "only for freshness: signed", id="deltas of a file"),
        pytest.param(_bundle(source="https://x/b"), "file:", id="local freshness from a URL"),
        pytest.param(_bundle(trusted_keys=[]), "trusted_keys", id="bundle without keys"),
        pytest.param({"bundles": []}, "bundles", id="no bundle"),
        pytest.param({"instances": {"Bad Name": _instance()["instances"]["x"]}}, "lower case", id="instance name"),
        pytest.param({"instances": {"x": {}}}, "instances.x.connector", id="instance without a connector"),
        pytest.param(_instance(base_url="http://h/?q=1"), "base_url must be", id="query in base_url"),
        pytest.param(_instance(base_url="http://h:65536"), "Port out of range", id="base_url beyond the last port"),
        pytest.param(_instance(base_url="http://h:0"), "port 0", id="base_url of port 0"),
        pytest.param(_instance(base_url="http://h:x"), "Port could not be", id="base_url with a word for a port"),
        pytest.param(_instance(base_url="http:///path"), "base_url must be", id="base_url without host"),
        pytest.param(
            {**_instance(), **_issuer(development=False, tenants=["a"]), **_bundle(tenants=["a"])},
            'instances.x: tenants "*"',
            id="instance for every tenant beside a real issuer",
        ),
        pytest.param(
            {**_issuer(development=False, tenants=["a"]), **_bundle(tenants=["*"]), "instances": {}},
            'bundles.main: tenants "*"',
            id="bundle for every tenant beside a real issuer",
        ),
        pytest.param({"bundles": 2 * _bundle()["bundles"]}, "exactly one", id="two bundles"),
        pytest.param(_issuer(jwks="keys/x"), "file:PATH or https", id="keys from a bare path"),
        pytest.param(_issuer(jwks="http://h/x"), "file:PATH or https", id="keys over plain http"),
        pytest.param({"identity": {"issuers": 2 * _issuer()["identity"]["issuers"]}}, "named twice", id="issuer twice"),
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
        pytest.param("a: 2026-13-45", id="a date that is none"),
        pytest.param("a: !!int x", id="a number that is none"),
        pytest.param("a: " + "[" * 3000, id="nested too deeply"),
        pytest.param("? [a]\n: b", id="a list for a key"),
        pytest.param("a: &x {b: 1}\nc: {<<: *x}\n", id="merge key"),
        pytest.param("x: " + "y" * (1 << 20), id="too long"),
        pytest.param("a: !!python/object/apply:os.system ['true']\n", id="a tag that would run code"),
    ],
)
def test_config_text_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="config_invalid"):
        load_config(text, Path("/"), {})


@pytest.mark.parametrize("text", ["a: [s3cret, {", "- s3cret\n: {", "a: !!int s3cret", "a: !x s3cret", "a: s3cret\x00"])
def test_config_refusal_names_no_value_when_text_is_not_yaml(text: str) -> None:
    with pytest.raises(ConfigError, match="not YAML") as refused:
        load_config(text, Path("/"), {})
    assert "s3cret" not in str(refused.value)


def test_config_refusal_names_the_line_when_text_is_not_yaml() -> None:
    with pytest.raises(ConfigError, match="the file: not YAML: line 3: "):
        load_config("a: 1\nb: [\n", Path("/"), {})


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


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        pytest.param("STORE", "2026-13-45", "STORE: not YAML", id="a date that is none"),
        pytest.param("STORE", "[" * 3000, "STORE: not YAML", id="nested too deeply"),
        pytest.param("STORE", "[", "STORE: not YAML", id="a value that is no YAML"),
        pytest.param("LIMITS", "{a: 1, a: 2}", "'a' stands twice", id="a value with a key twice"),
        pytest.param("STORE", "!!python/name:os.system x", "STORE: not YAML", id="a tag that would run code"),
        pytest.param("LIMITS__CALLS_MAX", "many", "limits.calls_max", id="a value of another type"),
    ],
)
def test_config_refuses_an_override_when_its_value_is(name: str, value: str, words: str) -> None:
    with pytest.raises(ConfigError, match="config_invalid") as refused:
        _load(environment={f"TIDEGATE_CONFIG__{name}": value})
    assert words in refused.value.detail


@pytest.mark.parametrize("name", ["STORE__X", "IDENTITY__ISSUERS__9__PEOPLE", "NOSUCH"])
def test_config_refuses_an_override_that_names_no_key(name: str) -> None:
    with pytest.raises(ConfigError):
        _load(environment={f"TIDEGATE_CONFIG__{name}": "1"})


UNSAFE = {
    "the gate is reachable from outside": (
        {"listen": {"gate": "0.0.0.0:8080"}},
        ["listen.gate … development issuer", "listen.gate … freshness: local"],
    ),
    "the metrics are reachable from outside": (
        {"listen": {"metrics": "[::]:9090"}},
        ["listen.metrics … development issuer", "listen.metrics … freshness: local"],
    ),
    "gate and metrics are reachable while the bundle has no lease": (
        {
            "listen": {"gate": "gate:80", "metrics": "0.0.0.0:9090"},
            **_issuer(development=False, tenants=["a"]),
            **_bundle(tenants=["a"]),
        },
        ["listen.gate … freshness: local", "listen.metrics … freshness: local"],
    ),
    "the gate is reachable without a development issuer": (
        {"listen": {"gate": "gate:80"}, **_issuer(development=False, tenants=["a"]), **_bundle(tenants=["a"])},
        ["listen.gate … freshness: local"],
    ),
    "the gate is reachable beside a development issuer while its bundle is followed": (
        {"listen": {"gate": "0.0.0.0:80"}, **_followed()},
        ["listen.gate … development issuer"],
    ),
}


@pytest.mark.parametrize(("changes", "expected"), UNSAFE.values(), ids=UNSAFE.keys())
def test_config_is_unsafe_when(changes: dict[str, Any], expected: list[str]) -> None:
    if "identity" in changes:
        changes = {"instances": {}, **changes}
    findings = unsafe_findings(_load(changes).document)
    assert len(findings) == len(expected)
    for finding, words in zip(findings, expected, strict=True):
        assert all(part in finding for part in words.split(" … "))


def test_config_is_safe_when_it_is_reachable_and_its_bundle_is_followed() -> None:
    issuer = _issuer(development=False, tenants=["a"])
    document = _load({"listen": {"gate": "0.0.0.0:80"}, "instances": {}, **issuer, **_followed(tenants=["a"])}).document
    assert unsafe_findings(document) == []


def test_config_is_safe_when_listeners_are_on_loopback_or_off() -> None:
    for metrics in (None, "[::1]:9090"):
        assert unsafe_findings(_load({"listen": {"gate": "localhost:0", "metrics": metrics}}).document) == []


def test_config_is_safe_when_a_host_or_a_path_is_named_like_a_kind_of_reference() -> None:
    document = _load({**_instance(base_url="http://vault:8200"), "ledger": {"sequence": "state/vault:1"}}).document
    assert unsafe_findings(document) == []


_SERVICE_LOG = {"name": "a", "tenants": ["a"], "service": "https://logs.example"}


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        pytest.param(_instance(credential={"token": "vault:kv/s3cret"}), "credential.token", id="a credential"),
        pytest.param({"ledger": {"hmac": "vault:kv/s3cret"}}, "ledger.hmac", id="the gate's own key"),
        pytest.param(_followed(token="vault:kv/s3cret"), "bundles.0.token", id="a bundle service's token"),
        pytest.param(
            {"decision_logs": [{**_SERVICE_LOG, "token": "vault:kv/s3cret"}]},
            "decision_logs.0.token",
            id="a collector's token",
        ),
    ],
)
def test_config_is_refused_when_a_secret_is_referred_to_in_a_way_nothing_reads(
    changes: dict[str, Any], where: str
) -> None:
    with pytest.raises(ConfigError) as refused:
        _load(changes)
    assert where in refused.value.detail and "only as env:NAME or file:PATH" in refused.value.detail
    assert "s3cret" not in refused.value.detail and "vault" not in refused.value.detail


@pytest.mark.parametrize(
    ("address", "loopback"),
    [("127.0.0.1:1", True), ("[::1]:1", True), ("localhost:1", True), ("10.0.0.1:1", False), ("gate:1", False)],
)
def test_loopback_is_known(address: str, loopback: bool) -> None:
    assert is_local(address) is loopback
