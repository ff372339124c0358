"""The configuration's sections `records`, `shadow` and `cross_check`: what is kept of decisions, and what they are compared with.

Guarantees: nothing is kept and nothing compared unless it is asked for; every bound has its unit in its name.
"""

from __future__ import annotations

from typing import Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator

from bundles.loopback import is_loopback


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Records(_Section):
    """What is kept beside the records, which hold digests only.

    With `inputs_keep_seconds` above 0 what policy was asked about each call is kept that long, encrypted under its
    tenant's key: arguments included.
    """

    inputs_keep_seconds: int = Field(0, ge=0, le=366 * 86_400)


class Shadow(_Section):
    """A second signed bundle, trusted by the same keys as the one with policies; it is asked after each answer and never
    enforced."""

    source: str = Field(pattern=r"^file:.+$")
    queue_max: int = Field(4096, ge=1, le=65_536)
    keep_seconds: int = Field(7 * 86_400, ge=60, le=366 * 86_400)


class CrossCheck(_Section):
    """An OPA server that holds the same bundle; a share of the embedded engine's decisions is put to it as well, after the
    answer. With `quarantine` a bundle that the two engines read differently decides no more."""

    opa: str
    share: float = Field(0.01, gt=0, le=1)
    on_difference: Literal["alarm", "quarantine"] = "alarm"
    queue_max: int = Field(1024, ge=1, le=65_536)
    keep_seconds: int = Field(7 * 86_400, ge=60, le=366 * 86_400)

    @field_validator("opa")
    @classmethod
    def _is_near(cls, url: str) -> str:
        """Its answers carry no signature, so it is on this machine."""
        parts = urlsplit(url)
        is_socket = parts.scheme == "unix" and not parts.netloc and len(parts.path) > 1
        if not is_socket and not (parts.scheme == "http" and parts.port and is_loopback(parts.hostname or "")):
            raise ValueError("expected unix:///path or http://127.0.0.1:port")
        return url
