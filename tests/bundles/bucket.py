"""A bucket without a network, with the port that production uses: atomic conditions, and faults by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from bundles.errors import BundleRefused
from bundles.s3_answers import StorageFault
from bundles.s3_shelf import Found, Missing, ObjectShelf, ObjectShelves, ShelfSettings
from bundles.service_config import ServedBundle, ServedKey

SERVED = ServedBundle(
    name="main", trusted_keys=[ServedKey(keyid="bundle", algorithm="ES256", key="file:bundle.pub.pem")]
)
INDEX = "p/published/_/main/index.json"

DOWN = StorageFault("storage_unreachable", "down", undone=True)
LOST = StorageFault("storage_timeout", "no answer", undone=False)
FORBIDDEN = StorageFault("storage_forbidden", "no", undone=True)


class Bucket:
    """The objects, what happens before each operation, and what was said. Several shelves may share one."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.before: dict[tuple[str, str], StorageFault] = {}
        """Operation and end of the key → the fault instead of the operation."""
        self.after: dict[tuple[str, str], StorageFault] = {}
        """The same, once, when the operation was carried out and only its answer was lost."""
        self._lost = False
        self.meanwhile: Callable[[], None] | None = None
        """What somebody else does just before the next conditional write."""
        self.after_lost: Callable[[], None] | None = None
        """What somebody else does just before the first look after a lost answer."""
        self.heeds = frozenset({"If-Match", "If-None-Match"})
        self.asked: list[tuple[str, str]] = []
        self.now = 0.0
        self.said: list[tuple[str, Mapping[str, object]]] = []

    def shelves(self, *, history_max_count: int = 32) -> ObjectShelves:
        """What a service sees of this bucket."""
        settings = ShelfSettings(
            prefix="p/",
            history_max_count=history_max_count,
            unconfirmed_max_seconds=100.0,
            boot_clock=lambda: self.now,
            say=lambda what, fields: self.said.append((what, fields)),
        )
        return ObjectShelves(self, settings)

    def shelf(self, *, history_max_count: int = 32) -> ObjectShelf:
        """The place of the bundle ``main``, as one more service sees it."""
        return self.shelves(history_max_count=history_max_count).shelf(SERVED)

    # -- the port ---------------------------------------------------------------------------------------------------

    def place(self, key: str) -> str:
        return f"bucket, {key}"

    def get(self, key: str, *, max_bytes: int, unless_etag: str | None = None) -> Found | Missing:
        self._fail("get", key)
        if self._lost and self.after_lost is not None:
            other, self.after_lost = self.after_lost, None
            other()
        body = self.objects.get(key)
        if body is None:
            return Missing.ABSENT
        if _etag(body) == unless_etag:
            return Missing.UNCHANGED
        if len(body) > max_bytes:
            raise StorageFault("storage_damaged", f"{key} is too large", undone=True)
        return Found(_etag(body), body)

    def put(self, key: str, body: bytes) -> None:
        self._fail("put", key)
        self.objects[key] = body

    def swap(self, key: str, body: bytes, *, expected: str | None) -> str:
        self._fail("swap", key)
        if self.meanwhile is not None:
            other, self.meanwhile = self.meanwhile, None
            other()
        there = self.objects.get(key)
        if expected is None:
            if there is not None and "If-None-Match" in self.heeds:
                raise BundleRefused("precondition_failed", "it is there")
        elif (there is None or _etag(there) != expected) and "If-Match" in self.heeds:
            raise BundleRefused("precondition_failed", "it is another")
        self.objects[key] = body
        if ("swap", key.rpartition("/")[2]) in self.after:
            self._lost = True
            raise self.after.pop(("swap", key.rpartition("/")[2]))
        return _etag(body)

    def delete(self, key: str) -> None:
        self._fail("delete", key)
        self.objects.pop(key, None)

    def _fail(self, operation: str, key: str) -> None:
        self.asked.append((operation, key))
        for (kind, end), fault in self.before.items():
            if kind == operation and key.endswith(end):
                raise fault


def _etag(body: bytes) -> str:
    return f'"{hash(body):x}"'
