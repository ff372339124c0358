"""A bundle service that fails on the wire: each fault costs bounded time and memory and ends in a code of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from bundles.client_protocol import ClientSettings, Fetched, Question, question_of
from bundles.errors import BundleError, BundleRefused, BundleUnavailable
from bundles.freshness import BundleIdentity
from gateway.bundle_source import BundleAddress
from gateway.egress.addresses import AddressClass
from gateway.egress.dialer import UpstreamPool
from tests.gateway.egress.upstreams import LOOPBACK, Script, Upstream, answering, closing, hang
from tests.gateway.egress.upstreams import upstream as upstream_of

LIMIT_BYTES = 100_000
QUESTION = Question((("Prefer", "modes=snapshot"),), 1.5, 1.5, LIMIT_BYTES)
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/gzip\r\nTidegate-Freshness: t\r\n"


async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: bytes) -> None:
    """A body that never ends, as fast as it is taken."""
    writer.write(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
    while not writer.is_closing():
        writer.write(b"1000\r\n" + bytes(4096) + b"\r\n")
        await writer.drain()


async def stops_in_the_body(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: bytes) -> None:
    writer.write(HEAD + b"Content-Length: 1000\r\n\r\n" + bytes(10))
    await reader.read()


async def trickles(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: bytes) -> None:
    """A byte now and then: each comes in time, all together never do."""
    writer.write(HEAD + b"Content-Length: 100000\r\n\r\n")
    while not writer.is_closing():
        writer.write(b"x")
        await asyncio.sleep(0.05)


@asynccontextmanager
async def address(script: Script, *, token: str | None = None) -> AsyncIterator[tuple[BundleAddress, Upstream]]:
    """A service that follows the script, as the gate asks it."""
    pool = UpstreamPool(LOOPBACK)
    async with upstream_of(script) as upstream:
        try:
            yield BundleAddress(pool, upstream.url("/bundles/main"), token), upstream
        finally:
            await pool.close()


async def asked(script: Script, question: Question = QUESTION) -> Fetched:
    async with address(script) as (fetch, _):
        return await fetch(question)


async def test_answer_comes_whole_when_the_service_is_sound() -> None:
    fetched = await asked(answering(HEAD + b'ETag: "e"\r\nContent-Length: 3\r\n\r\nabc'))
    assert (fetched.status, fetched.unverified_body) == (200, b"abc")
    assert fetched.unverified_headers["tidegate-freshness"] == "t"


async def test_answer_has_no_body_when_nothing_changed() -> None:
    fetched = await asked(answering(b"HTTP/1.1 304 Not Modified\r\nTidegate-Freshness: t\r\n\r\n"))
    assert (fetched.status, fetched.unverified_body) == (304, b"")


async def test_answer_comes_whole_when_it_is_a_delta() -> None:
    fetched = await asked(answering(HEAD.replace(b"200 OK", b"226 IM Used") + b"Content-Length: 3\r\n\r\nabc"))
    assert (fetched.status, fetched.unverified_body) == (226, b"abc")


async def test_body_of_an_error_is_not_read_when_it_would_never_end() -> None:
    async def failing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: bytes) -> None:
        writer.write(b"HTTP/1.1 500 No\r\nContent-Length: 99999999\r\n\r\n")
        await reader.read()

    assert (await asked(failing)).status == 500


async def test_question_carries_condition_preference_and_token() -> None:
    held = BundleIdentity("main", "sha256:ab", 7)
    question = question_of(ClientSettings(), held, may_wait=True)
    async with address(answering(b"HTTP/1.1 304 Not Modified\r\n\r\n"), token="secret") as (fetch, upstream):
        await fetch(question)
    head = upstream.heads[0].decode()
    for line in ('If-None-Match: "sha256:ab"', "Prefer: modes=snapshot;wait=60", "Authorization: Bearer secret"):
        assert f"\r\n{line}\r\n" in head


TWICE = b"Tidegate-Freshness: u\r\nContent-Length: 3\r\n\r\nabc"
FAULTS: dict[str, tuple[Script, str]] = {
    "never answers": (hang, "bundle_service_timeout"),
    "closes at once": (closing(b""), "bundle_service_unreachable"),
    "speaks another protocol": (closing(b"SSH-2.0-x\r\n"), "bundle_service_unreachable"),
    "stops in the middle of the body": (stops_in_the_body, "bundle_service_timeout"),
    "closes in the middle of the body": (
        closing(HEAD + b"Content-Length: 1000\r\n\r\n" + bytes(10)),
        "bundle_service_unreachable",
    ),
    "trickles": (trickles, "bundle_service_timeout"),
    "sends without end": (endless, "bundle_too_large"),
    "sends one byte too many": (
        answering(HEAD + b"Content-Length: %d\r\n\r\n" % (LIMIT_BYTES + 1) + bytes(LIMIT_BYTES + 1)),
        "bundle_too_large",
    ),
    "states freshness twice": (answering(HEAD + TWICE), "bundle_service_answer"),
}


@pytest.mark.parametrize("fault", FAULTS)
async def test_question_ends_with_a_code_when_the_service(fault: str) -> None:
    script, code = FAULTS[fault]
    async with asyncio.timeout(10):
        with pytest.raises(BundleError) as refused:
            await asked(script)
    assert refused.value.code == code
    assert isinstance(refused.value, BundleUnavailable | BundleRefused)


async def test_largest_archive_is_taken_when_it_is_exactly_at_the_limit() -> None:
    raw = HEAD + b"Content-Length: %d\r\n\r\n" % LIMIT_BYTES + bytes(LIMIT_BYTES)
    assert len((await asked(answering(raw))).unverified_body) == LIMIT_BYTES


async def test_redirect_is_not_followed_when_the_service_sends_one() -> None:
    moved = b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n"
    async with address(answering(moved)) as (fetch, upstream):
        assert (await fetch(QUESTION)).status == 302
        assert upstream.connections == 1


@pytest.mark.parametrize(
    "allowed", [frozenset[AddressClass](), frozenset({AddressClass.PRIVATE})], ids=["none", "private"]
)
async def test_address_is_not_dialled_when_its_class_is_not_allowed(allowed: frozenset[AddressClass]) -> None:
    async with upstream_of(answering(HEAD)) as upstream:
        pool = UpstreamPool(allowed)
        with pytest.raises(BundleUnavailable) as refused:
            await BundleAddress(pool, upstream.url("/bundles/main"), None)(QUESTION)
        await pool.close()
        assert refused.value.code == "bundle_service_unreachable" and upstream.connections == 0
