"""The watch over the raw bytes of a connection."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.edge.framing import CHUNK_MIN_MEAN_BYTES, CHUNKS_FREE, FramingWatch, Phase
from gateway.edge.limits import EdgeLimits
from gateway.errors import Refusal

PROCESSOR_SECONDS = 5.0
"""What is walked once takes less than one; what copies the rest of the read for each part takes many."""
LIMITS = EdgeLimits(uri_max_bytes=100, headers_max_bytes=400, headers_max_count=5)

PLAIN = b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n"
SIZED = b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello"
EMPTY = b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"
CHUNKED = b"POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n1;ext=1\r\n!\r\n0\r\n\r\n"
TRAILERS = CHUNKED[:-2] + b"X-Evil: 1\r\n\r\n"


def refused(*pieces: bytes) -> str:
    watch = FramingWatch(LIMITS)
    with pytest.raises(Refusal) as caught:
        for piece in pieces:
            watch.feed(piece)
    return caught.value.code


@pytest.mark.parametrize(
    "message",
    [
        pytest.param(PLAIN, id="no body"),
        pytest.param(SIZED, id="a sized body"),
        pytest.param(EMPTY, id="an empty body"),
        pytest.param(CHUNKED, id="a chunked body"),
        pytest.param(b"\r\n" + PLAIN, id="an empty line ahead"),
    ],
)
def test_watch_stands_between_messages_when_one_is_complete(message: bytes) -> None:
    for size in (1, 2, 3, 7, len(message)):
        watch = FramingWatch(LIMITS)
        for start in range(0, len(message), size):
            watch.feed(message[start : start + size])
        assert (watch.phase, watch.heads) == (Phase.BETWEEN, 1)
        watch.feed(message + PLAIN)
        assert (watch.phase, watch.heads) == (Phase.BETWEEN, 3)


def test_watch_counts_body_bytes_when_chunked() -> None:
    watch = FramingWatch(LIMITS)
    watch.feed(CHUNKED)
    assert watch.body_bytes == 6


@pytest.mark.parametrize(
    ("pieces", "phase"),
    [
        pytest.param([b""], Phase.BETWEEN, id="nothing"),
        pytest.param([b"\r\n"], Phase.BETWEEN, id="an empty line"),
        pytest.param([b"G"], Phase.HEAD, id="one byte"),
        pytest.param([PLAIN[:-1]], Phase.HEAD, id="all but the last byte of the head"),
        pytest.param([SIZED[:-1]], Phase.BODY, id="all but the last byte of the body"),
        pytest.param([CHUNKED[:-1]], Phase.BODY, id="all but the last byte of the last chunk"),
    ],
)
def test_watch_says_where_the_connection_stands_when_fed(pieces: list[bytes], phase: Phase) -> None:
    watch = FramingWatch(LIMITS)
    for piece in pieces:
        watch.feed(piece)
    assert watch.phase is phase


@pytest.mark.parametrize(
    ("message", "code"),
    [
        pytest.param(b"GET /" + b"a" * 300, "uri_too_long", id="an endless target"),
        pytest.param(b"GET /" + b"a" * 100 + b" HTTP/1.1\r\n\r\n", "uri_too_long", id="a target one byte too long"),
        pytest.param(b"GET /" + b"a" * 300 + b" HTTP/1.1\r\nHost: x\r\n\r\n", "uri_too_long", id="a long target"),
        pytest.param(b"GET / HTTP/1.1\r\nA: " + b"a" * 500, "headers_too_large", id="an endless header"),
        pytest.param(b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 6, "headers_too_large", id="a header too many"),
        pytest.param(
            b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 100_000 + b"\r\n", "headers_too_large", id="100,000 headers"
        ),
        pytest.param(
            SIZED.replace(b"\r\n\r\n", b"\r\nTransfer-Encoding: chunked\r\n\r\n"),
            "malformed_request",
            id="length and chunked",
        ),
        pytest.param(
            CHUNKED.replace(b"\r\n\r\n", b"\r\ncontent-length: 4\r\n\r\n", 1),
            "malformed_request",
            id="chunked and length",
        ),
        pytest.param(
            SIZED.replace(b"\r\n\r\n", b"\r\nContent-Length : 5\r\n\r\n"), "malformed_request", id="two lengths"
        ),
        pytest.param(SIZED.replace(b": 5", b": +5"), "malformed_request", id="a signed length"),
        pytest.param(SIZED.replace(b": 5", b": " + b"9" * 19), "malformed_request", id="an enormous length"),
        pytest.param(SIZED.replace(b": 5", b":"), "malformed_request", id="no length"),
        pytest.param(TRAILERS, "malformed_request", id="trailers"),
        pytest.param(CHUNKED.replace(b"5\r\n", b"xx\r\n"), "malformed_request", id="no chunk size"),
        pytest.param(CHUNKED.replace(b"5\r\n", b"-5\r\n"), "malformed_request", id="a negative chunk size"),
        pytest.param(CHUNKED.replace(b"5\r\n", b"0" * 16 + b"5\r\n"), "malformed_request", id="a padded chunk size"),
        pytest.param(b"G" * 200, "uri_too_long", id="a request line without an end"),
        pytest.param(
            CHUNKED.replace(b"5\r\n", b"5;" + b"x" * 300), "malformed_request", id="an endless chunk extension"
        ),
    ],
)
def test_watch_refuses_when_the_stream_holds(message: bytes, code: str) -> None:
    assert refused(message) == code
    assert refused(*(message[index : index + 1] for index in range(min(len(message), 2000)))) == code


def test_watch_accepts_when_headers_are_at_their_limits() -> None:
    watch = FramingWatch(LIMITS)
    watch.feed(b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 5 + b"\r\n")
    watch.feed(b"OPTIONS /" + b"a" * 99 + b" HTTP/1.1\r\nHost: x\r\n\r\n")
    assert watch.heads == 2


@given(st.lists(st.sampled_from([PLAIN, SIZED, EMPTY, CHUNKED]), min_size=1, max_size=6), st.data())
def test_watch_reads_the_same_when_the_stream_is_cut_anywhere(messages: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(messages)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    watch = FramingWatch(LIMITS)
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        watch.feed(stream[start:end])
    assert (watch.phase, watch.heads) == (Phase.BETWEEN, len(messages))


@given(st.binary(max_size=300))
def test_watch_only_ever_refuses_when_fed_anything(stream: bytes) -> None:
    watch = FramingWatch(LIMITS)
    try:
        watch.feed(stream)
    except Refusal as refusal:
        assert refusal.code in ("malformed_request", "uri_too_long", "headers_too_large")


def _chunked(*sizes: int) -> bytes:
    head = b"POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    return head + b"".join(b"%x\r\n%b\r\n" % (size, b"x" * size) for size in sizes) + b"0\r\n\r\n"


@pytest.mark.parametrize(
    "sizes",
    [
        pytest.param([1] * (CHUNKS_FREE + 300), id="one octet each"),
        pytest.param([CHUNK_MIN_MEAN_BYTES - 1] * 20 * CHUNKS_FREE, id="a little less than the mean"),
        pytest.param([1024] + [1] * (CHUNKS_FREE + 400), id="one large and many small"),
    ],
)
def test_watch_refuses_when_chunks_are_tiny_and_many(sizes: list[int]) -> None:
    assert refused(_chunked(*sizes)) == "malformed_request"


@pytest.mark.parametrize(
    "sizes",
    [
        pytest.param([1] * (CHUNKS_FREE - 1), id="as many as are free"),
        pytest.param([CHUNK_MIN_MEAN_BYTES] * 3 * CHUNKS_FREE, id="many of the mean"),
        pytest.param([1 << 20] + [1] * 2 * CHUNKS_FREE, id="many small behind a large one"),
    ],
)
def test_watch_accepts_when_chunks_are_many(sizes: list[int]) -> None:
    watch = FramingWatch(LIMITS)
    watch.feed(_chunked(*sizes) + _chunked(*sizes))
    assert (watch.phase, watch.heads) == (Phase.BETWEEN, 2)


@pytest.mark.parametrize(
    "stream",
    [
        pytest.param(_chunked(*[CHUNK_MIN_MEAN_BYTES] * 100_000), id="chunks"),
        pytest.param(b"GET / HTTP/1.1\r\n\r\n" * 100_000, id="requests"),
        pytest.param(b"\r\nGET / HTTP/1.1\r\n\r\n" * 100_000, id="requests behind empty lines"),
        pytest.param(b"POST / HTTP/1.1\r\ncontent-length:1\r\n\r\nx" * 50_000, id="bodies"),
    ],
)
def test_watch_takes_linear_time_when_one_read_holds_many_parts(stream: bytes) -> None:
    began = time.process_time()
    FramingWatch(LIMITS).feed(stream)
    assert time.process_time() - began < PROCESSOR_SECONDS
