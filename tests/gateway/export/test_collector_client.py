"""Handing uploads over a real socket: only a 2xx answer counts, and nothing is sent twice or elsewhere."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from gateway.egress.addresses import AddressClass
from gateway.egress.dialer import UpstreamPool
from gateway.export.collector_client import CollectorClient, DeliveryFailed
from tests.e2e.collectors import Collector
from tests.e2e.harness import free_port


@pytest.fixture
async def pool() -> AsyncIterator[UpstreamPool]:
    """Connections that may go to this machine."""
    made = UpstreamPool(frozenset({AddressClass.LOOPBACK}))
    yield made
    await made.close()


@pytest.fixture
def collector() -> Collector:
    """A collector that does not listen yet."""
    return Collector()


def client(pool: UpstreamPool, collector: Collector, token: str | None = "collector-token") -> CollectorClient:
    """A client with the collector's token."""
    return CollectorClient(pool, collector.url, token)


async def failed(made: CollectorClient) -> DeliveryFailed:
    """The failure of one status report."""
    with pytest.raises(DeliveryFailed) as caught:
        await made.post("/logs", b"[]", compressed=False)
    return caught.value


async def test_client_hands_over_what_it_is_given(pool: UpstreamPool, collector: Collector) -> None:
    with collector.listening():
        await client(pool, collector).post("/status", b'{"labels": {}}', compressed=False)
    assert (collector.reports, collector.paths) == ([{"labels": {}}], ["/opa/status"])


async def test_client_fails_when_its_token_is_not_accepted(pool: UpstreamPool, collector: Collector) -> None:
    with collector.listening():
        for token in ("another", None):
            assert (await failed(client(pool, collector, token))).code == "collector_status_401"
    assert collector.reports == []


@pytest.mark.parametrize("status", [300, 302, 307, 400, 404, 413, 429, 500, 503])
async def test_client_fails_when_the_answer_is(pool: UpstreamPool, collector: Collector, status: int) -> None:
    collector.answers = [status]
    collector.headers = (("Location", "/elsewhere"), ("Retry-After", "7"))
    with collector.listening():
        fault = await failed(client(pool, collector))
    assert (fault.code, fault.retry_after_seconds) == (f"collector_status_{status}", 7.0)
    assert fault.too_large is (status == 413)
    assert collector.paths == ["/opa/logs"], "asked once, and nowhere else"


@pytest.mark.parametrize("value", ["Wed, 21 Oct 2026 07:28:00 GMT", "-1", "1e3", "", "9999999"])
async def test_client_ignores_a_wait_that_it_cannot_read(pool: UpstreamPool, collector: Collector, value: str) -> None:
    collector.answers = [503]
    collector.headers = (("Retry-After", value),)
    with collector.listening():
        assert (await failed(client(pool, collector))).retry_after_seconds is None


async def test_client_fails_when_nobody_listens(pool: UpstreamPool, collector: Collector) -> None:
    collector.port = free_port()
    assert (await failed(client(pool, collector))).code == "collector_unreachable"


async def test_client_goes_nowhere_that_the_configuration_does_not_allow(collector: Collector) -> None:
    public = UpstreamPool(frozenset({AddressClass.PUBLIC}))
    with collector.listening():
        assert (await failed(client(public, collector))).code == "collector_unreachable"
    await public.close()
    assert collector.paths == []
