"""Keys that stay fresh."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from gateway.edge.identity import IdentityVerifier
from gateway.edge.jwks import JwksLimits, JwksStore, identify
from gateway.edge.keyset import DOCUMENT_MAX_BYTES
from gateway.errors import GateMisuse, GateUnavailable, Refusal
from tests.gateway.edge.issuers import ED25519, ISSUER, NOW, OTHER, jwks, policy, public_jwk, token

URL = "https://issuer.example/keys"


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Publisher:
    """The issuer's side: what it publishes, and how often it was asked."""

    def __init__(self, document: bytes) -> None:
        self.document = document
        self.asked = 0
        self.down = False
        self.gate: asyncio.Event | None = None
        self.answered = asyncio.Semaphore(0)

    async def fetch(self, url: str, max_bytes: int) -> bytes:
        assert (url, max_bytes) == (URL, DOCUMENT_MAX_BYTES)
        self.asked += 1
        if self.gate is not None:
            await self.gate.wait()
        self.answered.release()
        if self.down:
            raise GateUnavailable("down")
        return self.document


OLD = jwks(public_jwk(ED25519, "ed"))
NEW = jwks(public_jwk(OTHER, "new"))


def over_url(publisher: Publisher, clock: Clock, **limits: float) -> JwksStore:
    return JwksStore({ISSUER: URL}, clock=clock, fetch=publisher.fetch, limits=JwksLimits(**limits))


async def test_store_reads_keys_when_they_are_in_a_file(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    path.write_bytes(OLD)
    store = JwksStore({ISSUER: f"file:{path}"}, clock=Clock())
    assert store.generation(ISSUER) == -1
    await store.start()
    try:
        assert store.key(ISSUER, "ed", "EdDSA") is not None
        assert store.key("https://other.example", "ed", "EdDSA") is None
    finally:
        await store.close()


async def test_start_is_unavailable_when_the_file_is_missing(tmp_path: Path) -> None:
    with pytest.raises(GateUnavailable):
        await JwksStore({ISSUER: f"file:{tmp_path / 'none.json'}"}, clock=Clock()).start()


async def test_start_is_misuse_when_the_file_is_no_key_set(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    path.write_bytes(b"{}")
    with pytest.raises(GateMisuse):
        await JwksStore({ISSUER: f"file:{path}"}, clock=Clock()).start()


@pytest.mark.parametrize(
    "source",
    [
        pytest.param("http://issuer.example/keys", id="without TLS"),
        pytest.param("https://issuer.example/keys", id="without a way to fetch"),
        pytest.param("keys.json", id="without a scheme"),
    ],
)
def test_store_is_misuse_when_the_source_is(source: str) -> None:
    with pytest.raises(GateMisuse):
        JwksStore({ISSUER: source}, clock=Clock())


async def test_identify_learns_a_new_key_when_the_issuer_rotates() -> None:
    publisher, clock = Publisher(OLD), Clock()
    store = over_url(publisher, clock)
    verifier = IdentityVerifier({ISSUER: policy()}, store)
    assert (await identify(verifier, store, token(), NOW)).id == "ada"
    publisher.document = NEW
    clock.now += 11
    rotated = token(key=OTHER, headers={"kid": "new"})
    assert (await identify(verifier, store, rotated, NOW)).id == "ada"
    with pytest.raises(Refusal):  # and the withdrawn key is worth nothing, cached token or not
        await identify(verifier, store, token(), NOW)


async def test_identify_refuses_when_the_key_stays_unknown_and_asks_once() -> None:
    publisher, clock = Publisher(OLD), Clock()
    store = over_url(publisher, clock)
    verifier = IdentityVerifier({ISSUER: policy()}, store)
    for _ in range(5):
        with pytest.raises(Refusal) as caught:
            await identify(verifier, store, token(headers={"kid": "forged"}), NOW)
        assert caught.value.code == "identity_invalid"
    assert publisher.asked == 1
    clock.now += 11
    with pytest.raises(Refusal):
        await identify(verifier, store, token(headers={"kid": "forged"}), NOW)
    assert publisher.asked == 2


async def test_identify_refuses_when_the_keys_cannot_be_got() -> None:
    publisher = Publisher(OLD)
    publisher.down = True
    store = over_url(publisher, Clock())
    with pytest.raises(Refusal):
        await identify(IdentityVerifier({ISSUER: policy()}, store), store, token(), NOW)


async def test_refresh_asks_once_when_many_need_it() -> None:
    publisher = Publisher(OLD)
    publisher.gate = asyncio.Event()
    store = over_url(publisher, Clock())
    refreshes = [asyncio.ensure_future(store.refresh(ISSUER)) for _ in range(10)]
    await asyncio.sleep(0)
    publisher.gate.set()
    await asyncio.gather(*refreshes)
    assert publisher.asked == 1


async def test_refresh_keeps_the_keys_when_the_new_set_is_broken() -> None:
    publisher, clock = Publisher(OLD), Clock()
    store = over_url(publisher, clock)
    await store.refresh(ISSUER)
    publisher.document = b"<html>maintenance</html>"
    clock.now += 11
    with pytest.raises(GateMisuse):
        await store.refresh(ISSUER)
    assert store.key(ISSUER, "ed", "EdDSA") is not None


async def test_generation_stays_when_the_keys_are_the_same() -> None:
    store = over_url(Publisher(OLD), Clock())
    await store.refresh(ISSUER)
    before = store.generation(ISSUER)
    await store.refresh(ISSUER, force=True)
    assert store.generation(ISSUER) == before


async def test_keys_end_when_they_could_not_be_refreshed_for_too_long() -> None:
    publisher, clock = Publisher(OLD), Clock()
    store = over_url(publisher, clock, stale_max_seconds=100)
    verifier = IdentityVerifier({ISSUER: policy()}, store)
    await identify(verifier, store, token(), NOW)
    publisher.down = True
    clock.now += 100
    assert (await identify(verifier, store, token(), NOW)).id == "ada"
    clock.now += 1
    with pytest.raises(Refusal):
        await identify(verifier, store, token(), NOW)


async def test_refresh_is_unavailable_when_the_answer_takes_too_long() -> None:
    publisher = Publisher(OLD)
    publisher.gate = asyncio.Event()
    with pytest.raises(GateUnavailable, match="in time"):
        await over_url(publisher, Clock(), fetch_seconds=0.01).refresh(ISSUER)


async def test_refresh_is_misuse_when_the_issuer_is_unknown() -> None:
    with pytest.raises(GateMisuse):
        await over_url(Publisher(OLD), Clock()).refresh("https://other.example")


async def test_start_goes_on_when_a_url_is_down_and_the_background_mends_it() -> None:
    publisher, clock = Publisher(OLD), Clock()
    publisher.down = True
    store = over_url(publisher, clock, refresh_seconds=0.01, refresh_min_seconds=0)
    await store.start()
    try:
        assert store.generation(ISSUER) == -1
        for _ in range(3):  # failures, logged and survived
            await publisher.answered.acquire()
        publisher.down = False
        for _ in range(2):  # the second answer comes only after the first was taken over
            await publisher.answered.acquire()
        assert store.key(ISSUER, "ed", "EdDSA") is not None
    finally:
        await store.close()
        await store.close()
