"""An approval as bytes and back, also as an earlier version stored it."""

from __future__ import annotations

from dataclasses import replace

import orjson
import pytest

from gateway.approvals.codec import CodecError, decode_approval, encode_approval
from gateway.approvals.reduce import open_approval
from tests.gateway.store.build import HELD

APPROVAL = open_approval(HELD, approval_id="a", salt="00" * 16, attach_key="k", now=1)


def test_approval_is_the_same_when_it_was_stored() -> None:
    used = replace(APPROVAL, used_by="call-7")
    assert decode_approval(encode_approval(used)) == used


def test_approval_is_used_by_nobody_when_an_earlier_version_stored_it() -> None:
    members = orjson.loads(encode_approval(APPROVAL))
    del members["used_by"]
    assert decode_approval(orjson.dumps(members)) == APPROVAL


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b"null", b'{"held": 1}', b"\xff"])
def test_approval_is_refused_when_the_bytes_are_none(data: bytes) -> None:
    with pytest.raises(CodecError):
        decode_approval(data)
