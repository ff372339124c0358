"""What this package keeps on disk: keys that only their owner reads, sequences that never go down."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from bundles.errors import BundleError, BundleMisuse, BundleUnavailable
from bundles.jws import default_algorithm
from bundles.keys import (
    generate_signing_key,
    load_private_key,
    load_verifying_key,
    private_pem,
    public_pem,
    write_private,
)
from bundles.sequence import SequenceFile, write_durably


def test_key_is_made_private_and_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "bundle.pem"
    key = generate_signing_key(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert public_pem(load_private_key(path)) == public_pem(key)
    assert load_verifying_key(path) == ("ES256", public_pem(key))


def test_key_is_never_replaced_when_it_exists(tmp_path: Path) -> None:
    path = tmp_path / "bundle.pem"
    generate_signing_key(path)
    before = path.read_bytes()
    with pytest.raises(BundleMisuse) as misuse:
        generate_signing_key(path)
    assert misuse.value.code == "key_exists" and path.read_bytes() == before


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o666])
def test_key_is_refused_when_others_may_touch_it(mode: int, tmp_path: Path) -> None:
    path = tmp_path / "bundle.pem"
    generate_signing_key(path)
    path.chmod(mode)
    with pytest.raises(BundleMisuse) as misuse:
        load_private_key(path)
    assert misuse.value.code == "key_exposed"


def _pem(key: ed25519.Ed25519PrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


UNFIT = {
    "no key": lambda: b"nothing",
    "an Ed25519 key": lambda: _pem(ed25519.Ed25519PrivateKey.generate()),
    "a short RSA key": lambda: private_pem(rsa.generate_private_key(65537, 2048)),
    "a key on a rare curve": lambda: private_pem(ec.generate_private_key(ec.SECP256K1())),
    "an encrypted key": lambda: ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"x")
    ),
}


@pytest.mark.parametrize("make", UNFIT.values(), ids=UNFIT.keys())
def test_key_is_refused_when_it_is(make: object, tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    write_private(path, make())  # type: ignore[operator]
    with pytest.raises(BundleMisuse) as misuse:
        load_private_key(path)
    assert misuse.value.code == "bundle_key_unfit"


def test_key_is_unavailable_when_missing(tmp_path: Path) -> None:
    for load in (load_private_key, load_verifying_key):
        with pytest.raises(BundleUnavailable):
            load(tmp_path / "none")
    with pytest.raises(BundleUnavailable):
        write_private(Path("/proc/none/key"), b"x")


def test_public_key_is_read_with_its_algorithm(tmp_path: Path) -> None:
    path = tmp_path / "key.pub"
    private = rsa.generate_private_key(65537, 3072)
    path.write_bytes(public_pem(private))
    assert load_verifying_key(path) == ("PS256", public_pem(private)) and default_algorithm(private) == "PS256"
    path.write_bytes(ed25519.Ed25519PrivateKey.generate().public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo))  # fmt: skip
    with pytest.raises(BundleMisuse):
        load_verifying_key(path)
    path.write_bytes(b"nothing")
    with pytest.raises(BundleMisuse):
        load_verifying_key(path)


def test_sequence_is_remembered_when_read_by_another_process(tmp_path: Path) -> None:
    path = tmp_path / "state" / "sequence"
    SequenceFile(path).raise_to("main", 7)
    SequenceFile(path).raise_to("other", 2)
    assert (SequenceFile(path).highest("main"), SequenceFile(path).highest("other")) == (7, 2)
    assert SequenceFile(path).highest("unknown") == 0
    assert [entry.name for entry in path.parent.iterdir()] == ["sequence"]


def test_sequence_never_goes_down(tmp_path: Path) -> None:
    file = SequenceFile(tmp_path / "sequence")
    file.raise_to("main", 7)
    file.raise_to("main", 6)
    assert file.highest("main") == 7


SPOILT = {
    "no JSON": b"{",
    "a list": b"[]",
    "a text for a sequence": b'{"main":"7"}',
    "true for a sequence": b'{"main":true}',
    "a negative sequence": b'{"main":-1}',
    "a name twice": b'{"main":7,"main":1}',
}


@pytest.mark.parametrize("content", SPOILT.values(), ids=SPOILT.keys())
def test_sequence_is_unavailable_rather_than_forgotten_when_the_file_holds(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "sequence"
    path.write_bytes(content)
    with pytest.raises(BundleUnavailable):
        SequenceFile(path).highest("main")


def test_sequence_is_unavailable_when_the_file_is_a_folder(tmp_path: Path) -> None:
    with pytest.raises(BundleUnavailable):
        SequenceFile(tmp_path).highest("main")


@pytest.mark.parametrize("sequence", [0, -1, 2**53])
def test_sequence_is_misuse_when_out_of_range(sequence: int, tmp_path: Path) -> None:
    with pytest.raises(BundleMisuse):
        SequenceFile(tmp_path / "sequence").raise_to("main", sequence)


def test_write_leaves_nothing_behind_when_it_fails(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    with pytest.raises(BundleUnavailable):
        write_durably(tmp_path / "taken", b"x")
    assert [entry.name for entry in tmp_path.iterdir()] == ["taken"]
    with pytest.raises(BundleUnavailable):
        write_durably(Path("/proc/none"), b"x")


def test_error_says_its_code_and_detail() -> None:
    assert (str(BundleError("a_code", "why")), str(BundleError("a_code"))) == ("a_code: why", "a_code")
