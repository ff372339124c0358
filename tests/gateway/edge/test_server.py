"""The listening server over real sockets: which requests reach the handler, and which are refused before it."""

from __future__ import annotations

import asyncio
import json

import pytest
import uvloop
from aiohttp import web

from gateway.edge.answer import Answer
from gateway.edge.body import request_head
from gateway.edge.problem import refusal
from tests.gateway.edge.sockets import CHUNKED, CLOSE, GET, parsed, problem, running

REFUSED = {
    "both length and chunked": (
        b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
        "malformed_request",
    ),
    "two lengths": (
        b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        400,
        "malformed_request",
    ),
    "a space before the colon of the length": (
        b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length : 1\r\n\r\na",
        400,
        "malformed_request",
    ),
    "a folded header": (GET + b"X-A: b\r\n c\r\n" + CLOSE, 400, "malformed_request"),
    "a null byte in a header": (GET + b"X-A: b\x00c\r\n" + CLOSE, 400, "malformed_request"),
    "a null byte in the path": (b"GET /a\x00b HTTP/1.1\r\nHost: x\r\n" + CLOSE, 400, "malformed_request"),
    "an encoded null byte in the path": (b"GET /a%00b HTTP/1.1\r\nHost: x\r\n" + CLOSE, 400, "malformed_request"),
    "dot segments": (b"GET /a/../b HTTP/1.1\r\nHost: x\r\n" + CLOSE, 400, "malformed_request"),
    "encoded dot segments": (b"GET /a/%2e%2e/b HTTP/1.1\r\nHost: x\r\n" + CLOSE, 400, "malformed_request"),
    "doubly encoded dot segments": (b"GET /a/%252e%252e/b HTTP/1.1\r\nHost: x\r\n" + CLOSE, 400, "malformed_request"),
    "absolute-form to another host": (b"GET http://evil/a HTTP/1.1\r\nHost: x\r\n" + CLOSE, 400, "malformed_request"),
    "CONNECT": (b"CONNECT evil:443 HTTP/1.1\r\nHost: evil:443\r\n\r\n", 400, "malformed_request"),
    "an upgrade": (GET + b"Upgrade: websocket\r\nConnection: Upgrade\r\n\r\n", 400, "malformed_request"),
    "TRACE": (b"TRACE /a HTTP/1.1\r\nHost: x\r\n" + CLOSE, 405, "method_not_allowed"),
    "an unknown method": (b"BREW /a HTTP/1.1\r\nHost: x\r\n" + CLOSE, 400, "malformed_request"),
    "no host": (b"GET /a HTTP/1.1\r\n\r\n", 400, "malformed_request"),
    "two hosts": (b"GET /a HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", 400, "malformed_request"),
    "no HTTP": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400, "malformed_request"),
    "HTTP/2 in the clear": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400, "malformed_request"),
    "a target that is one byte too long": (
        b"GET /" + b"a" * 8_192 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        414,
        "uri_too_long",
    ),
    "a padded chunk size, and trailers": (
        CHUNKED + b"\r\n" + b"0" * 17 + b"1\r\na\r\n0\r\nX-A: b\r\n\r\n",
        400,
        "malformed_request",
    ),
    "a target that is too long": (b"GET /" + b"a" * 9_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 414, "uri_too_long"),
    "100,000 headers": (GET + b"X-A: b\r\n" * 100_000 + b"\r\n", 431, "headers_too_large"),
    "one header too many": (GET + b"X-A: b\r\n" * 100 + CLOSE, 431, "headers_too_large"),
    "one large header": (GET + b"X-A: " + b"b" * 40_000 + b"\r\n" + CLOSE, 431, "headers_too_large"),
    "trailers": (CHUNKED + b"\r\n1\r\na\r\n0\r\nX-A: b\r\n\r\n", 400, "malformed_request"),
    "announced trailers": (CHUNKED + b"Trailer: X-A\r\n" + CLOSE + b"0\r\n\r\n", 400, "malformed_request"),
    "a chunk without a size": (CHUNKED + b"\r\nzz\r\na\r\n0\r\n\r\n", 400, "malformed_request"),
    "chunks of one octet without end": (CHUNKED + b"\r\n" + b"1\r\na\r\n" * 6_000, 400, "malformed_request"),
    "a chunk that is longer than it says": (CHUNKED + b"\r\n1\r\nab\r\n0\r\n\r\n", 400, "malformed_request"),
    "a compressed body": (
        b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Encoding: gzip\r\nContent-Length: 1\r\n" + CLOSE + b"a",
        400,
        "malformed_request",
    ),
    "a method override": (GET + b"X-HTTP-Method-Override: DELETE\r\n" + CLOSE, 400, "malformed_request"),
    "a declared body of 1 GB": (
        b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 1073741824\r\n\r\n" + b"a" * 4_000_000,
        413,
        "body_too_large",
    ),
    "an undeclared body that grows too large": (
        CHUNKED + b"\r\n" + b"10000\r\n%b\r\n" % (b"a" * 65_536) * 17,
        413,
        "body_too_large",
    ),
}


@pytest.mark.parametrize(("raw", "status", "code"), REFUSED.values(), ids=REFUSED.keys())
async def test_server_answers_a_problem_document_when_sent(raw: bytes, status: int, code: str) -> None:
    async with running() as edge:
        assert problem(await edge.send(raw)) == (status, code)


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        pytest.param(GET + CLOSE, {"method": "GET", "path": "/a", "bytes": 0}, id="a plain request"),
        pytest.param(
            b"POST /a%20b HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n" + CLOSE + b"abc",
            {"method": "POST", "path": "/a%20b", "bytes": 3},
            id="a sized body",
        ),
        pytest.param(
            CHUNKED + CLOSE + b"3\r\nabc\r\n1\r\nd\r\n0\r\n\r\n",
            {"method": "POST", "path": "/a", "bytes": 4},
            id="a chunked body",
        ),
        pytest.param(GET + b"X-A: b\r\n" * 98 + CLOSE, {"method": "GET", "bytes": 0}, id="as many headers as allowed"),
        pytest.param(
            b"GET /" + b"a" * 8_191 + b" HTTP/1.1\r\nHost: x\r\n" + CLOSE, {"method": "GET"}, id="as long as allowed"
        ),
        pytest.param(b"GET http://x/a HTTP/1.1\r\nHost: x\r\n" + CLOSE, {"path": "/a"}, id="absolute-form to us"),
        pytest.param(b"GET /a HTTP/1.0\r\n\r\n", {"path": "/a"}, id="HTTP/1.0"),
    ],
)
async def test_server_hands_the_request_over_when_it_is_plain(raw: bytes, expected: dict[str, object]) -> None:
    async with running() as edge:
        status, _, body = parsed(await edge.send(raw))
    assert status == 200
    assert expected.items() <= json.loads(body).items()


async def test_server_gives_header_bytes_unchanged_when_they_are_not_ascii() -> None:
    async with running() as edge:
        _, _, body = parsed(await edge.send(GET + b"X-Raw: \xff\xfe\r\n" + CLOSE))
    assert ["x-raw", "\xff\xfe"] in json.loads(body)["headers"]


async def test_server_serves_many_requests_when_they_are_pipelined() -> None:
    async with running() as edge:
        raw = await edge.send((GET + b"\r\n") * 50 + GET + CLOSE)
    assert raw.count(b"HTTP/1.1 200 OK") == 51


async def test_server_keeps_no_trailer_for_the_next_request_when_one_is_smuggled() -> None:
    async with running() as edge:
        raw = await edge.send(CHUNKED + b"\r\n0\r\nX-Smuggled: 1\r\n\r\n" + GET + CLOSE)
    assert problem(raw) == (400, "malformed_request")
    assert raw.count(b"HTTP/1.1") == 1


async def test_server_tells_of_refusals_when_no_handler_saw_them() -> None:
    async with running() as edge:
        await edge.send(b"garbage\r\n\r\n")
        assert edge.refused == [("malformed_request", "127.0.0.1")]


async def test_server_continues_when_the_client_waits_for_it() -> None:
    async with running() as edge:
        reader, writer = await asyncio.open_connection("127.0.0.1", edge.server.port)
        writer.write(b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nExpect: 100-continue\r\n" + CLOSE)
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"abc")
        assert json.loads(parsed(await reader.read())[2])["bytes"] == 3
        writer.close()


async def test_server_never_continues_when_the_request_is_refused() -> None:
    async def deny(request: web.BaseRequest) -> Answer:
        raise refusal("denied")

    async with running(deny) as edge:
        raw = await edge.send(b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n")
    assert problem(raw) == (403, "denied")


async def test_request_head_refuses_when_the_target_is_longer_than_asked() -> None:
    async def handler(request: web.BaseRequest) -> Answer:
        request_head(request, uri_max_bytes=3)
        raise AssertionError

    async with running(handler) as edge:
        assert problem(await edge.send(b"GET /abcd HTTP/1.1\r\nHost: x\r\n" + CLOSE)) == (414, "uri_too_long")


async def test_server_waits_for_more_when_pipelined_requests_exceed_the_queue() -> None:
    async with running() as edge:
        raw = await edge.send((GET + b"\r\n") * 500 + GET + CLOSE)
    assert raw.count(b"HTTP/1.1 200 OK") == 501


def test_server_behaves_the_same_when_the_loop_is_uvloop() -> None:
    async def scenario() -> list[tuple[int, str]]:
        async with running(header_read_seconds=0.2, body_read_seconds=0.2) as edge:
            assert parsed(await edge.send(GET + CLOSE))[0] == 200
            sent = [
                b"GET /a HT",
                b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\na",
                GET + b"X-A: b\r\n" * 100_000 + b"\r\n",
                b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 4000000\r\n\r\n" + b"a" * 4_000_000,
            ]
            return [problem(await edge.send(raw)) for raw in sent]

    assert uvloop.run(scenario()) == [
        (408, "too_slow"),
        (408, "too_slow"),
        (431, "headers_too_large"),
        (413, "body_too_large"),
    ]
