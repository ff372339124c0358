"""The door's answers as Envoy reads them."""

from __future__ import annotations

import pytest

from gateway.envoy.check_response import allowed, denied
from gateway.envoy.wire import Message, fields
from gateway.errors import GateMisuse
from tests.gateway.envoy.questions import code_of, denial, status_of, yes


def test_allowed_says_what_changes_when_the_request_may_go() -> None:
    put, answer = (("accept-encoding", "identity"),), (("Tidegate-Call", "c1"),)
    raw = allowed(set_headers=put, remove_headers=("authorization", "x-a"), answer_headers=answer)
    assert (code_of(raw), status_of(raw)) == (0, 200)
    assert yes(raw) == (put, ("authorization", "x-a"), answer)


def test_allowed_overwrites_when_the_header_is_there_already() -> None:
    option = Message(allowed(set_headers=(("a", "b"),), remove_headers=(), answer_headers=())).message(3).messages(2)[0]
    assert option.has(3)
    raw = Message(allowed(set_headers=(("a", "b"),), remove_headers=(), answer_headers=())).message(3).octets(2)
    assert [field.value for field in fields(raw) if field.number == 3] == [2]


STATUSES = {400: 7, 401: 16, 403: 7, 413: 7, 429: 7, 503: 14, 504: 14}


@pytest.mark.parametrize(("status", "code"), STATUSES.items())
def test_denied_is_never_ok_when_it_has_status(status: int, code: int) -> None:
    raw = denied(status, (("Content-Type", "application/problem+json"),), b'{"code":"denied"}')
    assert (status_of(raw), code_of(raw)) == (status, code)
    assert denial(raw) == ((("Content-Type", "application/problem+json"),), '{"code":"denied"}')


@pytest.mark.parametrize("pair", [("a\r\nb", "c"), ("a", "b\nc"), ("a", "b\rc"), ("a", "b\0c")])
def test_answers_are_refused_when_a_header_holds_a_line_end(pair: tuple[str, str]) -> None:
    with pytest.raises(GateMisuse):
        denied(403, (pair,), b"")
    with pytest.raises(GateMisuse):
        allowed(set_headers=(), remove_headers=(), answer_headers=(pair,))
