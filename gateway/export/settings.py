"""The configuration's section `decision_logs`: who is handed decisions and status, and what is hidden from them.

Guarantees: addresses carry no secret, secrets stand only as references, a mask cannot touch what tells events apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Final, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue, model_validator

from bundles.loopback import is_loopback
from gateway.bundle_config import SecretReference

UPLOAD_MIN_BYTES: Final = 4096
UPLOAD_DEFAULT_BYTES: Final = 32_768
"""OPA's own default, which every collector of its logs takes."""
_KEPT: Final = ("decision_id", "timestamp", "labels", "erased", "masked")


def _service(value: str) -> str:
    parts = urlsplit(value)
    if parts.username or parts.password or parts.query or parts.fragment or not parts.hostname or parts.port == 0:
        raise ValueError("must be https://HOST[/PATH], without a secret, query or fragment")
    if parts.scheme != "https" and not (parts.scheme == "http" and is_loopback(parts.hostname)):
        raise ValueError("must be https://…; http://… only on this machine")
    return value.rstrip("/")


def _pointer(value: str) -> str:
    steps = value.split("/")
    if steps[0] or len(steps) < 2 or "" in steps[1:] or "~" in value.replace("~0", "").replace("~1", ""):
        raise ValueError("must be a JSON Pointer into an event, such as /input/subject/id")
    if steps[1] in _KEPT:
        raise ValueError(f"/{steps[1]} tells events apart and is never masked")
    return value


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class MaskRule(_Section):
    """One place in every event: removed (listed in `erased`) or replaced by `value` (listed in `masked`)."""

    path: Annotated[str, AfterValidator(_pointer)]
    op: Literal["remove", "upsert"] = "remove"
    value: JsonValue = None

    @model_validator(mode="after")
    def _value_is_for_upsert(self) -> MaskRule:
        if self.op == "remove" and "value" in self.model_fields_set:
            raise ValueError("value is only for op: upsert")
        return self


class DecisionLog(_Section):
    """One collector: its address, whose decisions it gets, how they are sent and what is hidden."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")
    tenants: list[str] = Field(min_length=1)
    service: Annotated[str, AfterValidator(_service)]
    partition: str | None = Field(None, pattern=r"^[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}$")
    token: SecretReference | None = None
    allow_addresses: list[str] = []
    labels: dict[str, str] = {}
    upload_max_bytes: int = Field(UPLOAD_DEFAULT_BYTES, ge=UPLOAD_MIN_BYTES, le=8 << 20)
    delay_seconds: int = Field(5, ge=1, le=3600)
    retry_max_seconds: int = Field(300, ge=1, le=3600)
    status_seconds: int = Field(60, ge=0, le=3600)
    mask: list[MaskRule] = Field([], max_length=64)


def check_decision_logs(logs: Sequence[DecisionLog], *, development: bool) -> None:
    """What the section as a whole has to keep. Raises `ValueError`."""
    names = [exported.name for exported in logs]
    if len(set(names)) != len(names):
        raise ValueError("a decision log is named twice")
    for exported in logs:
        if "*" in exported.tenants and not development:
            raise ValueError(f'decision_logs.{exported.name}: tenants "*" only beside a development issuer')
