"""Compiled modules on disk, so that a start does not compile again.

Guarantees that a module comes out only if this installation put it in: each file carries an HMAC-SHA256 over its name
and content, the directory belongs to this user and to nobody else. A file that fails is removed and counts as absent.
Leaves compiling to the engine, and the key to whoever configures it.

**Security**: a serialised module is machine code, and wasmtime does not notice a flipped byte in it: whoever can
write here unnoticed runs code in this process.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import stat
from pathlib import Path

from pdp.errors import PdpError

KEY_MIN_BYTES = 32
ENTRY_MAX_BYTES = 256 << 20
_TAG_BYTES = 32
_SUFFIX = ".cwasm"


class ModuleCacheUnusable(PdpError):
    """The directory or the key does not protect what would lie in it."""

    code = "module_cache_unusable"


class ModuleCache:
    """Serialised modules by a name that covers everything they depend on."""

    def __init__(self, directory: Path, key: bytes) -> None:
        """Make the directory (0700) or check that it is ours alone; raises ``ModuleCacheUnusable``."""
        if len(key) < KEY_MIN_BYTES:
            raise ModuleCacheUnusable(f"the key has fewer than {KEY_MIN_BYTES} bytes")
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            found = directory.lstat()
        except OSError as refused:
            raise ModuleCacheUnusable(f"{directory}: {refused.strerror}") from refused
        if not stat.S_ISDIR(found.st_mode):
            raise ModuleCacheUnusable(f"{directory} is not a directory")
        if hasattr(os, "getuid") and (found.st_uid != os.getuid() or found.st_mode & 0o077):
            raise ModuleCacheUnusable(f"{directory} must belong to this user with mode 0700")
        self._directory = directory
        self._key = key

    def get(self, name: str) -> bytes | None:
        """The serialised module stored under ``name``, or None; a file that does not prove itself is removed."""
        path = self._path(name)
        try:
            descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0))
        except FileNotFoundError:
            return None
        except OSError:
            self._remove(path)
            return None
        with os.fdopen(descriptor, "rb") as file:
            found = os.fstat(descriptor)
            sound = stat.S_ISREG(found.st_mode) and found.st_size <= ENTRY_MAX_BYTES
            raw = file.read(ENTRY_MAX_BYTES + 1) if sound else b""
        tag, module = raw[:_TAG_BYTES], raw[_TAG_BYTES:]
        if not module or not hmac.compare_digest(tag, self._tag(name, module)):
            self._remove(path)
            return None
        return module

    def put(self, name: str, module: bytes) -> None:
        """Store a serialised module; raises ``OSError`` when the disk refuses."""
        path = self._path(name)
        fresh = path.with_suffix(f".{os.getpid()}.{os.urandom(4).hex()}.tmp")
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0), 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(self._tag(name, module))
                file.write(module)
            fresh.replace(path)
        except BaseException:
            fresh.unlink(missing_ok=True)
            raise

    def _path(self, name: str) -> Path:
        return self._directory / f"{hashlib.sha256(name.encode()).hexdigest()}{_SUFFIX}"

    def _tag(self, name: str, module: bytes) -> bytes:
        return hmac.digest(self._key, len(name).to_bytes(4, "big") + name.encode() + module, "sha256")

    def _remove(self, path: Path) -> None:
        path.unlink(missing_ok=True)
