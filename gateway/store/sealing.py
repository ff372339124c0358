"""Encryption at rest under per-tenant keys.

Guarantees: AES-256-GCM with a fresh 96-bit nonce per value; the context (table, log, id) is authenticated, so that a
value moved to another row does not open; one tenant's key opens nothing of another's. Leaves the key file to
`keyfile`, and randomness to whoever calls.

**Source**: NIST SP 800-38D; RFC 5869 (HKDF-SHA256).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Final, Literal

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from gateway.errors import GateMisuse, GateUnavailable

KEY_MIN_BYTES: Final = 32
NONCE_BYTES: Final = 12
TENANTS_CACHED_MAX: Final = 1024

Purpose = Literal["record-hmac", "attach-hmac", "seal", "access-request-hmac", "key-check"]


class SealBroken(GateUnavailable):
    """A sealed value does not open: wrong key, or changed, or moved."""


class TenantKeys:
    """Keys of 32 bytes per tenant and purpose, derived from one secret.

    Not locked: the cache only saves work, and a lost race derives the same key again.
    """

    def __init__(self, secret: bytes) -> None:
        if len(secret) < KEY_MIN_BYTES:
            raise GateMisuse(f"the store's key needs at least {KEY_MIN_BYTES} bytes")
        self._secret = secret
        self._derived: OrderedDict[tuple[str, str], bytes] = OrderedDict()

    def key(self, tenant: str, purpose: Purpose) -> bytes:
        """The key of a tenant for one purpose."""
        cached = self._derived.get((tenant, purpose))
        if cached is not None:
            return cached
        info = b"tidegate/1/" + purpose.encode("ascii") + b"\x00" + tenant.encode("utf-8")
        derived = HKDF(algorithm=hashes.SHA256(), length=32, salt=None, info=info).derive(self._secret)
        while len(self._derived) >= TENANTS_CACHED_MAX:
            self._derived.pop(next(iter(self._derived), (tenant, purpose)), None)
        self._derived[(tenant, purpose)] = derived
        return derived

    def key_check(self) -> int:
        """A number of 63 bits by which a store tells this secret from another; it gives nothing of the secret away."""
        return int.from_bytes(self.key("", "key-check")[:8], "big") >> 1

    def record_key(self, tenant: str) -> bytes:
        """The key for `gateway.ledger.record.keyed_digest`."""
        return self.key(tenant, "record-hmac")

    def attach_key(self, tenant: str) -> bytes:
        """The key for `gateway.approvals.digest.attach_key`."""
        return self.key(tenant, "attach-hmac")


class Sealer:
    """Seals and opens values of the store."""

    def __init__(self, keys: TenantKeys, random_bytes: Callable[[int], bytes]) -> None:
        self._keys = keys
        self._random_bytes = random_bytes

    def seal(self, tenant: str, context: str, plain: bytes) -> bytes:
        """Nonce and ciphertext of a value that belongs to a tenant and a place."""
        nonce = self._random_bytes(NONCE_BYTES)
        return nonce + AESGCM(self._keys.key(tenant, "seal")).encrypt(nonce, plain, context.encode("utf-8"))

    def unseal(self, tenant: str, context: str, sealed: bytes) -> bytes:
        """The value again. Errors: `SealBroken`."""
        try:
            return AESGCM(self._keys.key(tenant, "seal")).decrypt(
                sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], context.encode("utf-8")
            )
        except (InvalidTag, ValueError) as error:
            raise SealBroken("a sealed value of the store does not open") from error
