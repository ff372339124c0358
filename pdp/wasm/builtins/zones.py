"""Time zones for ``time.*``: which there are, and how far a zone is from UTC at an instant.

Guarantees the same answer on every machine: rules come from the package ``tzdata`` alone, which ships with this code and
is read as a module's own data is, once for each zone. Leaves it to whoever runs OPA beside it to give OPA the same
release (``ZONEINFO``); Go reads the machine's database first.

Declined are instants before 1970 in zones other than UTC, because builds of the same release differ there, and names that
only the machine knows.

**Security**: a name is looked up among the package's and never becomes a path.
"""

from __future__ import annotations

import pkgutil
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final
from zoneinfo import ZoneInfo

from pdp.wasm.builtins.values import Declined, Undefined

ZONES_MAX: Final = 256
"""Zones that are kept; one takes a few kilobytes."""
_PACKAGE: Final = "tzdata"
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_UTC: Final = frozenset(("", "UTC"))
_OF_THE_MACHINE: Final = frozenset(("local", "localtime", "posixrules"))
_BUILDS: Final = frozenset(("posix", "right"))
_SECOND: Final = timedelta(seconds=1)

Zone = ZoneInfo | None
"""``None`` is UTC itself, which has no bounds; zones that are UTC by another name are read like all others."""


def package_data(package: str, name: str) -> bytes:
    """A file that lies in a package, read as an import reads a module; raises ``OSError`` and ``ImportError``."""
    raw = pkgutil.get_data(package, name)
    if raw is None:
        raise ImportError(f"{package} has no data")
    return raw


NAMES: Final = frozenset(package_data(_PACKAGE, "zones").decode("ascii").split())
"""Every zone that there is, besides the two names of UTC."""
_LOWERED: Final = frozenset(name.lower() for name in NAMES)


def zone(name: str) -> Zone:
    """The zone of this name; raises ``Undefined`` for one that is nowhere, ``Declined`` for one of the machine's."""
    if name in _UTC:
        return None
    if name in NAMES:
        return _loaded(name)
    if not name.startswith(("/", "\\")) and _may_be_a_file(name):
        raise Declined("a time zone that only the machine knows")
    raise Undefined


def offset(place: Zone, seconds: int) -> tuple[int, str]:
    """Seconds east of UTC, and the abbreviation in use, ``seconds`` after 1970 began; raises ``Declined`` before it."""
    if place is None:
        return 0, "UTC"
    if seconds < 0:
        raise Declined("an instant before 1970 in a time zone")
    local = (_EPOCH + seconds * _SECOND).astimezone(place)
    return (local.utcoffset() or timedelta()) // _SECOND, local.tzname() or ""


def _may_be_a_file(name: str) -> bool:
    """Whether a folder of the machine may know this name, though the package does not: by another spelling or build."""
    steps = [step for step in name.lower().split("/") if step not in ("", ".")]
    plain = "/".join(steps[1:] if steps[:1] and steps[0] in _BUILDS else steps)
    return plain in _LOWERED or plain in _OF_THE_MACHINE


@lru_cache(maxsize=ZONES_MAX)
def _loaded(name: str) -> ZoneInfo:
    return ZoneInfo.from_file(_Reading(package_data(_PACKAGE, f"zoneinfo/{name}")), name)


class _Reading:
    """Bytes in memory, read the way ``ZoneInfo`` reads a file."""

    def __init__(self, raw: bytes) -> None:
        self._raw = raw
        self._at = 0

    def read(self, count: int, /) -> bytes:
        """The next bytes, at most ``count``."""
        found = self._raw[self._at : self._at + count]
        self._at += count
        return found

    def seek(self, count: int, whence: int = 1, /) -> int:
        """Skip; nothing asks for another ``whence``."""
        self._at += count
        return self._at
