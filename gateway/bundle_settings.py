"""What the configuration says about each bundle, read from the disk: keys, tokens, archives, and where state lies.

Guarantees: an online key is never trusted to sign bundles; archives and envelopes are read up to their limits; each epoch
remembers sequences of its own. Leaves verifying to ``bundles.trusted_set``, following to ``gateway.bundle_follower``.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from time import time

from bundles.client_protocol import ClientTrust
from bundles.client_state import ClientFiles
from bundles.dsse import ENVELOPE_MAX_BYTES, ENVELOPE_SUFFIX
from bundles.freshness import FRESHNESS_SCOPE
from bundles.merged import DataBundle, merge_bundles
from bundles.trusted_set import TrustedBundle, TrustedKey, TrustPolicy, VerifyBundle, verify_bundle
from gateway.bundle_config import Bundle
from gateway.config import ConfigError, GatewayConfig
from gateway.connectors.credentials import SecretReader

BUNDLE_MAX_BYTES = 64 << 20


def trust_policy(config: GatewayConfig, bundle: Bundle) -> TrustPolicy:
    """Which bundle is expected and from whom. Blocks on the disk; raises `ConfigError`."""
    keys = [TrustedKey(key.keyid, key.algorithm, key.scope, _pem(config, key.key)) for key in bundle.trusted_keys]
    return TrustPolicy(bundle.name, bundle.audience, tuple(keys), bundle.threshold, bundle.epoch)


def client_trust(config: GatewayConfig, bundle: Bundle) -> ClientTrust:
    """Whose bundles and whose statements of freshness are believed. Blocks on the disk; raises `ConfigError`.

    **Security**: a key that signs both would let whoever holds the online one publish.
    """
    trust = trust_policy(config, bundle)
    keys = []
    for key in bundle.freshness_keys:
        pem = _pem(config, key.key)
        if pem.strip() in (trusted.public_pem.strip() for trusted in trust.keys):
            raise ConfigError("freshness_key_shared", f"{key.key} is trusted to sign bundles too")
        keys.append(TrustedKey(key.keyid, key.algorithm, FRESHNESS_SCOPE, pem))
    return ClientTrust(trust, tuple(keys))


def service_token(config: GatewayConfig, bundle: Bundle) -> str | None:
    """The token for the bundle service, if one is configured. Blocks on the disk; raises `CredentialError`."""
    return None if bundle.token is None else SecretReader(os.environ, config.base_dir).read(bundle.token)


def bundle_folder(config: GatewayConfig, bundle: Bundle) -> Path:
    """Where the bundle last in force and its lease lie."""
    return config.store_path.parent / "bundles" / bundle.name


def remembered_as(name: str, epoch: int) -> str:
    """The name under which a bundle's highest sequence is kept: each epoch counts anew (`#` stands in no bundle's name)."""
    return name if epoch == 0 else f"{name}#{epoch}"


def trusted_bundle(
    config: GatewayConfig, bundle: Bundle, highest_sequence: int, verify: VerifyBundle = verify_bundle
) -> TrustedBundle:
    """A configured bundle, or the one last fetched, verified.

    Blocks on the disk. Raises `ConfigError` and whatever `verify` raises.
    """
    raw, cosignatures = read_bundle_files(config, bundle)
    trust = trust_policy(config, bundle)
    return verify(raw, trust, now=int(time()), highest_sequence=highest_sequence, cosignatures=cosignatures)


def merged_bundle(config: GatewayConfig, bundles: Mapping[str, TrustedBundle]) -> TrustedBundle:
    """The rulebook that these bundles, by configured name, make together. Raises `BundleRefused`."""
    document = config.document
    parts = {
        bundle.name: DataBundle(bundles[bundle.name], frozenset(bundle.roots))
        for bundle in document.bundles
        if bundle.data_only
    }
    return merge_bundles(bundles[document.full_bundle.name], parts)


def read_bundle_files(config: GatewayConfig, bundle: Bundle) -> tuple[bytes, bytes | None]:
    """The configured archive, or the one last fetched, and its co-signatures; bounded.

    Blocks on the disk; raises `ConfigError`.
    """
    if not bundle.source.startswith("file:"):
        kept = ClientFiles(bundle_folder(config, bundle)).read_bundle()
        if kept is None:
            raise ConfigError("bundle_missing", f"none has been fetched from {bundle.source} yet")
        return kept
    path = config.file(bundle.source)
    envelope = Path(f"{path}{ENVELOPE_SUFFIX}")
    raw = _bounded(path, BUNDLE_MAX_BYTES)
    return raw, _bounded(envelope, ENVELOPE_MAX_BYTES) if envelope.exists() else None


def _pem(config: GatewayConfig, reference: str) -> bytes:
    try:
        return config.file(reference).read_bytes()
    except OSError as error:
        raise ConfigError("key_missing", f"{reference}: {error.strerror}") from error


def _bounded(path: Path, max_bytes: int) -> bytes:
    try:
        with path.open("rb") as file:
            raw = file.read(max_bytes + 1)
    except OSError as error:
        raise ConfigError("bundle_missing", f"{path}: {error.strerror}") from error
    if len(raw) > max_bytes:
        raise ConfigError("bundle_too_large", f"{path} is larger than {max_bytes} bytes")
    return raw
