"""An issuer changes its keys while the gate serves: what the file publishes is accepted, and nothing else.

The gate looks into the file again when a token names a key it does not know, at most once in ten seconds, and when it
is told to reload.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.e2e.calling import LIST, call, until
from tests.e2e.harness import GateProcess, StandIns, init_directory, point_at_stand_ins
from tests.e2e.issuing import good_claims, issuer_key, issuer_kid, published
from tests.e2e.raw import Answer

NEW_KID = "second"


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory, stand_ins: StandIns) -> Iterator[GateProcess]:
    """A gate whose issuer's keys these tests change."""
    directory = init_directory(tmp_path_factory.mktemp("rotating") / "gate")
    point_at_stand_ins(directory, stand_ins)
    with GateProcess.start(directory) as running:
        yield running


@pytest.fixture
def rotating(serving: GateProcess) -> Iterator[GateProcess]:
    """That gate; afterwards it has the keys again with which it began."""
    began_with = _key_set(serving).read_text(encoding="utf-8")
    yield serving
    _publish(serving, began_with)
    assert serving.reload()


def _key_set(gate: GateProcess) -> Path:
    return gate.directory / "keys" / "issuer.jwks.json"


def _publish(gate: GateProcess, document: str) -> None:
    """Replace the key set's file in one step, as whoever rotates keys does."""
    fresh = _key_set(gate).with_suffix(".new")
    fresh.write_text(document, encoding="utf-8")
    fresh.replace(_key_set(gate))


def _signed(gate: GateProcess, key: Ed25519PrivateKey, kid: str) -> str:
    return jwt.encode(good_claims(gate), key, "EdDSA", headers={"kid": kid})


def _asked(gate: GateProcess, token: str) -> tuple[int, str]:
    answer = call(gate, "GET", LIST, token=token)
    return answer.status, answer.code


ACCEPTED = (200, "")
REFUSED = (401, "identity_invalid")


def test_new_key_is_accepted_without_a_reload_when_it_is_published_beside_the_old(rotating: GateProcess) -> None:
    old, new = issuer_key(rotating.directory), Ed25519PrivateKey.generate()
    old_kid = issuer_kid(rotating)
    token = _signed(rotating, new, NEW_KID)
    assert _asked(rotating, token) == REFUSED
    _publish(rotating, published({old_kid: old, NEW_KID: new}))

    def accepted() -> Answer | None:
        answer = call(rotating, "GET", LIST, token=token)
        return answer if answer.status == 200 else None

    until("the new key is looked up", accepted)
    assert _asked(rotating, _signed(rotating, old, old_kid)) == ACCEPTED


def test_old_key_is_refused_at_once_when_the_gate_reloads_a_set_without_it(rotating: GateProcess) -> None:
    old, new = issuer_key(rotating.directory), Ed25519PrivateKey.generate()
    token = _signed(rotating, old, issuer_kid(rotating))
    assert _asked(rotating, token) == ACCEPTED
    _publish(rotating, published({NEW_KID: new}))
    assert _asked(rotating, token) == ACCEPTED
    assert rotating.reload()
    assert _asked(rotating, token) == REFUSED
    assert _asked(rotating, _signed(rotating, new, NEW_KID)) == ACCEPTED


def test_token_is_refused_when_its_key_id_is_published_with_another_key(rotating: GateProcess) -> None:
    old, new, kid = issuer_key(rotating.directory), Ed25519PrivateKey.generate(), issuer_kid(rotating)
    _publish(rotating, published({kid: new}))
    assert rotating.reload()
    assert _asked(rotating, _signed(rotating, old, kid)) == REFUSED
    assert _asked(rotating, _signed(rotating, new, kid)) == ACCEPTED


BROKEN = [
    pytest.param('{"keys": [', id="cut JSON"),
    pytest.param('{"keys": [{"kty": "oct", "k": "c2VjcmV0", "kid": "second"}]}', id="a secret key"),
    pytest.param('{"keys": {}}', id="no list"),
]


@pytest.mark.parametrize("document", BROKEN)
def test_keys_in_force_stay_when_the_published_set_cannot_be_used(rotating: GateProcess, document: str) -> None:
    token = _signed(rotating, issuer_key(rotating.directory), issuer_kid(rotating))
    _publish(rotating, document)
    assert not rotating.reload()
    assert _asked(rotating, token) == ACCEPTED
    assert _asked(rotating, _signed(rotating, Ed25519PrivateKey.generate(), NEW_KID)) == REFUSED
    assert _asked(rotating, token) == ACCEPTED
