"""Identifiers: never the same twice, not even across a fork, and in the layout that they claim."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from datetime import UTC, datetime
from pathlib import Path

from pdp.fresh_ids import FreshIds, TimedIds

ROOT = Path(__file__).resolve().parents[2]
NOW_NS = 1_795_305_600_123_999_999
COUNT = 1_000
"""More than one pool of random bytes holds."""


def test_fresh_ids_never_repeat_and_are_the_random_source_s_bytes() -> None:
    given = bytearray()

    def random_bytes(count: int) -> bytes:
        given.extend(os.urandom(count))
        return bytes(given[-count:])

    ids = FreshIds(random_bytes)
    found = [ids() for _ in range(COUNT)]
    assert len(set(found)) == COUNT
    assert bytes.fromhex("".join(found)) == given[: COUNT * 16]


def test_fresh_ids_of_a_forked_child_are_others() -> None:
    program = """
import os
from pdp.fresh_ids import FreshIds
ids = FreshIds()
ids()
child = os.fork()
if child:
    os.waitpid(child, 0)
print(ids(), flush=True)
"""  # in a process without threads, which may fork; one writes after the other, in however many pieces
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    found = done.stdout.split()
    assert [len(each) for each in found] == [32, 32]
    assert found[0] != found[1]


def test_timed_ids_are_uuids_of_version_7_with_the_time_in_front() -> None:
    ids = TimedIds(now_ns=lambda: NOW_NS)
    found = [uuid.UUID(ids()) for _ in range(COUNT)]
    assert {each.version for each in found} == {7}
    assert {each.variant for each in found} == {uuid.RFC_4122}
    assert {each.int >> 80 for each in found} == {NOW_NS // 1_000_000}
    assert datetime.fromtimestamp((found[0].int >> 80) / 1000, UTC).year == 2026
    assert len(set(found)) == COUNT


def test_timed_ids_keep_74_random_bits() -> None:
    all_clear = TimedIds(lambda: "0" * 32, lambda: NOW_NS)()
    all_set = TimedIds(lambda: "f" * 32, lambda: NOW_NS)()
    assert (int(all_clear, 16) ^ int(all_set, 16)).bit_count() == 74
    variants = {TimedIds((digit * 32).__str__, lambda: NOW_NS)()[16] for digit in "0123456789abcdef"}
    assert variants == set("89ab")


def test_timed_ids_sort_by_their_time() -> None:
    times = iter(range(NOW_NS, NOW_NS + 100 * 1_000_000, 1_000_000))
    ids = TimedIds(now_ns=lambda: next(times))
    found = [ids() for _ in range(100)]
    assert found == sorted(found)
