"""Key files and sealed values: what is refused."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gateway.errors import GateMisuse
from gateway.store.keyfile import read_key_file
from gateway.store.sealing import TENANTS_CACHED_MAX, SealBroken, Sealer, TenantKeys
from tests.gateway.store.build import KEYS, CountingBytes

SEALER = Sealer(KEYS, CountingBytes())
SEALED = SEALER.seal("acme", "place", b"plain")


@pytest.mark.parametrize(
    ("tenant", "context", "sealed"),
    [
        pytest.param("rival", "place", SEALED, id="another tenant"),
        pytest.param("acme", "elsewhere", SEALED, id="another place"),
        pytest.param("acme", "place", SEALED[:-1], id="cut"),
        pytest.param("acme", "place", SEALED[:-1] + bytes([SEALED[-1] ^ 1]), id="one bit changed"),
        pytest.param("acme", "place", b"\x01" + SEALED[1:], id="another nonce"),
        pytest.param("acme", "place", b"", id="nothing"),
        pytest.param("acme", "place", SEALED[:5], id="less than a nonce"),
    ],
)
def test_unseal_refuses_when_value_or_place_differ(tenant: str, context: str, sealed: bytes) -> None:
    with pytest.raises(SealBroken):
        SEALER.unseal(tenant, context, sealed)


def test_unseal_gives_the_value_when_nothing_changed() -> None:
    assert SEALER.unseal("acme", "place", SEALED) == b"plain"
    assert SEALER.seal("acme", "place", b"plain") != SEALED


def test_tenant_keys_stay_bounded_when_many_tenants_come() -> None:
    keys = TenantKeys(b"s" * 32)
    first = keys.key("t0", "seal")
    for number in range(TENANTS_CACHED_MAX + 2):
        keys.key(f"t{number}", "seal")
    assert len(keys._derived) == TENANTS_CACHED_MAX
    assert keys.key("t0", "seal") == first


def test_tenant_keys_refuse_when_the_secret_is_short() -> None:
    with pytest.raises(GateMisuse):
        TenantKeys(b"x" * 31)


@pytest.mark.parametrize(
    ("content", "mode"),
    [
        pytest.param(b"x" * 31, 0o600, id="one byte short"),
        pytest.param(b"", 0o600, id="empty"),
        pytest.param(b"x" * 4097, 0o600, id="too long"),
        pytest.param(b"x" * 32, 0o640, id="open to the group"),
        pytest.param(b"x" * 32, 0o604, id="open to others"),
    ],
)
def test_key_file_is_refused_when_it_is_unfit(tmp_path: Path, content: bytes, mode: int) -> None:
    path = tmp_path / "hmac.key"
    path.write_bytes(content)
    os.chmod(path, mode)
    with pytest.raises(GateMisuse):
        read_key_file(path)


def test_key_file_is_refused_when_absent(tmp_path: Path) -> None:
    with pytest.raises(GateMisuse, match="tidegate init"):
        read_key_file(tmp_path / "none")


@pytest.mark.parametrize("content", [b"\x07" * 32, b"07" * 32 + b"\n"], ids=["raw", "hex with a line end"])
def test_key_file_is_read_when_raw_or_hex(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "hmac.key"
    path.write_bytes(content)
    os.chmod(path, 0o600)
    assert read_key_file(path) == b"\x07" * 32
