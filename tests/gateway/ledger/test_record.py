"""The record's profile, canonical form, hash and hybrid clock."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bundles.canonical import canonical_json
from gateway.ledger.record import (
    DEPTH_MAX,
    INTEGER_MAX,
    RECORD_MAX_BYTES,
    Position,
    RecordMalformed,
    canonical_record_json,
    check_profile,
    freeze,
    keyed_digest,
    leaf_hash,
    next_hlc,
    seal,
)
from tests.gateway.store.build import draft

POSITION = Position(seq=7, prev="a" * 64, hlc=(5, 2), wall=5)


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("value", "code"),
    [
        pytest.param({"a": 1.0}, "record_float", id="a float"),
        pytest.param([float("nan")], "record_float", id="not a number"),
        pytest.param({"a": INTEGER_MAX + 1}, "record_integer", id="an integer one past the bound"),
        pytest.param([-INTEGER_MAX - 1], "record_integer", id="an integer one past the lower bound"),
        pytest.param({"ä": 1}, "record_key", id="a key beyond ASCII"),
        pytest.param({1: 1}, "record_key", id="a key that is no text"),
        pytest.param(["\ud800"], "record_text", id="a lone surrogate"),
        pytest.param({"a": "\udfff"}, "record_text", id="a lone low surrogate in an object"),
        pytest.param(nested(DEPTH_MAX + 1), "record_depth", id="one level too deep"),
        pytest.param([b"x"], "record_type", id="bytes"),
        pytest.param({"a": {1, 2}}, "record_type", id="a set"),
    ],
)
def test_profile_refuses_when_a_value_is_outside_it(value: object, code: str) -> None:
    with pytest.raises(RecordMalformed) as caught:
        check_profile(value)
    assert caught.value.code == code


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(nested(DEPTH_MAX), id="the deepest"),
        pytest.param([INTEGER_MAX, -INTEGER_MAX], id="the largest integers"),
        pytest.param({"a": [None, True, False, "ä\U0001f600"]}, id="text beyond ASCII as a value"),
    ],
)
def test_profile_accepts_when_a_value_is_at_its_bounds(value: object) -> None:
    check_profile(value)


PROFILE = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-INTEGER_MAX, INTEGER_MAX)
    | st.text(st.characters(exclude_categories=("Cs",))),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(st.characters(max_codepoint=127), max_size=6), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(PROFILE)
def test_canonical_form_equals_rfc_8785_when_the_profile_holds(value: Any) -> None:
    assert canonical_record_json(value) == canonical_json(value)


def test_seal_gives_canonical_bytes_when_position_is_spliced_in() -> None:
    sealed = seal(freeze(draft(code="ä"), node="n1"), POSITION)
    document = json.loads(sealed)
    assert canonical_json(document) == sealed
    assert set(document) == {
        *("v", "log", "seq", "prev", "hlc", "wall", "kind", "ids", "subject", "action"),
        *("decision", "policy", "digests", "actor", "node", "mode"),
    }
    assert (document["seq"], document["prev"], document["hlc"], document["log"]) == (
        7,
        "a" * 64,
        [5, 2],
        ["acme", "ops"],
    )


def test_freeze_refuses_when_the_record_is_one_byte_too_large() -> None:
    base = freeze(draft(pad=""), node="n1")
    room = RECORD_MAX_BYTES - (len(base.head) + len(base.middle) + len(base.tail) + 256)
    fitting = seal(freeze(draft(pad="x" * room), node="n1"), POSITION)
    assert len(fitting) <= RECORD_MAX_BYTES
    with pytest.raises(RecordMalformed) as caught:
        freeze(draft(pad="x" * (room + 1)), node="n1")
    assert caught.value.code == "record_too_large"


@pytest.mark.parametrize(
    "log", [("", "ops"), ("acme", ""), ("a" * 257, "ops")], ids=["no tenant", "no workspace", "too long"]
)
def test_freeze_refuses_when_the_log_has_no_usable_name(log: tuple[str, str]) -> None:
    with pytest.raises(RecordMalformed) as caught:
        freeze(draft()._replace(log=log), node="n1")
    assert caught.value.code == "record_log"


def test_leaf_hash_is_rfc_6962_when_given_bytes() -> None:
    assert leaf_hash(b"x") == hashlib.sha256(b"\x00x").hexdigest()


def test_digests_hide_guessable_values_when_keyed() -> None:
    assert keyed_digest(b"yes", b"1" * 32) != keyed_digest(b"yes", b"2" * 32)
    assert keyed_digest(b"yes", b"1" * 32)["hmac"] != hashlib.sha256(b"yes").hexdigest()


@given(st.integers(0, 2**50), st.integers(0, 2**20), st.integers(0, 2**50))
def test_hlc_goes_forward_when_the_wall_goes_anywhere(milliseconds: int, count: int, wall: int) -> None:
    assert next_hlc((milliseconds, count), wall) > (milliseconds, count)
