"""Digests: the vectors of their standards, keys of every length, and operands that are no texts."""

from __future__ import annotations

import pytest

from pdp.wasm.builtins.digests import BUILTINS
from pdp.wasm.builtins.values import Declined, RegoSet, Undefined, Value

# RFC 1321 A.5; FIPS 180-4, "abc" and the empty text.
DIGESTS = {
    "MD5 of nothing": ("crypto.md5", "", "d41d8cd98f00b204e9800998ecf8427e"),
    "MD5 of a text": ("crypto.md5", "message digest", "f96b697d7cb7938d525a2f31aaf161d0"),
    "SHA-1 of nothing": ("crypto.sha1", "", "da39a3ee5e6b4b0d3255bfef95601890afd80709"),
    "SHA-1 of a text": ("crypto.sha1", "abc", "a9993e364706816aba3e25717850c26c9cd0d89d"),
    "SHA-256 of nothing": (
        "crypto.sha256",
        "",
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    ),
    "SHA-256 of a text": (
        "crypto.sha256",
        "abc",
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
    ),
}

# RFC 2202 and RFC 4231, their second cases.
KEYED = {
    "MD5": ("crypto.hmac.md5", "750c783e6ab0b503eaa86e310a5db738"),
    "SHA-1": ("crypto.hmac.sha1", "effcdf6ae5eb2fa2d27416d5f184df9c259a7c79"),
    "SHA-256": ("crypto.hmac.sha256", "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"),
    "SHA-512": (
        "crypto.hmac.sha512",
        "164b7a7bfcf819e2e395fbe73b56e0a387bd64222e831fd610270cd7ea250554"
        "9758bf75c05a994a6d034f65f8f0e6fdcaeab1a34d4a6b4b636e070a38bce737",
    ),
}

WRONG: dict[str, Value] = {
    "null": None,
    "a truth value": True,
    "a number": 1,
    "a list": ["abc"],
    "an object": {"abc": 1},
    "a set": RegoSet(("abc",)),
}

ONE = ["crypto.md5", "crypto.sha1", "crypto.sha256"]
TWO = [name for name in BUILTINS if name not in ONE]


@pytest.mark.parametrize(("name", "text", "digest"), DIGESTS.values(), ids=DIGESTS.keys())
def test_digests_are_those_of_the_standard_when_texts_are_its_vectors(name: str, text: str, digest: str) -> None:
    assert BUILTINS[name](text) == digest


@pytest.mark.parametrize(("name", "digest"), KEYED.values(), ids=KEYED.keys())
def test_keyed_digests_are_those_of_the_standard_when_the_message_comes_first(name: str, digest: str) -> None:
    assert BUILTINS[name]("what do ya want for nothing?", "Jefe") == digest
    assert BUILTINS[name]("Jefe", "what do ya want for nothing?") != digest


@pytest.mark.parametrize(("first", "second"), [("a", "b"), ("a", "A"), ("", "a"), ("a", "aa"), ("\u00e9", "e\u0301")])
def test_equal_is_false_when_texts_differ(first: str, second: str) -> None:
    assert BUILTINS["crypto.hmac.equal"](first, second) is False


@pytest.mark.parametrize("text", ["", "a", "\u00e9\U0001f600\u0000"])
def test_equal_is_true_when_texts_are_the_same(text: str) -> None:
    assert BUILTINS["crypto.hmac.equal"](text, text) is True


@pytest.mark.parametrize("name", ONE)
@pytest.mark.parametrize("value", WRONG.values(), ids=WRONG.keys())
def test_digests_are_undefined_when_an_operand_is_no_text(name: str, value: Value) -> None:
    with pytest.raises(Undefined):
        BUILTINS[name](value)


@pytest.mark.parametrize("name", TWO)
@pytest.mark.parametrize("value", WRONG.values(), ids=WRONG.keys())
def test_keyed_digests_are_undefined_when_a_side_is_no_text(name: str, value: Value) -> None:
    with pytest.raises(Undefined):
        BUILTINS[name](value, "abc")
    with pytest.raises(Undefined):
        BUILTINS[name]("abc", value)


def test_digests_decline_when_a_text_is_no_unicode() -> None:
    with pytest.raises(Declined):
        BUILTINS["crypto.sha256"]("\ud800")
