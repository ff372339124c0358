"""What the gate reads of a request takes time in proportion to its length, whatever the text is."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from bundles.manifest import Arguments
from gateway.connectors.bodies import check_media_type, parse_body, parse_form
from gateway.connectors.rewrite import Rewriter, RewriteTarget
from gateway.edge.framing import FramingWatch
from gateway.edge.headers import RequestHead, check_head, connection_nominated, prefer
from gateway.edge.limits import EdgeLimits
from gateway.edge.tokens import find_token
from gateway.edge.url import canonical_path, origin_form
from gateway.errors import Refusal
from tests.gateway.connectors.parts import action, manifest
from tests.gateway.edge.sockets import CLOSE, parsed, running

LENGTH = 96_000
"""Three times what a head may hold: what reads each octet once needs milliseconds, what reads each pair of them minutes."""
PROCESSOR_SECONDS = 4.0
UNLIMITED = EdgeLimits(uri_max_bytes=LENGTH * 2, headers_max_bytes=LENGTH * 2)
ROOM = LENGTH * 2

PUMPED = {
    "spaces": " ",
    "tabs": "\t",
    "commas": ",",
    "semicolons": ";",
    "semicolons and spaces": "; ",
    "commas and spaces": ", ",
    "quotes": '"',
    "escaped quotes": '\\"',
    "letters": "a",
    "digits": "1",
    "slashes": "/",
    "assignments": ";a=b",
    "assignments with quotes": ';a="b" ',
    "charsets": "; charset=utf-8",
    "lone charsets": ";charset ",
    "ampersands": "&a=b",
    "escapes": "%61",
    "dots": "../",
}
HEADS = ["", ",", "application/json", "application/json;a=", ";charset", "wait=", 'a="', "Bearer ", "https://a"]
ENDS = ["", "x", ",", '"', "\x00"]


def _media_type(text: str) -> object:
    return check_media_type("json", text)


def _checked(name: str) -> Callable[[str], object]:
    target = canonical_path("/a")
    return lambda text: check_head(RequestHead("POST", target, (("host", "gate"), (name, text))))


def _watched(text: str) -> object:
    raw = text.encode("latin-1", "replace")
    return FramingWatch(UNLIMITED).feed(b"POST /a HTTP/1.1\r\nContent-Length:" + raw + b"\r\nx: " + raw + b"\r\n\r\n")


MULTIPART = "multipart/form-data; boundary=a"
REWRITER = Rewriter(
    manifest(action("a.x", "GET", "/a"), rewrite={"json": ["$..*_url", "$..a*b*c"]}),
    [RewriteTarget("svc", "http://up.example", "http://gate.example/c/svc")],
)
READERS: dict[str, Callable[[str], object]] = {
    "the preferences": lambda text: prefer([("prefer", text)]),
    "the media type of a body": _media_type,
    "the content type": _checked("content-type"),
    "the content coding": _checked("content-encoding"),
    "the connection": _checked("connection"),
    "the expectation": _checked("expect"),
    "the length": _checked("content-length"),
    "the options of the connection": lambda text: connection_nominated([("connection", text)]),
    "the target": lambda text: canonical_path("/" + text, uri_max_bytes=ROOM),
    "the target below an instance": lambda text: canonical_path("/c/a/" + text, uri_max_bytes=ROOM, separators_from=2),
    "the query": lambda text: canonical_path("/a?" + text, uri_max_bytes=ROOM),
    "a target in absolute form": lambda text: origin_form("http://" + text, "a"),
    "a form": lambda text: parse_form(text.encode("latin-1", "replace")),
    "the token": lambda text: find_token([("authorization", text)], (), None, ("bearer", "basic_password")),
    "the cookies": lambda text: find_token([("cookie", text)], (), None, ("bearer",), ("cookie:sid",)),
    "the media type of an answer": lambda text: REWRITER.applies_to(text),
    "the links of an answer": lambda text: REWRITER.headers([("link", text)]),
    "the URLs of an answer": lambda text: REWRITER.body(b"http://up.example" + text.encode(), lambda *_: ""),
    "a JSON body": lambda text: parse_body(Arguments(body="json"), "application/json", text.encode()),
    "a multipart body": lambda text: parse_body(Arguments(body="multipart"), MULTIPART, text.encode()),
    "the raw head": _watched,
}


@pytest.mark.parametrize("reader", READERS.values(), ids=READERS.keys())
def test_reading_takes_linear_time_when_the_text_is_long_and_odd(reader: Callable[[str], object]) -> None:
    for begin in HEADS:
        for pumped in PUMPED.values():
            for end in ENDS:
                text = begin + pumped * (LENGTH // len(pumped)) + end
                began = time.process_time()
                try:
                    reader(text)
                except Refusal:
                    pass  # whether it is read or refused is for other tests
                assert time.process_time() - began < PROCESSOR_SECONDS, (begin, pumped, end)


async def test_edge_answers_at_once_when_a_preference_holds_nothing_but_spaces() -> None:
    async with running() as edge:
        began = time.process_time()
        raw = await edge.send(b"GET /a HTTP/1.1\r\nHost: x\r\nPrefer: ," + b" " * 30_000 + b",\r\n" + CLOSE)
        assert parsed(raw)[0] == 200
        assert time.process_time() - began < PROCESSOR_SECONDS
