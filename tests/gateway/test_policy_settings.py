"""The sections that say what decisions are compared with: what is taken, and what is refused with a reason."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from cli.init import starter_config
from gateway.config import ConfigError, load_config
from gateway.policy_settings import CrossCheck

OPA = "http://127.0.0.1:8181"


def loaded(cross_check: dict[str, Any], **changes: Any) -> CrossCheck | None:
    document = {**starter_config(), "cross_check": cross_check, **changes}
    return load_config(yaml.safe_dump(document), Path("/base"), {}).document.cross_check


@pytest.mark.parametrize("opa", [OPA, "http://localhost:8181", "http://[::1]:8181/", "unix:///run/opa.sock"])
def test_cross_check_is_taken_with_its_defaults_when_opa_is_on_this_machine(opa: str) -> None:
    taken = loaded({"opa": opa})
    assert taken is not None
    assert (taken.share, taken.on_difference, taken.queue_max) == (0.01, "alarm", 1024)


def test_cross_check_of_everything_is_taken() -> None:
    taken = loaded({"opa": OPA, "share": 1, "on_difference": "quarantine"})
    assert taken is not None and (taken.share, taken.on_difference) == (1.0, "quarantine")


SECOND = {**starter_config()["bundles"][0], "name": "data", "data_only": True, "roots": ["oncall"]}

REFUSED: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "no server is named": ({}, {}, "opa"),
    "the server is elsewhere": ({"opa": "http://opa.example:8181"}, {}, "unix:///path"),
    "the server has an address of the network": ({"opa": "http://192.0.2.1:8181"}, {}, "unix:///path"),
    "the server has no port": ({"opa": "http://127.0.0.1"}, {}, "unix:///path"),
    "the port is none": ({"opa": "http://127.0.0.1:x"}, {}, "cross_check.opa"),
    "the server is asked over TLS": ({"opa": "https://127.0.0.1:8181"}, {}, "unix:///path"),
    "the socket is on a host": ({"opa": "unix://host/opa.sock"}, {}, "unix:///path"),
    "the socket has no path": ({"opa": "unix:///"}, {}, "unix:///path"),
    "nothing would be compared": ({"opa": OPA, "share": 0}, {}, "share"),
    "more than everything would be compared": ({"opa": OPA, "share": 1.1}, {}, "share"),
    "the share is a word": ({"opa": OPA, "share": "1"}, {}, "share"),
    "a difference leads to something unknown": ({"opa": OPA, "on_difference": "page"}, {}, "on_difference"),
    "the queue holds nothing": ({"opa": OPA, "queue_max": 0}, {}, "queue_max"),
    "a key is unknown": ({"opa": OPA, "sample": 1}, {}, "sample"),
    "the engine is OPA itself": ({"opa": OPA}, {"engine": {"opa": OPA}}, "engine: wasm"),
    "data comes in a bundle of its own": (
        {"opa": OPA},
        {"bundles": [starter_config()["bundles"][0], SECOND]},
        "without data bundles",
    ),
}


@pytest.mark.parametrize(("cross_check", "changes", "words"), REFUSED.values(), ids=REFUSED.keys())
def test_cross_check_is_refused_when(cross_check: dict[str, Any], changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match="config_invalid") as refused:
        loaded(cross_check, **changes)
    assert words in refused.value.detail
