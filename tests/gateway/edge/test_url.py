"""The one reading of request targets."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.edge.url import QUERY_MAX_PAIRS, REMEMBERED_MAX_BYTES, URI_MAX_BYTES, canonical_path, origin_form
from gateway.errors import Refusal

REFUSED_TARGETS = {
    "a dot segment": "/a/../b",
    "a single dot": "/a/./b",
    "a trailing dot segment": "/a/..",
    "an encoded dot segment": "/a/%2e%2e/b",
    "an encoded dot segment in capitals": "/a/%2E%2E/b",
    "a half encoded dot segment": "/a/.%2e/b",
    "a doubly encoded dot segment": "/a/%252e%252e/b",
    "an encoded slash": "/a%2Fb",
    "an encoded slash in small letters": "/a%2fb",
    "an encoded backslash": "/a%5cb",
    "a backslash": "/a\\..\\b",
    "a null byte": "/a%00b",
    "a raw null byte": "/a\x00b",
    "an encoded line end": "/a%0d%0ab",
    "an encoded delete": "/a%7f",
    "a path parameter": "/a;b=c/d",
    "an encoded path parameter": "/a%3Bb",
    "a doubled slash": "/a//b",
    "a doubled slash at the start": "//evil.example/a",
    "a raw umlaut": "/ä",
    "overlong UTF-8": "/a%c0%ae%c0%ae/b",
    "a lone continuation byte": "/a%80",
    "half an escape": "/a%2",
    "an escape that is none": "/a%zz",
    "a fragment": "/a#b",
    "a space": "/a b",
    "no slash": "a",
    "nothing": "",
    "an asterisk": "*",
    "an encoded percent sign": "/100%25",
    "a null byte in the query": "/a?b=%00",
    "a raw null byte in the query": "/a?b=\x00",
    "a semicolon in the query": "/a?b=1;c=2",
    "a broken escape in the query": "/a?b=%",
    "no UTF-8 in the query": "/a?b=%ff",
    "a fragment after the query": "/a?b#c",
    "a backslash in the query": "/a?b=\\",
}


@pytest.mark.parametrize("target", REFUSED_TARGETS.values(), ids=REFUSED_TARGETS.keys())
def test_canonical_path_refuses_when_the_target_has_more_than_one_reading(target: str) -> None:
    with pytest.raises(Refusal) as caught:
        canonical_path(target)
    assert caught.value.code == "malformed_request"


@pytest.mark.parametrize(
    ("target", "segments", "query"),
    [
        pytest.param("/", ("",), (), id="the root"),
        pytest.param("/a/b", ("a", "b"), (), id="plain segments"),
        pytest.param("/a/", ("a", ""), (), id="a trailing slash is kept"),
        pytest.param("/a%20b/c", ("a b", "c"), (), id="an encoded space"),
        pytest.param("/%C3%A4", ("ä",), (), id="encoded UTF-8"),
        pytest.param("/a/...", ("a", "..."), (), id="three dots are a name"),
        pytest.param("/.a/b.", (".a", "b."), (), id="dots inside names"),
        pytest.param("/a@b:c", ("a@b:c",), (), id="sub-delimiters"),
        pytest.param("/a?", ("a",), (), id="an empty query"),
        pytest.param("/a?x=1&y=%26&x=2", ("a",), (("x", "1"), ("y", "&"), ("x", "2")), id="pairs in order"),
        pytest.param("/a?x=a+b%2Bc", ("a",), (("x", "a b+c"),), id="a plus is a space"),
        pytest.param("/a?x+y=a+b", ("a",), (("x y", "a b"),), id="a plus without escapes"),
        pytest.param("/a?x", ("a",), (("x", ""),), id="a name alone"),
        pytest.param("/a?q=a^b|c&d[]=1", ("a",), (("q", "a^b|c"), ("d[]", "1")), id="brackets and bars left bare"),
        pytest.param("/a?u=http://x/y?z", ("a",), (("u", "http://x/y?z"),), id="a URL as a value"),
    ],
)
def test_canonical_path_reads_when_the_target_is_plain(
    target: str, segments: tuple[str, ...], query: tuple[tuple[str, str], ...]
) -> None:
    read = canonical_path(target)
    assert (read.segments, read.query) == (segments, query)
    assert target in (read.path, f"{read.path}?{read.raw_query}")


def test_canonical_path_accepts_when_the_target_is_as_long_as_the_limit() -> None:
    assert len(canonical_path("/" + "a" * (URI_MAX_BYTES - 1)).path) == URI_MAX_BYTES


def test_canonical_path_refuses_when_the_target_is_one_byte_too_long() -> None:
    with pytest.raises(Refusal) as caught:
        canonical_path("/" + "a" * URI_MAX_BYTES)
    assert (caught.value.code, caught.value.status) == ("uri_too_long", 414)


def test_canonical_path_refuses_when_there_is_one_parameter_too_many() -> None:
    full = "&".join("a=1" for _ in range(QUERY_MAX_PAIRS))
    assert len(canonical_path(f"/a?{full}").query) == QUERY_MAX_PAIRS
    with pytest.raises(Refusal):
        canonical_path(f"/a?{full}&b=1")


@given(st.text(max_size=60))
@example("/%2e")
@example("/a/%2e%2E?x=%00")
def test_canonical_path_never_gives_a_dangerous_segment_when_fed_anything(target: str) -> None:
    try:
        read = canonical_path(target)
    except Refusal as refused:
        assert refused.code in ("malformed_request", "uri_too_long")
        return
    assert not {".", ".."}.intersection(read.segments)
    assert all("/" not in segment and "\\" not in segment and "\0" not in segment for segment in read.segments)
    assert read.path.isascii()


@given(st.text(alphabet="/%.25eEfFaA;\\0", max_size=24))
def test_canonical_path_reads_its_own_output_the_same_when_it_accepts(tail: str) -> None:
    try:
        read = canonical_path("/" + tail)
    except Refusal:
        return
    assert canonical_path(read.path).segments == read.segments


@pytest.mark.parametrize(
    ("target", "host", "expected"),
    [
        pytest.param("/a?b", None, "/a?b", id="origin-form is itself"),
        pytest.param("http://gate:8080/a?b", "gate:8080", "/a?b", id="absolute-form to this host"),
        pytest.param("HTTP://Gate/a", "gate", "/a", id="names of hosts ignore case"),
        pytest.param("http://gate", "gate", "/", id="no path"),
        pytest.param("http://gate?x=1", "gate", "/?x=1", id="a query only"),
    ],
)
def test_origin_form_gives_the_path_when_the_host_agrees(target: str, host: str | None, expected: str) -> None:
    assert origin_form(target, host) == expected


@pytest.mark.parametrize(
    ("target", "host"),
    [
        pytest.param("http://evil.example/a", "gate", id="another host"),
        pytest.param("http://gate:81/a", "gate", id="another port"),
        pytest.param("http://gate@evil.example/a", "gate", id="user information"),
        pytest.param("http://gate/a", None, id="no Host header"),
        pytest.param("ftp://gate/a", "gate", id="another scheme"),
        pytest.param("http:///a", "gate", id="no authority"),
        pytest.param("*", "gate", id="asterisk-form"),
        pytest.param("gate:443", "gate", id="authority-form"),
    ],
)
def test_origin_form_refuses_when_the_target_is_not_for_this_host(target: str, host: str | None) -> None:
    with pytest.raises(Refusal) as caught:
        origin_form(target, host)
    assert caught.value.code == "malformed_request"


@pytest.mark.parametrize(
    ("target", "segments"),
    [
        pytest.param("/c/x/a%2Fb", ("c", "x", "a/b"), id="a slash"),
        pytest.param("/c/x/a%2fb/c", ("c", "x", "a/b", "c"), id="a slash in small letters"),
        pytest.param("/c/x/a%5Cb", ("c", "x", "a\\b"), id="a backslash"),
        pytest.param("/c/x/a%3bb", ("c", "x", "a;b"), id="a semicolon"),
        pytest.param("/c/x/a%2F..%2Fb", ("c", "x", "a/../b"), id="dots between slashes are the caller's to refuse"),
    ],
)
def test_canonical_path_reads_separators_when_the_caller_judges_them(target: str, segments: tuple[str, ...]) -> None:
    found = canonical_path(target, separators_from=2)
    assert (found.path, found.segments) == (target, segments)


@pytest.mark.parametrize(
    "target",
    [
        pytest.param("/c%2Fx/y/z", id="before the first segment that may"),
        pytest.param("/c/x%2Fy/z", id="in the segment before"),
        pytest.param("/c/x/%2e%2e", id="dot segments stay refused"),
        pytest.param("/c/x/a%252Fb", id="double encoding stays refused"),
        pytest.param("/c/x/a%00%2Fb", id="null bytes stay refused"),
        pytest.param("/c/x/a;b", id="bare semicolons stay refused"),
        pytest.param("/c/x//a%2Fb", id="doubled slashes stay refused"),
    ],
)
def test_canonical_path_refuses_as_ever_when_separators_are_judged_elsewhere(target: str) -> None:
    with pytest.raises(Refusal) as caught:
        canonical_path(target, separators_from=2)
    assert caught.value.code == "malformed_request"


def test_target_is_read_once_when_it_comes_again_unless_it_is_long() -> None:
    assert canonical_path("/again/a%20b?c=1") is canonical_path("/again/a%20b?c=1")
    longest = "/" + "a" * (REMEMBERED_MAX_BYTES - 1)
    assert canonical_path(longest) is canonical_path(longest)
    assert canonical_path(longest + "a") is not canonical_path(longest + "a")
    assert canonical_path("/x/a%2Fb", separators_from=1).segments == ("x", "a/b")
    with pytest.raises(Refusal):
        canonical_path("/x/a%2Fb")


@pytest.mark.parametrize("name", ["a%2Fb", "a%5Cb", "a%3Bb", "a%25b", "a%252Fb", "%2F%2F"])
def test_name_is_read_with_its_separators_when_it_is_text(name: str) -> None:
    found = canonical_path(f"/v1/names/{name}?a=b", text_from=2)
    assert (found.segments[:2], found.path) == (("v1", "names"), f"/v1/names/{name}")


@pytest.mark.parametrize(
    "target", ["/v1/a%2Fb/x", "/v1%25/b/x", "/v1/names/%2e%2E", "/v1/names/%FF", "/v1/names/a%00b", "/v1//x"]
)
def test_target_is_malformed_when_its_text_is_elsewhere_or_has_no_reading(target: str) -> None:
    with pytest.raises(Refusal) as refused:
        canonical_path(target, text_from=2)
    assert refused.value.code == "malformed_request"
