"""The files that a configuration refers to: which are missing, unreadable for this user, or open to others.

Guarantees: each file is named once, with the place in the configuration that refers to it and the mend; nothing of a file's content
is shown. Leaves what the files have to hold to those who read them.
"""

from __future__ import annotations

import os
import pwd
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gateway.config import GatewayConfig

_FILE: Final = "file:"
_PEM_HEAD_BYTES: Final = 1 << 16


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong and what mends it."""

    what: str
    mend: str


def user_name(number: int) -> str:
    """A user of this machine by name; by number where the number has none."""
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)


def unreadable(path: Path, error: OSError) -> Finding:
    """What to say of a file that the user who runs the command may not read."""
    user = user_name(os.geteuid())
    owner = next((user_name(found.st_uid) for found in _seen(path)), "its owner")
    said = f"{path} cannot be read by the user {user}: {error.strerror}"
    mend = f"run this as {owner}" if owner != user else "give this user the right to read it"
    return Finding(said, f"{mend}; the gate runs as the owner of its files")


def _seen(path: Path) -> Iterator[os.stat_result]:
    """The file, or the nearest folder above it that can be looked at."""
    for place in (path, *path.parents):
        try:
            yield place.stat()
        except OSError:
            continue


def private_files(config: GatewayConfig) -> dict[Path, str]:
    """The files of secrets and private keys, and what in the configuration refers to them."""
    document = config.document
    named = [("ledger.hmac", document.ledger.hmac)]
    for name, instance in document.instances.items():
        named += [(f"instances.{name}.credential.{key}", value) for key, value in instance.credential.items()]
    named += [(f"bundles.{each.name}.token", each.token) for each in document.bundles if each.token]
    named += [(f"decision_logs.{each.name}.token", each.token) for each in document.decision_logs if each.token]
    door = document.listen.ext_authz
    if door is not None and door.tls is not None:
        named.append(("listen.ext_authz.tls.key", door.tls.key))
    return _by_path(config, named)


def public_files(config: GatewayConfig) -> dict[Path, str]:
    """The files that others may read: key sets, bundles, the keys that verify them."""
    document = config.document
    named = [(f"identity.issuers ({each.issuer}) jwks", each.jwks) for each in document.identity.issuers]
    for bundle in document.bundles:
        named.append((f"bundles.{bundle.name}.source", bundle.source))
        named += [(f"bundles.{bundle.name}.trusted_keys", each.key) for each in bundle.trusted_keys]
        named += [(f"bundles.{bundle.name}.freshness_keys", each.key) for each in bundle.freshness_keys]
    return _by_path(config, named)


def _by_path(config: GatewayConfig, named: Iterable[tuple[str, str]]) -> dict[Path, str]:
    found: dict[Path, str] = {}
    for place, reference in named:
        if reference.startswith(_FILE):
            found.setdefault(config.file(reference), place)
    return found


def file_findings(config: GatewayConfig) -> list[Finding]:
    """What is wrong with the files that the configuration refers to, and with private keys that lie beside them
    (security rule 27)."""
    private, public = private_files(config), public_files(config)
    found = [*_each(private, is_private=True), *_each(public, is_private=False)]
    folders = sorted({path.parent for path in (*private, *public)})
    beside = {path: "" for folder in folders for path in _private_keys(folder) if path not in private}
    return found + _each(beside, is_private=True)


def _each(files: dict[Path, str], *, is_private: bool) -> list[Finding]:
    found: list[Finding] = []
    for path, place in files.items():
        try:
            mode = path.stat().st_mode
            with path.open("rb"):
                pass
        except FileNotFoundError:
            found.append(Finding(f"{path} is missing; {place} refers to it", f"put it there, or mend {place}"))
        except OSError as error:
            found.append(unreadable(path, error))
        else:
            if is_private and stat.S_IMODE(mode) & 0o077:
                found.append(Finding(f"{path} can be read by other users", f"chmod 600 {path}"))
    return found


def _private_keys(folder: Path) -> list[Path]:
    """Private keys in a folder, whatever they are for; none where the folder cannot be looked into."""
    try:
        candidates = sorted(path for path in folder.iterdir() if path.name.endswith(".pem") and path.is_file())
    except OSError:
        return []
    return [path for path in candidates if _is_private_key(path)]


def _is_private_key(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return b"PRIVATE KEY" in file.read(_PEM_HEAD_BYTES)
    except OSError:
        return False
