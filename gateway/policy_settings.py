"""The configuration's sections `records` and `shadow`: what is kept of decisions, and which bundle they are compared with.

Guarantees: nothing is kept and nothing compared unless it is asked for; every bound has its unit in its name.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


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
