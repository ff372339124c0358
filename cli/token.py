"""``tidegate token``: a caller's token from the development issuer.

**Security**: signs only for an issuer whose configuration says ``development: true``; such an issuer never stands
beside a listener that others can reach (security rule 7).
"""

from __future__ import annotations

import os
import re
import secrets
import time
from pathlib import Path
from typing import Any

import typer

from cli.findings import user_name
from cli.output import EXIT_UNAVAILABLE, EXIT_USAGE, JSON_OPTION, emit, fail
from gateway.config import ConfigError, GatewayConfig, Issuer, load_config

DEVELOPMENT_KEYID = "development"
_TTL = re.compile(r"([1-9][0-9]{0,6})([smh])")
_UNIT_SECONDS = {"s": 1, "m": 60, "h": 3600}


def ttl_seconds(text: str) -> int:
    """``90s``, ``15m`` or ``1h`` in seconds. Raises ValueError."""
    match = _TTL.fullmatch(text)
    if match is None:
        raise ValueError("a duration is a number and s, m or h")
    return int(match[1]) * _UNIT_SECONDS[match[2]]


def development_issuer(config: GatewayConfig) -> tuple[Issuer, Path]:
    """The development issuer and the file of its private key. Raises ConfigError."""
    for issuer in config.document.identity.issuers:
        if issuer.development and issuer.jwks.startswith("file:"):
            jwks = config.file(issuer.jwks)
            return issuer, jwks.with_name(jwks.name.removesuffix(".jwks.json") + ".pem")
    raise ConfigError("config_invalid", "the configuration has no development issuer with a key file")


def make_token(config: GatewayConfig, claims: dict[str, Any], *, lifetime_seconds: int, now: int) -> str:
    """Sign ``claims`` as the development issuer. Raises ConfigError, OSError."""
    import jwt
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    issuer, key_file = development_issuer(config)
    if lifetime_seconds > issuer.lifetime_max_seconds:
        raise ConfigError("config_invalid", f"the issuer allows at most {issuer.lifetime_max_seconds} seconds")
    key = load_pem_private_key(key_file.read_bytes(), password=None)
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigError("config_invalid", f"{key_file} is no Ed25519 key")
    standard = {
        "iss": issuer.issuer,
        "aud": issuer.audience,
        "iat": now,
        "nbf": now,
        "exp": now + lifetime_seconds,
        "jti": secrets.token_urlsafe(12),
    }
    return jwt.encode({**claims, **standard}, key, algorithm="EdDSA", headers={"kid": DEVELOPMENT_KEYID})


def read_config(path: Path, *, as_json: bool = False) -> GatewayConfig:
    """The configuration at ``path`` with the environment's overrides; ends the command when it cannot be used."""
    try:
        return load_config(path.read_text(), path.resolve().parent, os.environ)
    except FileNotFoundError:
        detail = f"there is no {path}: name the configuration with --config FILE, or write one with `tidegate init DIR`"
        fail("config_missing", detail, status=EXIT_UNAVAILABLE, as_json=as_json)
    except OSError as error:
        detail = f"{path} cannot be read by the user {user_name(os.geteuid())}: {error.strerror}"
        fail("config_missing", detail, status=EXIT_UNAVAILABLE, as_json=as_json)
    except (ConfigError, UnicodeDecodeError) as error:
        fail("config_invalid", f"{path}: {getattr(error, 'detail', str(error))}", as_json=as_json)


def token(
    subject: str = typer.Option(..., "--subject", help="Who asks."),
    tenant: str = typer.Option(..., "--tenant", help="The organisation they belong to, for example acme."),
    workspace: str = typer.Option(
        ..., "--workspace", help="The part of the tenant, with a ledger and a queue of its own."
    ),
    environment: str = typer.Option(
        ..., "--environment", help="Where they act, for example test or prod; policy decides by it."
    ),
    role: list[str] = typer.Option([], "--role", help="May be given several times."),
    ttl: str = typer.Option("1h", "--ttl", help="How long it is good for: 90s, 15m, 1h."),
    on_behalf_of: str = typer.Option("", "--on-behalf-of", help="The person this workload acts for."),
    config: Path = typer.Option(Path("tidegate.yaml"), "--config", help="The configuration file."),
    as_json: bool = JSON_OPTION,
) -> None:
    """Print a token of the development issuer."""
    given = {"--subject": subject, "--tenant": tenant, "--workspace": workspace, "--environment": environment}
    empty = [name for name, value in given.items() if not value.strip()]
    if empty:
        fail("usage", f"{', '.join(empty)}: empty", status=EXIT_USAGE, as_json=as_json)
    loaded = read_config(config, as_json=as_json)
    claims: dict[str, Any] = {
        "sub": subject,
        "tenant": tenant,
        "workspace": workspace,
        "environment": environment,
        "roles": role,
    }
    if on_behalf_of:
        claims |= {"sub": on_behalf_of, "act": {"sub": subject}}
    try:
        seconds, longest = ttl_seconds(ttl), development_issuer(loaded)[0].lifetime_max_seconds
        if seconds > longest:
            fail("usage", f"--ttl {ttl}: the issuer allows at most {longest}s", status=EXIT_USAGE, as_json=as_json)
        text = make_token(loaded, claims, lifetime_seconds=seconds, now=int(time.time()))
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    except ConfigError as error:
        fail(error.code, error.detail, as_json=as_json)
    except OSError as error:
        fail("key_missing", f"the issuer's private key cannot be read: {error.strerror}", as_json=as_json)
    emit(as_json, {"token": text}, lambda console: console.out(text))
