"""Decisions that may be given again: which question is the same one, and for how long its answer stands.

Guarantees: an answer is given again only to the same question of the same tenant, as long as the decision itself asked
for, and never after either clock says that this time is over; entries and bytes of each tenant are bounded, the number
of tenants too. Leaves to `pdp.prepared` that a cache belongs to one bundle in force, and that neither the bundle's
`exp` nor its lease has ended when it is asked.

**Security**: the key covers all of the input but the clock (`context.time`, `context.clock`) and the call's own id
(`context.call`). The build finds out which policies read those (`bundles.profile.is_cacheable`); only the others may
ask for caching.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import orjson

CACHE_SECONDS_MAX: Final = 3600
LIBRARY_FOLDER: Final = "lib/"
_LEFT_OUT: Final = frozenset({"time", "clock", "call"})
_ENTRY_BYTES: Final = 256
"""What an entry costs beside its document."""


class CacheLimits(NamedTuple):
    """How much is kept, of each tenant, and of how many tenants; the least recently used goes first."""

    entries_max: int = 4096
    bytes_max: int = 8 << 20
    tenants_max: int = 256


class Key(NamedTuple):
    """A question: whose, and the digest of its input without what differs between two equal ones."""

    tenant: str
    digest: bytes


class Instant(NamedTuple):
    """Now by the wall clock and by one that never goes back, in seconds.

    The steady clock stands still while a machine sleeps, the wall clock can be set: either alone could keep an answer.
    """

    wall: float
    steady: float


@dataclass(slots=True)
class _Entry:
    document: bytes
    since: float
    wall_until: float
    steady_until: float

    def stands(self, now: Instant) -> bool:
        return self.since <= now.wall < self.wall_until and now.steady < self.steady_until


@dataclass(slots=True)
class _Tenant:
    entries: OrderedDict[bytes, _Entry] = field(default_factory=OrderedDict)
    size: int = 0


def asks_for_caching(rego: Mapping[str, bytes]) -> bool:
    """Whether any policy so much as mentions caching; where none does, keeping answers would be work for nothing."""
    return any(b"cache" in raw for name, raw in rego.items() if not name.startswith(LIBRARY_FOLDER))


def question_key(input_bytes: bytes) -> Key | None:
    """The key of an encoded input document; None for one that is too deep to be written again."""
    document = orjson.loads(input_bytes)
    context = document.get("context")
    if isinstance(context, dict):
        document["context"] = {name: value for name, value in context.items() if name not in _LEFT_OUT}
    try:
        canonical = orjson.dumps(document, option=orjson.OPT_SORT_KEYS)
    except TypeError:
        return None
    return Key(_tenant_of(document), hashlib.sha256(canonical).digest())


def cache_seconds_of(document: bytes) -> int:
    """How long a decision document may be given again: above 0 only for an ALLOW with no other obligation."""
    try:
        decision = orjson.loads(document)
    except orjson.JSONDecodeError:  # no decision at all; whoever parses it says so
        return 0
    if not isinstance(decision, dict) or decision.get("effect") != "ALLOW":
        return 0
    obligations = decision.get("obligations")
    if not isinstance(obligations, dict) or obligations.keys() != {"cache_seconds"}:
        return 0
    seconds = obligations["cache_seconds"]
    if type(seconds) is not int or seconds <= 0:
        return 0
    return min(seconds, CACHE_SECONDS_MAX)


class DecisionCache:
    """Decision documents of one bundle, by question. Belongs to one event loop."""

    def __init__(self, limits: CacheLimits = CacheLimits()) -> None:  # noqa: B008 - a frozen value
        self._limits = limits
        self._tenants: OrderedDict[str, _Tenant] = OrderedDict()

    def get(self, key: Key, now: Instant) -> bytes | None:
        """The document that stands for this question, if one does."""
        tenant = self._tenants.get(key.tenant)
        entry = tenant.entries.get(key.digest) if tenant is not None else None
        if tenant is None or entry is None:
            return None
        if not entry.stands(now):
            _drop(tenant, key.digest)
            return None
        self._tenants.move_to_end(key.tenant)
        tenant.entries.move_to_end(key.digest)
        return entry.document

    def put(self, key: Key, document: bytes, seconds: int, now: Instant) -> None:
        """Keep a document for so many seconds; one that is larger than a tenant's share is not kept."""
        if seconds <= 0 or len(document) + _ENTRY_BYTES > self._limits.bytes_max:
            return
        tenant = self._tenants.setdefault(key.tenant, _Tenant())
        self._tenants.move_to_end(key.tenant)
        if key.digest in tenant.entries:
            _drop(tenant, key.digest)
        tenant.entries[key.digest] = _Entry(document, now.wall, now.wall + seconds, now.steady + seconds)
        tenant.size += len(document) + _ENTRY_BYTES
        while len(tenant.entries) > self._limits.entries_max or tenant.size > self._limits.bytes_max:
            _drop(tenant, next(iter(tenant.entries)))
        while len(self._tenants) > self._limits.tenants_max:
            self._tenants.popitem(last=False)

    def __len__(self) -> int:
        """How many documents are kept."""
        return sum(len(tenant.entries) for tenant in self._tenants.values())


def _drop(tenant: _Tenant, digest: bytes) -> None:
    tenant.size -= len(tenant.entries.pop(digest).document) + _ENTRY_BYTES


def _tenant_of(document: dict[str, Any]) -> str:
    subject = document.get("subject")
    properties = subject.get("properties") if isinstance(subject, dict) else None
    tenant = properties.get("tenant") if isinstance(properties, dict) else None
    return tenant if isinstance(tenant, str) else ""
