"""What the gate reads of an answer's head, whatever a service writes there."""

from __future__ import annotations

import pytest

from gateway.connectors.outbound import HeaderPolicy
from gateway.errors import Refusal
from gateway.flow.answer_head import answer_began

ALL = HeaderPolicy(frozenset(), frozenset())


@pytest.mark.parametrize(
    ("written", "length"),
    [
        ("12", 12),
        ("0" * 18, 0),
        ("0" * 5000, None),
        ("9" * 19, None),
        ("-1", None),
        ("1e3", None),
        ("١٢", None),
        ("", None),
    ],
    ids=["plain", "at the limit", "noughts", "too many digits", "negative", "exponent", "other digits", "empty"],
)
def test_length_is_read_only_when_it_is_a_plain_short_number(written: str, length: int | None) -> None:
    began = answer_began(200, [("content-length", written), ("content-type", "Text/Plain; charset=utf-8")], ALL)
    assert (began.status, began.length, began.media_type) == (200, length, "text/plain")


def test_answer_is_refused_when_nobody_asked_for_its_coding() -> None:
    with pytest.raises(Refusal) as refused:
        answer_began(200, [("x-other", "1"), ("content-encoding", "gzip")], ALL)
    assert refused.value.code == "upstream_failed"
