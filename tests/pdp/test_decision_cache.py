"""The decision cache: the same question, the same tenant, the time that was asked for, and no more of anything."""

from __future__ import annotations

import copy
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pdp.decision_cache import (
    CACHE_SECONDS_MAX,
    CacheLimits,
    DecisionCache,
    Instant,
    Key,
    cache_seconds_of,
    question_key,
)

INPUT: dict[str, Any] = {
    "v": 1,
    "subject": {"type": "agent", "id": "bot", "properties": {"tenant": "acme", "roles": ["triage"]}},
    "action": {"name": "a.read", "properties": {"mode": "read"}},
    "resource": {"type": "t", "id": "1", "properties": {"connector": "a"}},
    "args": {"n": 1, "f": 0.5},
    "context": {"time": "2026-01-14T10:30:00.000Z", "clock": {"unix": 1}, "call": "c1", "ticket": "T1"},
}
NOW = Instant(1000.0, 50.0)
DOCUMENT = b'{"effect":"ALLOW"}'


def key(**changed: Any) -> Key:
    """The key of the question with parts replaced, by a path of names joined with dots."""
    document = copy.deepcopy(INPUT)
    for path, value in changed.items():
        *steps, last = path.split("__")
        at = document
        for step in steps:
            at = at[step]
        at[last] = value
    found = question_key(orjson.dumps(document))
    assert found is not None
    return found


SAME: dict[str, dict[str, Any]] = {
    "another time": {"context__time": "2027-01-01T00:00:00.000Z"},
    "another clock": {"context__clock": {"unix": 2}},
    "another call": {"context__call": "c2"},
}
OTHER: dict[str, dict[str, Any]] = {
    "another subject": {"subject__id": "other"},
    "other roles": {"subject__properties__roles": []},
    "another action": {"action__name": "a.write"},
    "another resource": {"resource__id": "2"},
    "another argument": {"args__n": 2},
    "an argument of another type": {"args__n": "1"},
    "an argument that is true": {"args__n": True},
    "another ticket": {"context__ticket": "T2"},
    "an approval": {"context__approval": {"state": "approved"}},
    "facts": {"context__facts": {"x": 1}},
    "another version": {"v": 2},
    "a member called time among the arguments": {"args__time": "x"},
}


@pytest.mark.parametrize("changed", SAME.values(), ids=SAME.keys())
def test_question_is_the_same_at(changed: dict[str, Any]) -> None:
    assert key(**changed) == key()


@pytest.mark.parametrize("changed", OTHER.values(), ids=OTHER.keys())
def test_question_is_another_one_with(changed: dict[str, Any]) -> None:
    assert key(**changed).digest != key().digest


def test_question_is_the_same_when_its_members_stand_in_another_order() -> None:
    assert question_key(orjson.dumps(dict(reversed(INPUT.items())))) == key()


def test_question_belongs_to_the_tenant_of_its_subject() -> None:
    assert key().tenant == "acme"
    assert key(subject__properties__tenant="globex") != key()


def test_question_has_no_key_when_it_is_too_deep_to_be_written_again() -> None:
    raw = orjson.dumps({**INPUT, "args": {}})[:-1]
    text = raw.replace(b'"args":{}', b'"args":{"deep":' + b"[" * 300 + b"1" + b"]" * 300 + b"}") + b"}"
    assert question_key(text) is None


SECONDS: dict[str, tuple[Any, int]] = {
    "a plain permission": ({"effect": "ALLOW", "reasons": [], "obligations": {"cache_seconds": 60}}, 60),
    "longer than the longest": ({"effect": "ALLOW", "obligations": {"cache_seconds": 999_999}}, CACHE_SECONDS_MAX),
    "no time": ({"effect": "ALLOW", "obligations": {}}, 0),
    "no seconds": ({"effect": "ALLOW", "obligations": {"cache_seconds": 0}}, 0),
    "seconds below none": ({"effect": "ALLOW", "obligations": {"cache_seconds": -1}}, 0),
    "true": ({"effect": "ALLOW", "obligations": {"cache_seconds": True}}, 0),
    "a fraction": ({"effect": "ALLOW", "obligations": {"cache_seconds": 1.5}}, 0),
    "text": ({"effect": "ALLOW", "obligations": {"cache_seconds": "60"}}, 0),
    "a denial": ({"effect": "DENY", "obligations": {"cache_seconds": 60}}, 0),
    "a hold": ({"effect": "REQUIRE_HITL", "obligations": {"cache_seconds": 60, "approval": {}}}, 0),
    "another obligation beside it": ({"effect": "ALLOW", "obligations": {"cache_seconds": 60, "redact": []}}, 0),
    "obligations that are a list": ({"effect": "ALLOW", "obligations": ["cache_seconds"]}, 0),
    "no object": ([1], 0),
}


@pytest.mark.parametrize(("document", "seconds"), SECONDS.values(), ids=SECONDS.keys())
def test_document_may_be_given_again_for(document: Any, seconds: int) -> None:
    assert cache_seconds_of(orjson.dumps(document)) == seconds


def test_document_that_is_no_json_may_not_be_given_again() -> None:
    assert cache_seconds_of(b"") == 0


TIMES: dict[str, tuple[Instant, bool]] = {
    "at once": (NOW, True),
    "just before the end": (Instant(1009.9, 59.9), True),
    "at the end of the wall clock": (Instant(1010.0, 51.0), False),
    "at the end of the steady clock": (Instant(1001.0, 60.0), False),
    "with the wall clock set back": (Instant(999.9, 51.0), False),
    "after a sleep, which stops the steady clock": (Instant(9999.0, 50.1), False),
}


@pytest.mark.parametrize(("later", "stands"), TIMES.values(), ids=TIMES.keys())
def test_answer_stands(later: Instant, stands: bool) -> None:
    cache = DecisionCache()
    cache.put(key(), DOCUMENT, 10, NOW)
    assert (cache.get(key(), later) is not None) is stands
    assert len(cache) == int(stands)


def test_answer_is_given_to_nobody_of_another_tenant() -> None:
    cache = DecisionCache()
    cache.put(key(), DOCUMENT, 10, NOW)
    assert cache.get(Key("globex", key().digest), NOW) is None


@pytest.mark.parametrize("seconds", [0, -1])
def test_answer_is_not_kept_when_it_may_not_be_given_again(seconds: int) -> None:
    cache = DecisionCache()
    cache.put(key(), DOCUMENT, seconds, NOW)
    assert len(cache) == 0


def numbered(number: int, tenant: str = "acme") -> Key:
    """One of many questions."""
    return Key(tenant, number.to_bytes(4, "big"))


def test_cache_drops_the_least_recently_used_when_a_tenant_has_too_many() -> None:
    cache = DecisionCache(CacheLimits(entries_max=3))
    for number in range(3):
        cache.put(numbered(number), DOCUMENT, 10, NOW)
    cache.get(numbered(0), NOW)
    cache.put(numbered(3), DOCUMENT, 10, NOW)
    assert [cache.get(numbered(number), NOW) is not None for number in range(4)] == [True, False, True, True]


def test_cache_drops_answers_when_a_tenant_has_too_many_bytes() -> None:
    cache = DecisionCache(CacheLimits(bytes_max=2000))
    cache.put(numbered(0), b"x" * 1000, 10, NOW)
    cache.put(numbered(1), b"x" * 1000, 10, NOW)
    assert [cache.get(numbered(number), NOW) is not None for number in range(2)] == [False, True]
    cache.put(numbered(2), b"x" * 2000, 10, NOW)
    assert (cache.get(numbered(2), NOW), len(cache)) == (None, 1)


def test_cache_of_one_tenant_takes_nothing_from_another() -> None:
    cache = DecisionCache(CacheLimits(entries_max=2))
    cache.put(numbered(0, "globex"), DOCUMENT, 10, NOW)
    for number in range(50):
        cache.put(numbered(number), DOCUMENT, 10, NOW)
    assert cache.get(numbered(0, "globex"), NOW) == DOCUMENT
    assert len(cache) == 3


def test_cache_forgets_the_tenant_used_least_recently_when_there_are_too_many() -> None:
    cache = DecisionCache(CacheLimits(tenants_max=2))
    for tenant in ("a", "b", "c"):
        cache.put(numbered(0, tenant), DOCUMENT, 10, NOW)
    assert [cache.get(numbered(0, tenant), NOW) is not None for tenant in ("a", "b", "c")] == [False, True, True]


def test_answer_is_replaced_when_it_is_put_again() -> None:
    cache = DecisionCache()
    cache.put(key(), DOCUMENT, 10, NOW)
    cache.put(key(), b"new", 10, NOW)
    assert (cache.get(key(), NOW), len(cache)) == (b"new", 1)


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 400), st.sampled_from("ab")), max_size=60))
def test_cache_keeps_within_its_limits_whatever_is_put(steps: list[tuple[int, int, str]]) -> None:
    limits = CacheLimits(entries_max=4, bytes_max=1500, tenants_max=2)
    cache = DecisionCache(limits)
    for number, size, tenant in steps:
        cache.put(numbered(number, tenant), b"x" * size, 10, NOW)
        assert len(cache) <= limits.entries_max * limits.tenants_max
        assert cache.get(numbered(number, tenant), NOW) == b"x" * size
