"""The way out over real sockets: addresses, names and TLS identities, what pools share, documents."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

import pytest
import trustme

from gateway.egress import (
    AddressClass,
    PoolLimits,
    UpstreamFailed,
    UpstreamNotSent,
    UpstreamPool,
    UpstreamPools,
    fetch_document,
)
from gateway.egress.resolver import SystemResolver
from gateway.errors import Refusal
from tests.gateway.egress.upstreams import LOOPBACK, OK, QUICK, answering, closing, pool, upstream

# -- addresses ---------------------------------------------------------------------------------------------------------


class Names:
    """A resolver with scripted answers, one after the other; the last stays."""

    def __init__(self, *answers: tuple[str, ...]) -> None:
        self.answers = list(answers)
        self.asked = 0

    async def resolve(self, host: str, port: int) -> tuple[str, ...]:
        self.asked += 1
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


@pytest.mark.parametrize(
    "url",
    [
        pytest.param("http://127.0.0.1:1/", id="loopback"),
        pytest.param("http://[::1]:1/", id="loopback in IPv6"),
        pytest.param("http://[::ffff:127.0.0.1]:1/", id="loopback mapped"),
        pytest.param("http://169.254.169.254/latest/meta-data/", id="metadata"),
        pytest.param("http://10.0.0.1/", id="private"),
        pytest.param("http://localhost:1/", id="a name of loopback"),
        pytest.param("http://2130706433/", id="loopback as one number"),
        pytest.param("http://0x7f.0.0.1/", id="loopback in hexadecimal"),
        pytest.param("http://0.0.0.0:1/", id="any address"),
    ],
)
async def test_request_is_forbidden_when_the_address_is_not_public(url: str) -> None:
    out = UpstreamPool(frozenset())
    with pytest.raises((Refusal, UpstreamNotSent)) as caught:
        await out.request("GET", url, (), timeouts=QUICK)
    assert isinstance(caught.value, UpstreamNotSent) or caught.value.code == "egress_forbidden"
    await out.close()


async def test_request_is_forbidden_when_the_name_resolves_to_a_private_address_the_second_time() -> None:
    async with upstream(closing(OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))) as service:
        names = Names(("127.0.0.1",), ("10.0.0.1",))
        out = UpstreamPool(LOOPBACK, resolver=names)
        url = f"http://rebinding.example:{service.port}/"
        assert await (await out.request("GET", url, ())).read(10) == b"ok"
        assert names.asked == 1
        with pytest.raises(Refusal) as caught:
            await out.request("GET", url, ())
        assert caught.value.code == "egress_forbidden"
        assert service.connections == 1
        await out.close()


async def test_request_is_forbidden_when_one_of_several_addresses_is() -> None:
    out = UpstreamPool(LOOPBACK, resolver=Names(("127.0.0.1", "169.254.169.254")))
    with pytest.raises(Refusal) as caught:
        await out.request("GET", "http://mixed.example/", ())
    assert caught.value.code == "egress_forbidden"
    await out.close()


async def test_request_dials_the_next_address_when_the_first_refuses() -> None:
    async with upstream(answering(OK)) as service:
        out = UpstreamPool(LOOPBACK, resolver=Names(("127.0.0.2", "127.0.0.1")))
        assert await (await out.request("GET", f"http://two.example:{service.port}/", ())).read(10) == b"ok"
        assert b"Host: two.example:" in service.heads[0]
        await out.close()


async def test_system_resolver_gives_addresses_when_the_name_is_local() -> None:
    assert set(await SystemResolver().resolve("localhost", 80)) <= {"127.0.0.1", "::1"}


# -- TLS ---------------------------------------------------------------------------------------------------------------


async def tls_exchange(authority: trustme.CA, name: str, trusted: bool) -> bytes:
    server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("service.example").configure_cert(server_context)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(OK)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=server_context)
    port = server.sockets[0].getsockname()[1]
    context = ssl.create_default_context()
    if trusted:
        authority.configure_trust(context)
    out = UpstreamPool(LOOPBACK, resolver=Names(("127.0.0.1",)), ssl_context=context)
    try:
        return await (await out.request("GET", f"https://{name}:{port}/", ())).read(10)
    finally:
        await out.close()
        server.close()
        await server.wait_closed()


async def test_request_checks_the_name_when_the_address_is_pinned() -> None:
    assert await tls_exchange(trustme.CA(), "service.example", trusted=True) == b"ok"


@pytest.mark.parametrize(
    ("name", "trusted"),
    [
        pytest.param("other.example", True, id="the certificate names another host"),
        pytest.param("service.example", False, id="the issuer is not trusted"),
    ],
)
async def test_request_is_not_sent_when_the_tls_identity_is_wrong(name: str, trusted: bool) -> None:
    with pytest.raises(UpstreamNotSent):
        await tls_exchange(trustme.CA(), name, trusted)


# -- pools and documents -----------------------------------------------------------------------------------------------


async def test_pools_share_nothing_when_tenant_instance_or_credential_differ() -> None:
    pools = UpstreamPools(pools_max=4)
    first = pools.pool("acme", "servicenow", "a", LOOPBACK)
    assert pools.pool("acme", "servicenow", "a", LOOPBACK) is first
    others = [
        pools.pool("globex", "servicenow", "a", LOOPBACK),
        pools.pool("acme", "slack", "a", LOOPBACK),
        pools.pool("acme", "servicenow", "b", LOOPBACK),
    ]
    assert first not in others
    assert pools.pool("acme", "slack", "b", LOOPBACK) is not first
    assert pools.pool("acme", "slack", "c", LOOPBACK) is not first  # one too many: the oldest is closed
    assert pools.pool("acme", "slack", "c", frozenset({AddressClass.PRIVATE})) not in others
    await pools.close()
    with pytest.raises(UpstreamNotSent):
        await first.request("GET", "http://127.0.0.1/", ())


async def test_fetch_document_gives_the_body_when_the_answer_is_200() -> None:
    async with upstream(answering(OK)) as service, pool() as out:
        assert await fetch_document(out, service.url("/keys"), 10) == b"ok"


@pytest.mark.parametrize(
    ("raw", "max_bytes"),
    [
        pytest.param(OK, 1, id="too large"),
        pytest.param(b"HTTP/1.1 302 Found\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n", 10, id="a redirect"),
        pytest.param(b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n", 10, id="an error"),
    ],
)
async def test_fetch_document_fails_when_the_answer_is(raw: bytes, max_bytes: int) -> None:
    async with upstream(answering(raw)) as service, pool() as out:
        with pytest.raises(UpstreamFailed):
            await fetch_document(out, service.url("/keys"), max_bytes)


def test_pool_limits_hold_their_defaults() -> None:
    assert PoolLimits().idle_unsafe_seconds < PoolLimits().idle_seconds


def test_nothing_in_this_package_reads_the_environment() -> None:
    root = Path(__file__).parents[3] / "gateway" / "egress"
    assert not [path.name for path in root.glob("*.py") if "environ" in path.read_text(encoding="utf-8")]
