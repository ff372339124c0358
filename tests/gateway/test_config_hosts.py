"""`listen.hosts`: what it may say, and which hosts follow from it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway.config import ConfigError, GatewayConfig, load_config

LOCAL = {"localhost:8080", "127.0.0.1:8080", "[::1]:8080"}


def _load(listen: dict[str, Any], **more: object) -> GatewayConfig:
    key = {"keyid": "k", "algorithm": "ES256", "key": "file:k.pem"}
    document = {
        "listen": listen,
        "identity": {
            "issuers": [
                {"issuer": "i", "audience": "a", "jwks": "file:j", "development": True, "tenants": ["*"]},
            ]
        },
        "bundles": [{"name": "main", "tenants": ["*"], "source": "file:b", "trusted_keys": [key]}],
        **more,
    }
    return load_config(yaml.safe_dump(document), Path("/nowhere"), {})


def _hosts(listen: dict[str, Any], **more: object) -> frozenset[str]:
    config = _load(listen, **more)
    return config.hosts(config.document.listen.gate, 8080)


def test_hosts_are_the_listeners_own_when_none_is_named() -> None:
    assert _hosts({}) == LOCAL


def test_hosts_hold_the_external_urls_when_there_is_one() -> None:
    assert _hosts({}, external_url="https://Gate.example/") == {*LOCAL, "gate.example"}


def test_hosts_hold_a_name_as_it_is_and_with_the_port_when_it_names_none() -> None:
    assert _hosts({"hosts": ["gate.example"]}) == {*LOCAL, "gate.example", "gate.example:8080"}


def test_hosts_hold_a_name_with_its_port_alone_when_it_names_one() -> None:
    assert _hosts({"hosts": ["gate.example:443", "[fd00::7]:80"]}) == {*LOCAL, "gate.example:443", "[fd00::7]:80"}


@pytest.mark.parametrize(
    "host",
    [
        "",
        "*",
        "*.example",
        "Gate.example",
        "http://gate",
        "gate/",
        "gate:0",
        "gate:65536",
        "gate:",
        ":80",
        "a b",
        "-a",
        "::1",
    ],
)
def test_config_refuses_when_a_host_is_none(host: str) -> None:
    with pytest.raises(ConfigError, match="config_invalid"):
        _load({"hosts": [host]})
