"""What is kept with the fields of a head: never more than is true of every head that has them, and never too much."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.connectors.outbound import HeaderPolicy, forward_headers, inject
from gateway.edge.fields import FOUND_MAX, REMEMBERED_MAX, REMEMBERED_MAX_BYTES, HeaderFields, header_fields
from gateway.edge.headers import HeaderPairs, RequestHead, check_head, check_host, prefer
from gateway.edge.tokens import find_token
from gateway.edge.url import canonical_path
from gateway.egress.wire import Origin, encode_head
from gateway.errors import GateError, GateMisuse, Refusal

TARGET = canonical_path("/a")
POLICY = HeaderPolicy(frozenset({"accept", "x-version"}), frozenset())
OTHER_POLICY = HeaderPolicy(frozenset({"accept"}), frozenset())
ORIGIN = Origin("http", "service.test", 80)

QUESTIONS: dict[str, Callable[[HeaderPairs], object]] = {
    "the head's checks": lambda pairs: check_head(RequestHead("POST", TARGET, pairs)),
    "a host of this listener": lambda pairs: check_host(pairs, frozenset({"gate"})),
    "a host of another listener": lambda pairs: check_host(pairs, frozenset({"other"})),
    "preferences": prefer,
    "the token as bearer": lambda pairs: find_token(pairs, (), None, ("bearer",)),
    "the token as bearer or key": lambda pairs: find_token(pairs, (), None, ("bearer", "x-api-key")),
    "the token where a key is a credential": lambda pairs: find_token(pairs, (), None, ("bearer",), ("x-api-key",)),
    "the token beside a ticket": lambda pairs: find_token(pairs, (("tidegate_ticket", "X"),), None, ("bearer",)),
    "the token, or none in a form": lambda pairs: find_token(pairs, (), None, ("bearer", "form:key")),
    "the token, or another in a form": lambda pairs: find_token(pairs, (), (("key", "F"),), ("bearer", "form:key")),
    "the token in a query": lambda pairs: find_token(pairs, (("key", "Q"),), None, ("query:key",)),
    "what goes on": lambda pairs: forward_headers(pairs, POLICY),
    "what goes on elsewhere": lambda pairs: forward_headers(pairs, OTHER_POLICY),
    "an injected credential": lambda pairs: inject(pairs, (("accept", "own"),)),
    "another injected credential": lambda pairs: inject(pairs, (("x-key", "own"),)),
    "the head on the wire": lambda pairs: encode_head("GET", ORIGIN, "/a", pairs, None),
    "the head of another method": lambda pairs: encode_head("DELETE", ORIGIN, "/a", pairs, None),
    "the head of a body": lambda pairs: encode_head("GET", ORIGIN, "/a", pairs, "Content-Length: 1"),
    "the head to another target": lambda pairs: encode_head("GET", ORIGIN, "/b", pairs, None),
    "the head to another port": lambda pairs: encode_head("GET", Origin("http", "service.test", 81), "/a", pairs, None),
}

NAMES = (
    "host",
    "authorization",
    "x-api-key",
    "accept",
    "x-version",
    "prefer",
    "connection",
    "content-length",
    "upgrade",
)
VALUES = ("gate", "other", "Bearer T", "Basic dTpU", "T", "wait=3", "respond-async", "x-version", "12", "a\nb")
HEADS = st.lists(st.tuples(st.sampled_from(NAMES), st.sampled_from(VALUES)), max_size=6)


def answer(question: Callable[[HeaderPairs], object], pairs: HeaderPairs) -> object:
    try:
        return question(pairs)
    except (Refusal, GateMisuse) as refused:
        return type(refused), str(refused)
    except GateError as failed:
        raise AssertionError from failed


@given(HEADS, st.lists(st.sampled_from(sorted(QUESTIONS)), min_size=1, max_size=24))
def test_fields_answer_as_plain_pairs_do_whatever_was_asked_before(
    pairs: list[tuple[str, str]], asked: list[str]
) -> None:
    fields = HeaderFields(tuple(pairs))
    for name in asked:
        assert answer(QUESTIONS[name], fields) == answer(QUESTIONS[name], tuple(pairs)), name


@pytest.mark.parametrize("first", sorted(QUESTIONS))
def test_every_question_is_answered_as_of_plain_pairs_after_any_other(first: str) -> None:
    pairs = (("host", "gate"), ("authorization", "Bearer T"), ("accept", "*/*"), ("x-version", "1"))
    for second, question in QUESTIONS.items():
        fields = HeaderFields(pairs)
        answer(QUESTIONS[first], fields)
        assert answer(question, fields) == answer(question, pairs), second


@pytest.mark.parametrize("name", ["the head's checks", "a host of this listener", "the token as bearer"])
def test_refusal_is_made_again_when_the_same_head_comes_again(name: str) -> None:
    fields = HeaderFields((("upgrade", "h2c"), ("host", "elsewhere")))
    first = answer(QUESTIONS[name], fields)
    assert isinstance(first, tuple) and first[0] is Refusal
    assert answer(QUESTIONS[name], fields) == first


def test_answer_is_kept_when_it_was_found_once() -> None:
    fields = HeaderFields((("accept", "*/*"), ("authorization", "Bearer T")))
    for name in ("the token as bearer", "what goes on", "an injected credential", "the head on the wire"):
        assert QUESTIONS[name](fields) is QUESTIONS[name](fields), name


def test_fields_are_one_object_when_a_head_comes_again_and_another_when_an_octet_differs() -> None:
    raw = ((b"Accept", b"*/*"), (b"X-One", b"\xe9"))
    fields = header_fields(raw)
    assert fields == (("accept", "*/*"), ("x-one", "\xe9"))
    assert header_fields(tuple((bytes(name), bytes(value)) for name, value in raw)) is fields
    assert header_fields(((b"Accept", b"*/*"), (b"X-One", b"\xe8"))) != fields


def test_fields_are_not_remembered_when_they_are_large() -> None:
    raw = ((b"x-large", b"v" * REMEMBERED_MAX_BYTES),)
    assert header_fields(raw) is not header_fields(raw)
    raw = ((b"x-large", b"v" * (REMEMBERED_MAX_BYTES - len(b"x-large"))),)
    assert header_fields(raw) is header_fields(raw)


def test_fields_are_forgotten_when_many_others_came() -> None:
    first = header_fields(((b"x-first", b"1"),))
    for number in range(REMEMBERED_MAX):
        header_fields(((b"x-number", b"%d" % number),))
    assert header_fields(((b"x-first", b"1"),)) is not first


def test_answers_are_forgotten_when_there_are_many() -> None:
    fields = HeaderFields((("accept", "*/*"),))
    for number in range(10 * FOUND_MAX):
        encode_head("GET", ORIGIN, f"/{number}", fields, None)
        assert len(fields.found) <= FOUND_MAX


def test_head_on_the_wire_is_not_kept_when_it_is_long() -> None:
    fields = HeaderFields((("accept", "*/*"),))
    assert encode_head("GET", ORIGIN, "/" + "a" * REMEMBERED_MAX_BYTES, fields, None).endswith(b"\r\n\r\n")
    assert not fields.found
