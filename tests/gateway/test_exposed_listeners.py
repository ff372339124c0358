"""What may not be reached from outside: an Envoy door beside what only development uses; and keys that are no files."""

from __future__ import annotations

from typing import Any

import pytest

from cli.init import starter_config
from gateway.config import ConfigError, unsafe_findings
from tests.gateway.test_config import _KEY, _bundle, _issuer, _load

TLS = {"certificate": "file:door.pem", "key": "file:door.key", "client_ca": "file:ca.pem", "peers": ["envoy"]}
OUTSIDE = {"address": "0.0.0.0:9191", "tls": TLS}
LOCAL = _bundle(tenants=["acme"])
SIGNED = _bundle(
    tenants=["acme"],
    freshness="signed",
    source="https://b.example/bundles/main",
    freshness_keys=[{**_KEY, "key": "file:f.pem"}],
)
STRICT = {
    **_issuer(development=False, tenants=["acme"], roles=["triage"]),
    "instances": {"x": {"connector": "github", "tenants": ["acme"], "base_url": "http://127.0.0.1:1"}},
}


def _findings(door: dict[str, Any] | None, *changes: dict[str, Any]) -> list[str]:
    listen = {**starter_config()["listen"], **({"ext_authz": door} if door is not None else {})}
    merged: dict[str, Any] = {"listen": listen}
    for change in changes:
        merged |= change
    return unsafe_findings(_load(merged).document)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        pytest.param((SIGNED,), ["beside a development issuer"], id="a development issuer"),
        pytest.param((STRICT, LOCAL), ["with freshness: local"], id="a bundle without a lease"),
        pytest.param((), ["beside a development issuer", "with freshness: local"], id="both"),
    ],
)
def test_door_is_unsafe_when_it_is_reachable_from_outside_beside(
    changes: tuple[dict[str, Any], ...], said: list[str]
) -> None:
    findings = _findings(OUTSIDE, *changes)
    assert [finding.partition("listen.ext_authz is reachable from outside ")[2] for finding in findings] == said


def test_door_is_safe_when_nothing_of_development_stands_beside_it() -> None:
    assert _findings(OUTSIDE, SIGNED, STRICT) == []


@pytest.mark.parametrize("address", ["127.0.0.1:9191", "[::1]:9191", "localhost:9191", "unix:/run/door.sock"])
def test_door_is_safe_when_only_this_machine_reaches_it(address: str) -> None:
    assert _findings({"address": address}) == []


@pytest.mark.parametrize(
    "key",
    ["env:KEY", "vault:keys/freshness", "https://keys.example/f.pem", "f.pem", "FILE:f.pem", ""],
    ids=["a variable", "a vault", "a URL", "a bare path", "a file in capitals", "nothing"],
)
def test_config_is_refused_when_a_verifying_key_is_named_by(key: str) -> None:
    service = {"freshness": "signed", "source": "https://b.example/bundles/main"}
    with pytest.raises(ConfigError) as refused:
        _load(_bundle(**service, freshness_keys=[{**_KEY, "key": key}]))
    assert refused.value.code == "config_invalid"
