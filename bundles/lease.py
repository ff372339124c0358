"""The lease: until when a bundle may decide, by clocks that neither sleep nor an altered wall clock can stretch.

Guarantees: a lease ends at the earlier of its statement's ``exp`` on the wall clock and min(exp − now, longest lease) on the
boot clock; only a strictly later ``iat`` extends it; a wall clock behind the highest time that was kept ends it too, over
restarts. Leaves to its callers: reading clocks, keeping the record on disk, verifying statements.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from bundles.canonical import JsonValue, StrictJsonError, canonical_json, parse_strict
from bundles.errors import BundleRefused
from bundles.freshness import FreshnessStatement, read_statement
from bundles.trusted_set import TrustedKey

RECORD_MAX_BYTES: Final = 16_384
_MEMBERS: Final = frozenset({"v", "statement", "boot", "ends_boot_ms", "highest_wall_ms"})


@dataclass(frozen=True, slots=True)
class ClockReading:
    """Both clocks at one instant, in seconds; ``boot`` names this start of the machine, "" when nobody can tell.

    ``boot_seconds`` counts since that start and goes on while the machine sleeps (CLOCK_BOOTTIME).
    """

    wall_seconds: float
    boot_seconds: float
    boot: str


@dataclass(frozen=True, slots=True)
class Lease:
    """A statement in force, its end on the boot clock, and the highest wall time seen while a lease held."""

    statement: FreshnessStatement | None = None
    ends_boot_seconds: float = 0.0
    boot: str = ""
    highest_wall_seconds: float = 0.0

    def armed(self, statement: FreshnessStatement, clocks: ClockReading, *, longest_seconds: float) -> Lease:
        """The lease after ``statement``, verified a moment ago, arrived.

        The same statement again changes nothing; an earlier one raises ``freshness_replayed``, a wall clock behind the
        highest time kept raises ``freshness_clock_back``.
        """
        if clocks.wall_seconds < self.highest_wall_seconds:
            behind = self.highest_wall_seconds - clocks.wall_seconds
            raise BundleRefused("freshness_clock_back", f"the clock is {behind:.0f} seconds behind an earlier reading")
        held = self.statement
        if held is not None and held.bundle.name == statement.bundle.name:
            if statement.issued_at < held.issued_at:
                earlier = held.issued_at - statement.issued_at
                raise BundleRefused("freshness_replayed", f"made {earlier} seconds before the statement held")
            if statement.issued_at == held.issued_at and statement.bundle == held.bundle:
                return self
            if statement.issued_at == held.issued_at and statement.bundle.sequence <= held.bundle.sequence:
                raise BundleRefused("freshness_replayed", "made at the same second for an earlier bundle")
        remaining = min(statement.expires_at - clocks.wall_seconds, longest_seconds)
        return Lease(statement, clocks.boot_seconds + remaining, clocks.boot, _whole(clocks.wall_seconds))

    def remaining_seconds(self, clocks: ClockReading) -> float:
        """How long the lease still holds; 0 when it has ended or never began."""
        if self.statement is None or clocks.wall_seconds < self.highest_wall_seconds:
            return 0.0
        if clocks.boot != self.boot:
            # Read back without the machine's start in common: `restored` gave it an end on this boot's clock.
            return 0.0
        left = min(self.statement.expires_at - clocks.wall_seconds, self.ends_boot_seconds - clocks.boot_seconds)
        return max(0.0, left)

    def holds(self, clocks: ClockReading) -> bool:
        """Whether the bundle may decide at this instant."""
        return self.remaining_seconds(clocks) > 0.0

    def bounds(self) -> tuple[float, float, float]:
        """Lowest wall time, first wall time and first boot time past the lease: what each call compares with."""
        if self.statement is None:
            return 0.0, 0.0, 0.0
        return self.highest_wall_seconds, float(self.statement.expires_at), self.ends_boot_seconds

    def observed(self, clocks: ClockReading) -> Lease:
        """The lease with the wall time remembered, while it holds.

        A clock that jumped past the end is not remembered: it ends the lease, and a corrected clock may begin a new one.
        """
        if not self.holds(clocks) or _whole(clocks.wall_seconds) <= self.highest_wall_seconds:
            return self
        return replace(self, highest_wall_seconds=_whole(clocks.wall_seconds))

    def record(self) -> bytes:
        """What a restart needs, as canonical JSON; the statement in its signed form, so that it is checked again."""
        document: dict[str, JsonValue] = {
            "v": 1,
            "statement": self.statement.token if self.statement is not None else None,
            "boot": self.boot,
            "ends_boot_ms": max(0, int(self.ends_boot_seconds * 1000)),
            "highest_wall_ms": max(0, int(self.highest_wall_seconds * 1000)),
        }
        return canonical_json(document) + b"\n"


def restored(raw: bytes, keys: Sequence[TrustedKey], clocks: ClockReading, *, longest_seconds: float) -> Lease:
    """The lease that :meth:`Lease.record` kept, as far as it still counts.

    After a restart of the machine the boot clock began anew: the end is then what remains on the wall clock, at most
    ``longest_seconds``. Raises :class:`BundleRefused` ``lease_record_invalid``; a statement whose key is trusted no longer
    raises what ``read_statement`` raises.

    **Security**: whoever can write the record can lengthen a lease only up to the signed ``exp``.
    """
    document = _members(raw)
    token, boot = document["statement"], document["boot"]
    ends, highest = _seconds(document["ends_boot_ms"]), _seconds(document["highest_wall_ms"])
    if not isinstance(boot, str) or not isinstance(token, (str, type(None))):
        raise BundleRefused("lease_record_invalid", "boot and statement are strings")
    if token is None:
        return Lease(highest_wall_seconds=highest)
    statement = read_statement(token, keys)
    at_most = clocks.boot_seconds + min(statement.expires_at - clocks.wall_seconds, longest_seconds)
    same_boot = boot != "" and boot == clocks.boot
    return Lease(statement, min(ends, at_most) if same_boot else at_most, clocks.boot, highest)


def highest_wall_of(raw: bytes) -> float:
    """The highest wall time in a record, whoever signed its statement; raises ``lease_record_invalid``."""
    return _seconds(_members(raw)["highest_wall_ms"])


def _members(raw: bytes) -> dict[str, JsonValue]:
    try:
        document = parse_strict(raw, max_bytes=RECORD_MAX_BYTES, max_depth=2)
    except StrictJsonError as refused:
        raise BundleRefused("lease_record_invalid", str(refused)) from refused
    if not isinstance(document, dict) or set(document) != _MEMBERS or document["v"] != 1:
        raise BundleRefused("lease_record_invalid", "not a lease record of this version")
    return document


def _whole(wall_seconds: float) -> float:
    """Whole seconds, so that the last digits of a clock that is being slewed end no lease."""
    return float(int(wall_seconds))


def _seconds(value: JsonValue) -> float:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise BundleRefused("lease_record_invalid", "times are whole milliseconds")
    return value / 1000
