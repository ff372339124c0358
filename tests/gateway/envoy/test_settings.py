"""Where the door may listen."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from gateway.envoy.settings import ExtAuthz

TLS = {"certificate": "file:c.pem", "key": "file:k.pem", "client_ca": "file:ca.pem", "peers": ["spiffe://m/envoy"]}

TAKEN: dict[str, dict[str, Any]] = {
    "loopback": {"address": "127.0.0.1:9191"},
    "loopback, version 6": {"address": "[::1]:9191"},
    "loopback by name": {"address": "localhost:0"},
    "a socket": {"address": "unix:run/door.sock"},
    "others, with mutual TLS": {"address": "0.0.0.0:9191", "tls": TLS},
    "loopback with mutual TLS": {"address": "127.0.0.1:9191", "tls": TLS},
    "the shortest deadline": {"address": "127.0.0.1:9191", "deadline_ms": 10},
}
REFUSED: dict[str, dict[str, Any]] = {
    "every address in the clear": {"address": "0.0.0.0:9191"},
    "another address in the clear": {"address": "10.0.0.1:9191"},
    "a name in the clear": {"address": "gate.internal:9191"},
    "an address beside loopback": {"address": "128.0.0.1:9191"},
    "no port": {"address": "127.0.0.1"},
    "a port too high": {"address": "127.0.0.1:65536"},
    "a socket without a path": {"address": "unix:"},
    "a socket with a long path": {"address": "unix:" + "x" * 101},
    "a socket with TLS": {"address": "unix:run/door.sock", "tls": TLS},
    "TLS for nobody": {"address": "0.0.0.0:9191", "tls": {**TLS, "peers": []}},
    "TLS for everybody": {"address": "0.0.0.0:9191", "tls": {k: v for k, v in TLS.items() if k != "client_ca"}},
    "a key inline": {"address": "0.0.0.0:9191", "tls": {**TLS, "key": "-----BEGIN"}},
    "no deadline": {"address": "127.0.0.1:9191", "deadline_ms": 0},
    "a deadline too long": {"address": "127.0.0.1:9191", "deadline_ms": 60_001},
    "an unknown key": {"address": "127.0.0.1:9191", "plaintext": True},
}


@pytest.mark.parametrize("document", TAKEN.values(), ids=TAKEN.keys())
def test_door_is_taken_when_it_is_at(document: dict[str, Any]) -> None:
    assert ExtAuthz.model_validate(document).address == document["address"]


@pytest.mark.parametrize("document", REFUSED.values(), ids=REFUSED.keys())
def test_door_is_refused_when_it_has(document: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        ExtAuthz.model_validate(document)
