"""Injected secrets are seen before they leave, however the answer is cut."""

from __future__ import annotations

import base64
import html
import json
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.connectors.leaks import SECRET_MIN_BYTES, LeakDetector, spellings
from gateway.errors import Refusal
from tests.gateway.connectors.parts import refused

SECRET = 's3cr"t/with+odd'


def _pass(secrets: tuple[bytes, ...], chunks: list[bytes]) -> bytes:
    detector = LeakDetector(secrets)
    return b"".join(detector.feed(chunk) for chunk in chunks) + detector.finish()


@pytest.mark.parametrize(
    "form",
    [
        pytest.param(SECRET.encode(), id="as it is"),
        pytest.param(b"s3cr%22t%2Fwith%2Bodd", id="quoted for a URL"),
        pytest.param(b's3cr\\"t\\/with+odd', id="escaped for JSON"),
        pytest.param(base64.b64encode(SECRET.encode()), id="in base64"),
    ],
)
def test_answer_is_refused_when_it_holds_a_spelling_of_the_secret(form: bytes) -> None:
    problem = refused(lambda: _pass(spellings([SECRET]), [b'{"echo":"' + form + b'"}']))
    assert problem.code == "upstream_failed"
    assert SECRET not in str(problem)


@pytest.mark.parametrize("coding", ["utf-8", "latin-1"])
def test_secret_beyond_ascii_is_seen_as_text_and_as_a_header_carries_it(coding: str) -> None:
    secret = "clé-de-la-passerelle"
    assert refused(lambda: _pass(spellings([secret]), [b"x " + secret.encode(coding)])).code == "upstream_failed"


ODD = "tok&<abc>=01'23/4+5 6~7\\8\"9ä€\U0001f511"
PAIR = "gate:??>>~~secretpassword"
ECHOES = [
    pytest.param("abc/def/ghijk", b"abc%2fdef%2fghijk", id="percent in lower case"),
    pytest.param("my long pass word", b"my+long+pass+word", id="plus for a space"),
    pytest.param("my long pass/word", b"my+long+pass%2fword", id="plus for a space and percent in lower case"),
    pytest.param("it's (a) secret!", b"it's%20(a)%20secret!", id="as browsers quote a part"),
    pytest.param("abc/def?ghi=ä", b"abc/def?ghi=%C3%A4", id="as browsers quote a URL"),
    pytest.param("pässwörd-lang-genug", b"p\\u00e4ssw\\u00f6rd-lang-genug", id="JSON in ASCII"),
    pytest.param("pässwörd-lang-genug", b"p\\u00E4ssw\\u00F6rd-lang-genug", id="JSON in ASCII, capital digits"),
    pytest.param("clef-\U0001f511-ici", b"clef-\\ud83d\\udd11-ici", id="JSON in ASCII, two units"),
    pytest.param("tok&<abc>=0123", b"tok\\u0026\\u003cabc\\u003e=0123", id="JSON that is safe in HTML"),
    pytest.param("tok&<abc>+0123", b"tok\\u0026\\u003Cabc\\u003E\\u002B0123", id="JSON that escapes the plus"),
    pytest.param("tok&/abc/0123", b"tok\\u0026\\/abc\\/0123", id="JSON that is safe in HTML with slashes"),
    pytest.param('to"k&abc0123', b"to\\u0022k\\u0026abc0123", id="JSON without quotes"),
    pytest.param("tok&<abc>0123", b"tok&amp;&lt;abc&gt;0123", id="HTML"),
    pytest.param(PAIR, base64.b64encode(PAIR.encode()).replace(b"/", b"\\/"), id="base64 with escaped slashes"),
    pytest.param(PAIR, quote(base64.b64encode(PAIR.encode())).encode(), id="base64 in a URL"),
    pytest.param(PAIR, base64.urlsafe_b64encode(PAIR.encode()), id="base64 for URLs"),
    pytest.param("secret-1", base64.b64encode(b"secret-1").rstrip(b"="), id="base64 without padding"),
    pytest.param(ODD, json.dumps(ODD).encode(), id="all of it as json.dumps writes it"),
    pytest.param(ODD, json.dumps(ODD, ensure_ascii=False).encode(), id="all of it as JSON in UTF-8"),
    pytest.param(ODD, quote(ODD).encode(), id="all of it as quote writes it"),
    pytest.param(ODD, quote_plus(ODD).encode(), id="all of it as quote_plus writes it"),
    pytest.param(ODD, html.escape(ODD).encode(), id="all of it as html.escape writes it"),
]


@pytest.mark.parametrize(("secret", "echo"), ECHOES)
def test_answer_is_refused_when_it_echoes_a_secret_as_services_encode_it(secret: str, echo: bytes) -> None:
    answer, secrets = b'{"echo":"' + echo + b'"}', spellings([secret])
    for cut in range(len(answer)):
        with pytest.raises(Refusal):
            _pass(secrets, [answer[:cut], answer[cut:]])


def test_plain_secret_is_searched_for_once_as_it_is_and_once_in_base64() -> None:
    token = "a0b1c2d3e4f5a0b1c2d3e4f5"
    assert [piece for piece, _ in spellings([token]).searched] == [token.encode(), base64.b64encode(token.encode())]
    pair = f"gate:{token}"
    assert len(spellings([token, pair]).searched) == 3


def test_odd_secret_is_searched_for_by_a_piece_that_every_spelling_has() -> None:
    odd = spellings(["correct/horse battery+staple"])
    assert len(odd) > 10
    assert len(odd.searched) == 2
    assert all(piece in secret for piece, secrets in odd.searched for secret in secrets)


def test_secret_beyond_ascii_is_looked_for_only_in_forms_that_are_long_enough_and_exist() -> None:
    assert "éééé".encode("latin-1") not in spellings(["éééé"])
    assert "€uro-secret".encode() in spellings(["€uro-secret"])


def test_secret_is_seen_however_the_answer_is_cut_and_none_of_it_leaves() -> None:
    answer = b"before " + SECRET.encode() + b" after"
    for first in range(len(answer)):
        for second in range(first, len(answer)):
            detector, left = LeakDetector(spellings([SECRET])), b""
            with pytest.raises(Refusal):
                for chunk in (answer[:first], answer[first:second], answer[second:]):
                    left += detector.feed(chunk)
            assert b"before ".startswith(left)


def test_bytes_are_held_back_only_while_they_could_begin_a_secret() -> None:
    detector = LeakDetector((b"abcdefgh",))
    assert detector.feed(b"data: abc") == b"data: "
    assert detector.feed(b"d!\n\n") == b"abcd!\n\n"
    assert detector.feed(b"x abcdabc") == b"x abcd"
    assert detector.finish() == b"abc"
    assert detector.finish() == b""


def test_event_leaves_at_once_when_it_ends_in_no_beginning_of_a_secret() -> None:
    detector = LeakDetector(spellings([SECRET]))
    assert detector.feed(b"data: hello\n\n") == b"data: hello\n\n"


def test_short_secret_is_not_looked_for() -> None:
    assert spellings(["x" * (SECRET_MIN_BYTES - 1)]) == ()
    assert spellings(["x" * SECRET_MIN_BYTES])
    chunk = b"anything"
    assert LeakDetector(()).feed(chunk) is chunk


def test_whole_is_checked_at_once() -> None:
    detector = LeakDetector(spellings([SECRET]))
    detector.check_whole(b"harmless\n")
    assert refused(lambda: detector.check_whole(b"a\nBearer " + SECRET.encode())).code == "upstream_failed"


def test_secret_of_one_byte_is_seen() -> None:
    assert refused(lambda: _pass((b"x",), [b"axb"])).code == "upstream_failed"
    assert _pass((b"x",), [b"a", b"b"]) == b"ab"


@given(st.lists(st.binary(max_size=12).map(lambda raw: bytes(b"ab"[byte % 2] for byte in raw)), max_size=12))
def test_detector_passes_exactly_the_answers_without_the_secret(chunks: list[bytes]) -> None:
    secrets = (b"abab", b"bbb", b"aabba")
    whole = b"".join(chunks)
    if any(secret in whole for secret in secrets):
        assert refused(lambda: _pass(secrets, chunks)).code == "upstream_failed"
    else:
        assert _pass(secrets, chunks) == whole
