"""Co-signatures in a header: what comes out is what went in, or nothing."""

from __future__ import annotations

import base64

import pytest

from bundles.dsse import ENVELOPE_MAX_BYTES
from bundles.errors import BundleRefused
from bundles.service_protocol import decode_cosignatures, encode_cosignatures


@pytest.mark.parametrize("size", [0, 1, ENVELOPE_MAX_BYTES])
def test_header_gives_the_envelope_again_when_it_has_bytes(size: int) -> None:
    assert decode_cosignatures(encode_cosignatures(b"e" * size)) == b"e" * size


def test_header_gives_nothing_when_there_is_none() -> None:
    assert decode_cosignatures(None) is None


REFUSED = {
    "a byte more than an envelope may have": encode_cosignatures(b"e" * (ENVELOPE_MAX_BYTES + 1)),
    "letters of the other alphabet": base64.urlsafe_b64encode(b"\xff\xff\xff").decode(),
    "no padding": "YQ",
    "a line end": "YWE=\n",
    "a letter that is none of base64's": "YWE\u00e9",
    "two values joined by a comma": "YWE=,YWE=",
}


@pytest.mark.parametrize("fault", REFUSED)
def test_header_is_refused_when_it_has(fault: str) -> None:
    with pytest.raises(BundleRefused) as refused:
        decode_cosignatures(REFUSED[fault])
    assert refused.value.code == "cosignatures_invalid"
