"""Reading the store's key file.

Guarantees: a key that other users can read, or that is too short, is refused with the mend in words. Leaves making the
file to `tidegate init`.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Final

from gateway.errors import GateMisuse
from gateway.store.sealing import KEY_MIN_BYTES

KEY_FILE_MAX_BYTES: Final = 4096


def read_key_file(path: Path) -> bytes:
    """The secret in `path`: raw bytes, or their hex form with an optional line end.

    Errors: `GateMisuse` when the file is absent, readable by others, too short or too long. **Security**: mode is
    checked on the opened file, not on the name.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        mend = "; `tidegate init` makes one" if isinstance(error, FileNotFoundError) else ""
        raise GateMisuse(f"key file {path}: {error.strerror}{mend}") from error
    with os.fdopen(descriptor, "rb") as file:
        if os.fstat(file.fileno()).st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise GateMisuse(f"key file {path} is open to other users; `chmod 600 {path}`")
        data = file.read(KEY_FILE_MAX_BYTES + 1)
    secret = _decoded(data)
    if not KEY_MIN_BYTES <= len(secret) <= KEY_FILE_MAX_BYTES:
        raise GateMisuse(f"key file {path} needs {KEY_MIN_BYTES} to {KEY_FILE_MAX_BYTES} bytes")
    return secret


def _decoded(data: bytes) -> bytes:
    stripped = data.strip()
    if (
        len(stripped) >= 2 * KEY_MIN_BYTES
        and len(stripped) % 2 == 0
        and set(stripped) <= set(b"0123456789abcdefABCDEF")
    ):
        return bytes.fromhex(stripped.decode("ascii"))
    return data
