"""What is wrong with a configuration, in words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from cli.init import starter_config
from gateway.config import ConfigError, load_config


def _changed(*path: str | int, value: Any = 1) -> dict[str, Any]:
    document = starter_config()
    place: Any = document
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    return document


@pytest.mark.parametrize(
    ("document", "said"),
    [
        pytest.param(_changed("enginee"), "enginee: unknown key; did you mean engine?", id="at the top"),
        pytest.param(_changed("listen", "gat"), "listen.gat: unknown key; did you mean gate?", id="in a section"),
        pytest.param(
            _changed("instances", "slack", "credentail"),
            "instances.slack.credentail: unknown key; did you mean credential?",
            id="in an instance",
        ),
        pytest.param(
            _changed("bundles", 0, "trusted_keys", 0, "keyidd"),
            "bundles.0.trusted_keys.0.keyidd: unknown key; did you mean keyid?",
            id="in a list of a list",
        ),
        pytest.param(
            _changed("management", "xyzzy"),
            "management.xyzzy: unknown key; known here: emergency_roles",
            id="like nothing",
        ),
        pytest.param(_changed("store", value="mysql://x"), "store must be sqlite:///PATH in this version", id="a rule"),
        pytest.param({}, "identity: is missing; bundles: is missing", id="what is missing"),
        pytest.param(
            _changed("limits", "grace_seconds", value="s3cret"),
            "limits.grace_seconds: Input should be a valid integer",
            id="a value of another type, which is not repeated",
        ),
    ],
)
def test_configuration_is_refused_in_words_when_it_has(document: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as refused:
        load_config(yaml.safe_dump(document), Path("/base"), {})
    assert refused.value.detail == said
