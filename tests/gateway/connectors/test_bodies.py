"""Bodies: one media type, one reading."""

from __future__ import annotations

import hashlib
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bundles.manifest import Arguments
from gateway.connectors.bodies import (
    FORM_FIELDS_MAX,
    MULTIPART_PARTS_MAX,
    PART_HEADERS_MAX_BYTES,
    check_media_type,
    parse_body,
    parse_form,
    takes_stream,
)
from gateway.errors import Refusal
from tests.gateway.connectors.parts import action, manifest, refused

Kind = Literal["json", "form", "multipart", "none"]
FORM = "application/x-www-form-urlencoded"
MULTIPART = "multipart/form-data; boundary=B"


def _read(kind: Kind, content_type: str | None, raw: bytes | None, limit: int = 1 << 20) -> Any:
    body = parse_body(Arguments(body=kind, body_max_bytes=limit), content_type, raw)
    return body.value if body.present else "absent"


@pytest.mark.parametrize(
    ("kind", "content_type", "raw", "value"),
    [
        pytest.param("json", "application/json", b'{"a":1}', {"a": 1}, id="json"),
        pytest.param("json", "application/json; charset=utf-8", b"[1]", [1], id="json saying utf-8"),
        pytest.param("json", 'Application/JSON;charset="UTF-8"', b"1", 1, id="json in other spelling"),
        pytest.param("json", "application/json;charset=utf-8", b'{"a":"x"}', {"a": "x"}, id="as slack_sdk writes it"),
        pytest.param("form", FORM, b"a=1&b=x+y%26", {"a": "1", "b": "x y&"}, id="form"),
        pytest.param("form", FORM + "; charset=UTF-8", b"a=", {"a": ""}, id="form with an empty field"),
        pytest.param("form", FORM, b"files=%5B%7B%7D%5D", {"files": "[{}]"}, id="form holding json"),
        pytest.param("json", "application/json", b"", "absent", id="no bytes"),
        pytest.param("json", None, None, "absent", id="no body"),
        pytest.param("none", "text/plain", None, "absent", id="streamed"),
    ],
)
def test_body_is_read_when_it_is_what_the_action_declares(
    kind: Kind, content_type: str | None, raw: bytes | None, value: Any
) -> None:
    assert _read(kind, content_type, raw) == value


@pytest.mark.parametrize(
    ("kind", "content_type", "raw"),
    [
        pytest.param("none", "application/json", b"{}", id="body where none belongs"),
        pytest.param("json", None, b"{}", id="no media type"),
        pytest.param("json", "text/plain", b"{}", id="another media type"),
        pytest.param("json", FORM, b"{}", id="form for json"),
        pytest.param("form", "application/json", b"a=1", id="json for form"),
        pytest.param("json", "application/json, text/plain", b"{}", id="two media types"),
        pytest.param("json", "application/jsonx", b"{}", id="longer media type"),
        pytest.param("json", "application/json; charset=utf-16", b"{}", id="another charset"),
        pytest.param("json", "application/json; charset=utf-7", b"{}", id="a charset that hides quotes"),
        pytest.param("json", "application/json; charset=ibm037", b"{}", id="EBCDIC"),
        pytest.param("json", "application/json; charset=utf-8; charset=utf-16", b"{}", id="two charsets"),
        pytest.param("json", "application/json; boundary=x", b"{}", id="foreign parameter"),
        pytest.param("json", "application/json; charset", b"{}", id="parameter without a value"),
        pytest.param("json", "application/json\n", b"{}", id="line end"),
        pytest.param("json", "application/json", b'{"a":1,"a":2}', id="duplicate key"),
        pytest.param("json", "application/json", b'{"a":1,"\\u0061":2}', id="duplicate key as escaped twin"),
        pytest.param("json", "application/json", b'{"a":NaN}', id="NaN"),
        pytest.param("json", "application/json", b'{"a":1e400}', id="infinite number"),
        pytest.param("json", "application/json", b'{"a":9007199254740993}', id="integer a double cannot hold"),
        pytest.param("json", "application/json", b'{"a":"\xff"}', id="not UTF-8"),
        pytest.param("json", "application/json", b'{"a":"\\ud800"}', id="lone surrogate"),
        pytest.param("json", "application/json", b"\xef\xbb\xbf{}", id="byte order mark"),
        pytest.param("json", "application/json", b"{}{}", id="two documents"),
        pytest.param("json", "application/json", b"[" * 10_000 + b"]" * 10_000, id="nested 10,000 deep"),
        pytest.param("form", FORM, b"a=%ZZ", id="broken escape"),
        pytest.param("form", FORM, b"a=%", id="escape cut short"),
        pytest.param("form", FORM, b"a=%ff", id="form not UTF-8"),
        pytest.param("form", FORM, b"a=\xc3\xa4", id="form with raw bytes"),
        pytest.param("form", FORM, b"a=1;b=2", id="semicolon, where some servers split"),
        pytest.param("form", FORM, b"a=%00", id="null byte"),
        pytest.param("form", FORM, b"a=1 b", id="raw space"),
        pytest.param(
            "form", FORM, b"&".join([b"a%d=1" % n for n in range(FORM_FIELDS_MAX + 1)]), id="a field too many"
        ),
        pytest.param("multipart", "multipart/form-data", b"--B--", id="no boundary"),
        pytest.param("multipart", "multipart/form-data; boundary=" + "b" * 71, b"--B--", id="boundary too long"),
        pytest.param("multipart", "multipart/mixed; boundary=B", b"--B--", id="another multipart"),
    ],
)
def test_body_is_malformed_when_it_has_no_single_reading(kind: Kind, content_type: str | None, raw: bytes) -> None:
    assert refused(lambda: _read(kind, content_type, raw)).code == "malformed_request"


def test_body_is_too_large_one_byte_past_the_limit() -> None:
    assert _read("json", "application/json", b"[1]", limit=3) == [1]
    assert refused(lambda: _read("json", "application/json", b"[1] ", limit=3)).code == "body_too_large"


def test_form_admits_as_many_fields_as_the_limit_says() -> None:
    raw = b"&".join([b"a%d=1" % n for n in range(FORM_FIELDS_MAX)])
    assert len(parse_form(raw)) == FORM_FIELDS_MAX


def test_form_name_that_stands_twice_is_an_invalid_argument() -> None:
    problem = refused(lambda: _read("form", FORM, b"a/b=1&a%2Fb=1"))
    assert problem.code == "arguments_invalid"
    assert problem.extra["errors"] == [{"pointer": "/a~1b", "message": "the argument has more than one value"}]


def _part(name: str, content: bytes, *, filename: str | None = None, media_type: str | None = None) -> bytes:
    head = f'Content-Disposition: form-data; name="{name}"' + (
        f'; filename="{filename}"' if filename is not None else ""
    )
    if media_type is not None:
        head += f"\r\nContent-Type: {media_type}"
    return b"--B\r\n" + head.encode() + b"\r\n\r\n" + content + b"\r\n"


def test_multipart_shows_fields_as_text_and_files_by_digest() -> None:
    raw = (
        _part("channel", "ä".encode())
        + _part("file", b"\x00\xff", filename="a.bin", media_type="image/png")
        + b"--B--\r\n"
    )
    assert _read("multipart", MULTIPART, raw) == {
        "channel": "ä",
        "file": {
            "filename": "a.bin",
            "media_type": "image/png",
            "size": 2,
            "sha256": hashlib.sha256(b"\x00\xff").hexdigest(),
        },
    }


def test_multipart_file_without_a_media_type_is_octets() -> None:
    raw = _part("file", b"x", filename="x") + b"--B--"
    assert _read("multipart", MULTIPART, raw)["file"]["media_type"] == "application/octet-stream"


@pytest.mark.parametrize(
    "media_type", ["text/plain", "Text/Plain; charset=UTF-8", 'text/plain;charset="utf-8"', "text/plain; charset=utf8"]
)
def test_multipart_field_is_read_when_it_says_that_it_is_plain_text(media_type: str) -> None:
    raw = _part("a", "ä\r\nb\n-".encode(), media_type=media_type) + b"--B--"
    assert _read("multipart", MULTIPART, raw) == {"a": "ä\r\nb\n-"}


_GOOD = _part("a", b"1")
_HIDDEN = b'Content-Disposition: form-data; name="hidden"'
_LONG = b"x" * PART_HEADERS_MAX_BYTES


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(b"--B--", id="no part"),
        pytest.param(_GOOD, id="not ended"),
        pytest.param(b"preamble\r\n" + _GOOD + b"--B--", id="preamble"),
        pytest.param(_GOOD + b"--B--\r\nepilogue", id="epilogue"),
        pytest.param(_GOOD + b"--B-- ", id="space after the end"),
        pytest.param(_GOOD.replace(b"--B\r\n", b"--Bx\r\n") + b"--B--", id="longer delimiter"),
        pytest.param(b'--B\r\nContent-Disposition: form-data; name="a"\r\n\r\n--B--', id="head that runs into the end"),
        pytest.param(b"--B\r\n\r\n1\r\n--B--", id="no head"),
        pytest.param(_GOOD.replace(b"Content-Disposition", b"X-Disposition") + b"--B--", id="foreign header"),
        pytest.param(
            _GOOD.replace(b"\r\n\r\n", b"\r\nContent-Transfer-Encoding: base64\r\n\r\n") + b"--B--",
            id="transfer encoding",
        ),
        pytest.param(_GOOD.replace(b'name="a"', b"name=a") + b"--B--", id="name without quotes"),
        pytest.param(_GOOD.replace(b'name="a"', b'name="a"; name="b"') + b"--B--", id="two names"),
        pytest.param(_GOOD.replace(b'name="a"', b"name=\"a\"; filename*=utf-8''x") + b"--B--", id="extended file name"),
        pytest.param(_GOOD.replace(b'name="a"', b'name="a\x01"') + b"--B--", id="control character in a name"),
        pytest.param(_GOOD.replace(b'name="a"', b'name="\xff"') + b"--B--", id="name not UTF-8"),
        pytest.param(_part("a", b"\xff") + b"--B--", id="field not UTF-8"),
        pytest.param(_part("a", b"hi\n--B\n" + _HIDDEN + b"\n\n2") + b"--B--", id="part behind a bare line feed"),
        pytest.param(_part("a", b"hi\r--B\r" + _HIDDEN + b"\r\r2") + b"--B--", id="part behind a bare return"),
        pytest.param(_part("a", b"hi\n--B--\n") + b"--B--", id="end behind a bare line feed"),
        pytest.param(_part("a", b"hi --B--") + b"--B--", id="boundary in the middle of a field"),
        pytest.param(_part("a", b"\n--B\n", filename="f") + b"--B--", id="boundary in a file"),
        pytest.param(
            _part("a", b"1", media_type="text/plain\n" + _HIDDEN.decode()) + b"--B--", id="line feed in a head"
        ),
        pytest.param(_part("a", b"1", media_type="text/plain\r" + _HIDDEN.decode()) + b"--B--", id="return in a head"),
        pytest.param(_part("a", b"1", media_type="text/plain\x0b") + b"--B--", id="vertical tab in a head"),
        pytest.param(_part("a", b"1", media_type="text/plain\u0085") + b"--B--", id="next line in a head"),
        pytest.param(_part("a", b"1", media_type="text/plain\r\n text/html") + b"--B--", id="folded head"),
        pytest.param(
            _part("a", b"1", media_type="text/plain\r\nContent-Type: text/html") + b"--B--",
            id="header that stands twice",
        ),
        pytest.param(_part("a", b"1\n\n2").replace(b"\r\n\r\n", b"\n\n") + b"--B--", id="head that ends in line feeds"),
        pytest.param(_part("a", b"+AGE-", media_type="text/plain; charset=utf-7") + b"--B--", id="field in UTF-7"),
        pytest.param(_part("a", b"1", media_type="text/plain; charset=utf-16") + b"--B--", id="field in UTF-16"),
        pytest.param(_part("a", b"1", media_type='text/plain; charset="latin1"') + b"--B--", id="field in Latin-1"),
        pytest.param(
            _part("a", b"1", media_type="text/plain; charset=utf-8; charset=utf-7") + b"--B--",
            id="field in two charsets",
        ),
        pytest.param(_part("a", b"1", media_type="text/plain; format=flowed") + b"--B--", id="field with a parameter"),
        pytest.param(_part("a", b"{}", media_type="application/json") + b"--B--", id="field of another type"),
        pytest.param(_part("a", b"1", media_type="") + b"--B--", id="field of no type"),
        pytest.param(_part("a", b"1", media_type="multipart/mixed; boundary=z") + b"--B--", id="field of parts"),
        pytest.param(
            _part("a", b"1", filename="f", media_type="Multipart/mixed; boundary=z") + b"--B--", id="file of parts"
        ),
        pytest.param(_part("a", b"1", filename="f", media_type="image") + b"--B--", id="file of half a type"),
        pytest.param(_part("a", b"1", filename="") + b"--B--", id="file without a name, which some take for a field"),
        pytest.param(_part("_charset_", b"utf-7") + b"--B--", id="field that sets the charset of the others"),
        pytest.param(_part("a", b"1\x002") + b"--B--", id="null byte in a field"),
        pytest.param(b"--B\r\nContent-Disposition: " + _LONG + b"\r\n\r\n1\r\n--B--", id="head too long"),
        pytest.param(
            b"".join(_part(f"a{n}", b"") for n in range(MULTIPART_PARTS_MAX + 1)) + b"--B--", id="a part too many"
        ),
    ],
)
def test_multipart_is_malformed_when_it_has_no_single_reading(raw: bytes) -> None:
    assert refused(lambda: _read("multipart", MULTIPART, raw)).code == "malformed_request"


def test_multipart_admits_as_many_parts_as_the_limit_says() -> None:
    raw = b"".join(_part(f"a{n}", b"") for n in range(MULTIPART_PARTS_MAX)) + b"--B--"
    assert len(_read("multipart", MULTIPART, raw)) == MULTIPART_PARTS_MAX


def test_multipart_name_that_stands_twice_is_an_invalid_argument() -> None:
    assert refused(lambda: _read("multipart", MULTIPART, _GOOD + _GOOD + b"--B--")).code == "arguments_invalid"


@given(st.binary(max_size=200), st.sampled_from(["json", "form", "multipart"]))
def test_no_body_raises_anything_but_a_refusal(raw: bytes, kind: Kind) -> None:
    content_type = {"json": "application/json", "form": FORM, "multipart": MULTIPART}[kind]
    for candidate in (raw, b"--B\r\n" + raw + b"\r\n--B--"):
        try:
            parse_body(Arguments(body=kind), content_type, candidate)
        except Refusal as problem:
            assert problem.code in ("malformed_request", "arguments_invalid")


@pytest.mark.parametrize(
    ("method", "body", "streamed"),
    [
        ("POST", "none", True),
        ("PUT", "none", True),
        ("PATCH", "none", True),
        ("GET", "none", False),
        ("POST", "json", False),
    ],
)
def test_only_a_method_with_an_undeclared_body_streams(method: str, body: str, streamed: bool) -> None:
    assert takes_stream(manifest(action("a.x", method, "/a", body=body)).actions[0]) is streamed


def test_media_type_gives_its_boundary() -> None:
    assert check_media_type("multipart", 'multipart/form-data; boundary="a b"'.replace(" b", "b"))["boundary"] == "ab"
