"""The configuration of the ext_authz door, `listen.ext_authz`.

Guarantees: in the clear it listens on loopback or a Unix socket only; anywhere else it has a certificate, an authority for its
peers' certificates and the names that these may have. Leaves reading files to `server`.
"""

from __future__ import annotations

import re
from typing import Annotated, Final

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from bundles.loopback import is_loopback

UNIX: Final = "unix:"
UNIX_PATH_MAX_BYTES: Final = 100
_ADDRESS: Final = re.compile(r"([^\s/]+):([0-9]{1,5})")


def _address(value: str) -> str:
    if value.startswith(UNIX):
        path = value.removeprefix(UNIX)
        if not path or "\0" in path or len(path.encode()) > UNIX_PATH_MAX_BYTES:
            raise ValueError(f"must be HOST:PORT or unix:PATH of at most {UNIX_PATH_MAX_BYTES} bytes")
        return value
    found = _ADDRESS.fullmatch(value)
    if found is None or int(found[2]) > 65535:
        raise ValueError("must be HOST:PORT or unix:PATH")
    return value


DoorAddress = Annotated[str, AfterValidator(_address)]
FileReference = Annotated[str, Field(pattern=r"^file:.+$")]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class DoorTls(_Section):
    """Mutual TLS of the door: its certificate and key, whose certificates it takes, and which names these must bear."""

    certificate: FileReference
    key: FileReference
    client_ca: FileReference
    peers: list[str] = Field(min_length=1)


class ExtAuthz(_Section):
    """Where Envoy asks, and how long a question may take."""

    address: DoorAddress
    tls: DoorTls | None = None
    deadline_ms: int = Field(1000, ge=10, le=60_000)

    @model_validator(mode="after")
    def _is_guarded(self) -> ExtAuthz:
        if self.tls is None and not self.is_local:
            raise ValueError("an address that others can reach needs tls with client_ca and peers")
        if self.tls is not None and self.address.startswith(UNIX):
            raise ValueError("a Unix socket takes no tls; its folder says who may ask")
        return self

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach it."""
        if self.address.startswith(UNIX):
            return True
        return is_loopback(self.address.rpartition(":")[0].strip("[]"))
