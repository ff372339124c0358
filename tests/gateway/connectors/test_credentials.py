"""Secrets by reference, and what is injected."""

from __future__ import annotations

import asyncio
import base64
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from bundles.manifest import Auth
from gateway.connectors.credentials import (
    DEFAULT_LIFETIME_SECONDS,
    RENEW_BEFORE_SECONDS,
    SECRET_MAX_BYTES,
    TOKEN_LIFETIME_MAX_SECONDS,
    CredentialError,
    CredentialInjector,
    SecretReader,
    read_token_answer,
)
from gateway.edge.headers import HeaderPairs
from gateway.errors import Refusal
from tests.gateway.connectors.parts import refused

ENVIRONMENT = {"TOKEN": "tok-12345678", "EMPTY": "", "BROKEN": "a\r\nHost: x"}


def _file(path: Path, content: bytes, mode: int = 0o600) -> str:
    path.write_bytes(content)
    path.chmod(mode)
    return f"file:{path.name}"


def _fault(reader: SecretReader, reference: str) -> str:
    with pytest.raises(CredentialError) as caught:
        reader.read(reference)
    return caught.value.code


def test_secret_is_read_from_the_environment_or_a_private_file(tmp_path: Path) -> None:
    reader = SecretReader(ENVIRONMENT, tmp_path)
    assert reader.read("env:TOKEN") == "tok-12345678"
    assert reader.read(_file(tmp_path / "a", b"from-file\n")) == "from-file"
    assert reader.read(_file(tmp_path / "b", b"from-file\r\n", 0o400)) == "from-file"
    assert reader.read(f"file:{tmp_path / 'a'}") == "from-file"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o606, 0o644, 0o601, 0o610])
def test_secret_is_refused_when_others_can_touch_its_file(tmp_path: Path, mode: int) -> None:
    assert _fault(SecretReader({}, tmp_path), _file(tmp_path / "s", b"x", mode)) == "secret_readable"


@pytest.mark.parametrize(
    ("content", "code"),
    [
        pytest.param(b"", "secret_invalid", id="empty"),
        pytest.param(b"\n", "secret_invalid", id="empty line"),
        pytest.param(b"a\r\nHost: x", "secret_invalid", id="line end inside"),
        pytest.param(b"a\x00b", "secret_invalid", id="null byte"),
        pytest.param(b"\xff", "secret_invalid", id="not UTF-8"),
        pytest.param(b"x" * (SECRET_MAX_BYTES + 1), "secret_invalid", id="one byte too long"),
    ],
)
def test_secret_is_refused_when_it_could_not_stand_in_a_header(tmp_path: Path, content: bytes, code: str) -> None:
    assert _fault(SecretReader({}, tmp_path), _file(tmp_path / "s", content)) == code


def test_secret_of_the_longest_size_is_read(tmp_path: Path) -> None:
    assert len(SecretReader({}, tmp_path).read(_file(tmp_path / "s", b"x" * SECRET_MAX_BYTES))) == SECRET_MAX_BYTES


@pytest.mark.parametrize(
    ("reference", "code"),
    [
        pytest.param("hunter2", "secret_inline", id="inline"),
        pytest.param("sk-abc:def", "secret_inline", id="inline with a colon"),
        pytest.param("vault:kv/x", "secret_inline", id="vault"),
        pytest.param("env:ABSENT", "secret_missing", id="absent variable"),
        pytest.param("env:EMPTY", "secret_invalid", id="empty variable"),
        pytest.param("env:BROKEN", "secret_invalid", id="variable with a line end"),
        pytest.param("file:absent", "secret_missing", id="absent file"),
        pytest.param("file:.", "secret_invalid", id="a directory"),
    ],
)
def test_reference_is_refused_when_it_leads_to_no_secret(tmp_path: Path, reference: str, code: str) -> None:
    tmp_path.chmod(0o700)
    assert _fault(SecretReader(ENVIRONMENT, tmp_path), reference) == code


def test_inline_secret_is_not_repeated_in_the_error(tmp_path: Path) -> None:
    with pytest.raises(CredentialError) as caught:
        SecretReader({}, tmp_path).read("hunter2")
    assert "hunter2" not in str(caught.value)


def test_named_pipe_neither_blocks_nor_passes(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe", 0o600)
    assert _fault(SecretReader({}, tmp_path), "file:pipe") == "secret_invalid"


class _Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


def _injector(auth: dict[str, Any], credential: Mapping[str, str], **more: Any) -> CredentialInjector:
    secrets = SecretReader({"PASSWORD": "pass-12345", "TOKEN": "tok-12345678", "WIDE": "tök-12345678"}, Path("/"))
    return CredentialInjector(Auth(**auth), credential, secrets, **({"clock": _Clock()} | more))


@pytest.mark.parametrize(
    ("auth", "credential", "headers"),
    [
        pytest.param(
            {"kind": "basic"}, {"username": "gate", "password": "env:PASSWORD"},
            (("authorization", "Basic " + base64.b64encode(b"gate:pass-12345").decode()),), id="basic",
        ),
        pytest.param({"kind": "bearer"}, {"token": "env:TOKEN"}, (("authorization", "Bearer tok-12345678"),), id="bearer"),
        pytest.param(
            {"kind": "header", "header": "x-api-key"}, {"token": "env:TOKEN"}, (("x-api-key", "tok-12345678"),), id="header"
        ),
        pytest.param(
            {"kind": "header", "header": "authorization", "prefix": "Token token="}, {"token": "env:TOKEN"},
            (("authorization", "Token token=tok-12345678"),), id="header with a prefix",
        ),
        pytest.param({"kind": "none"}, {}, (), id="none"),
    ],
)  # fmt: skip
async def test_credential_becomes_the_header_its_kind_says(
    auth: dict[str, Any], credential: dict[str, str], headers: HeaderPairs
) -> None:
    injected = await _injector(auth, credential).headers()
    assert injected.headers == headers
    for _, value in headers:
        assert any(spelling in value.encode() for spelling in injected.spellings)


@pytest.mark.parametrize(
    ("auth", "credential", "code"),
    [
        pytest.param({"kind": "aws_sigv4"}, {}, "not_supported", id="kind of a later version"),
        pytest.param({"kind": "basic"}, {"username": "gate"}, "credential_invalid", id="field missing"),
        pytest.param({"kind": "bearer"}, {"token": "env:TOKEN", "more": "x"}, "credential_invalid", id="field too many"),
        pytest.param({"kind": "none"}, {"token": "env:TOKEN"}, "credential_invalid", id="field for no credential"),
        pytest.param({"kind": "bearer"}, {"token": "tok-inline"}, "secret_inline", id="inline"),
        pytest.param({"kind": "bearer"}, {"token": "env:WIDE"}, "secret_invalid", id="token not ASCII"),
        pytest.param({"kind": "basic"}, {"username": "a:b", "password": "env:PASSWORD"}, "credential_invalid", id="colon in a name"),
        pytest.param({"kind": "header"}, {"token": "env:TOKEN"}, "credential_invalid", id="header without a name"),
        pytest.param(
            {"kind": "oauth2_client_credentials"},
            {"client_id": "c", "client_secret": "env:PASSWORD", "token_url": "https://t.example/"},
            "credential_invalid", id="no way to the token endpoint",
        ),
    ],
)  # fmt: skip
def test_credential_is_refused_when_it_cannot_be_used(
    auth: dict[str, Any], credential: dict[str, str], code: str
) -> None:
    with pytest.raises(CredentialError) as caught:
        _injector(auth, credential)
    assert caught.value.code == code


class _Endpoint:
    """A token endpoint that gives a new token each time."""

    def __init__(self, status: int = 200, lifetime_seconds: int = 100) -> None:
        self.asked: list[tuple[str, HeaderPairs, bytes]] = []
        self.status = status
        self.lifetime_seconds = lifetime_seconds
        self.open = asyncio.Event()
        self.open.set()

    async def __call__(self, url: str, headers: HeaderPairs, body: bytes) -> tuple[int, bytes]:
        self.asked.append((url, headers, body))
        count = len(self.asked)
        await self.open.wait()
        answer = f'{{"access_token":"token-{count:08d}","token_type":"Bearer","expires_in":{self.lifetime_seconds}}}'
        return self.status, answer.encode()


OAUTH = {
    "client_id": "gate id",
    "client_secret": "env:PASSWORD",
    "token_url": "https://t.example/token",
    "scope": "a b",
}


def _oauth(endpoint: _Endpoint, clock: _Clock) -> CredentialInjector:
    return _injector({"kind": "oauth2_client_credentials"}, OAUTH, exchange=endpoint, clock=clock)


async def test_oauth_token_is_fetched_once_and_renewed_before_it_ends() -> None:
    endpoint, clock = _Endpoint(), _Clock()
    injector = _oauth(endpoint, clock)
    assert (await injector.headers()).headers == (("authorization", "Bearer token-00000001"),)
    clock.now += 100 - RENEW_BEFORE_SECONDS - 1
    assert (await injector.headers()).headers == (("authorization", "Bearer token-00000001"),)
    clock.now += 1
    injected = await injector.headers()
    assert injected.headers == (("authorization", "Bearer token-00000002"),)
    assert b"token-00000002" in injected.spellings and b"pass-12345" in injected.spellings


async def test_oauth_asks_as_rfc_6749_says() -> None:
    endpoint = _Endpoint()
    await _oauth(endpoint, _Clock()).headers()
    url, headers, body = endpoint.asked[0]
    assert (url, body) == ("https://t.example/token", b"grant_type=client_credentials&scope=a+b")
    assert dict(headers)["authorization"] == "Basic " + base64.b64encode(b"gate+id:pass-12345").decode()


async def test_oauth_token_is_fetched_once_for_all_that_wait() -> None:
    endpoint = _Endpoint()
    endpoint.open.clear()
    injector = _oauth(endpoint, _Clock())
    waiting = [asyncio.ensure_future(injector.headers()) for _ in range(5)]
    while not endpoint.asked:
        await asyncio.sleep(0)
    endpoint.open.set()
    assert len({(await each).headers for each in waiting}) == 1
    assert len(endpoint.asked) == 1


async def test_oauth_token_is_fetched_again_after_it_was_refused() -> None:
    endpoint = _Endpoint()
    injector = _oauth(endpoint, _Clock())
    await injector.headers()
    used = await injector.headers()
    assert injector.forget(used)
    assert (await injector.headers()).headers == (("authorization", "Bearer token-00000002"),)


async def test_oauth_without_a_scope_asks_for_none() -> None:
    endpoint = _Endpoint()
    fields = {name: value for name, value in OAUTH.items() if name != "scope"}
    await _injector({"kind": "oauth2_client_credentials"}, fields, exchange=endpoint).headers()
    assert endpoint.asked[0][2] == b"grant_type=client_credentials"


async def test_oauth_refuses_when_the_endpoint_refuses() -> None:
    with pytest.raises(Refusal) as caught:
        await _oauth(_Endpoint(status=401), _Clock()).headers()
    assert caught.value.code == "upstream_failed"
    assert "pass-12345" not in str(caught.value)


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(b"<html>", id="no JSON"),
        pytest.param(b"[]", id="no object"),
        pytest.param(b"{}", id="no token"),
        pytest.param(b'{"access_token":"","token_type":"bearer"}', id="empty token"),
        pytest.param(b'{"access_token":"a b","token_type":"bearer"}', id="token with a space"),
        pytest.param(b'{"access_token":"a\\r\\nHost: x","token_type":"bearer"}', id="token with a line end"),
        pytest.param(b'{"access_token":"t\xc3\xb6k","token_type":"bearer"}', id="token not ASCII"),
        pytest.param(b'{"access_token":"t"}', id="no type"),
        pytest.param(b'{"access_token":"t","token_type":"mac"}', id="another type"),
        pytest.param(b'{"access_token":"t","token_type":"bearer","expires_in":"60"}', id="lifetime as text"),
        pytest.param(b'{"access_token":"t","token_type":"bearer","expires_in":true}', id="lifetime as boolean"),
        pytest.param(b'{"access_token":"t","token_type":"bearer","expires_in":0}', id="no lifetime left"),
        pytest.param(b'{"access_token":"t","access_token":"u","token_type":"bearer"}', id="two tokens"),
    ],
)
def test_token_answer_is_refused_when_it_is_not_plain(raw: bytes) -> None:
    assert refused(lambda: read_token_answer(200, raw)).code == "upstream_failed"


@pytest.mark.parametrize(
    ("raw", "lifetime_seconds"),
    [
        (b'{"access_token":"t","token_type":"BEARER"}', DEFAULT_LIFETIME_SECONDS),
        (b'{"access_token":"t","token_type":"bearer","expires_in":60}', 60),
        (b'{"access_token":"t","token_type":"bearer","expires_in":99999999}', TOKEN_LIFETIME_MAX_SECONDS),
    ],
)
def test_token_answer_gives_token_and_bounded_lifetime(raw: bytes, lifetime_seconds: int) -> None:
    assert read_token_answer(200, raw) == ("t", lifetime_seconds)


async def test_oauth_keeps_a_token_that_was_fetched_after_the_refused_one() -> None:
    injector = _injector({"kind": "oauth2_client_credentials"}, OAUTH, exchange=_Endpoint())
    refused_one = await injector.headers()
    assert injector.forget(refused_one)
    fresh = await injector.headers()
    assert injector.forget(refused_one)
    assert await injector.headers() is fresh


async def test_credential_of_the_configuration_has_no_other_when_it_is_refused() -> None:
    injector = _injector({"kind": "none"}, {})
    used = await injector.headers()
    assert not injector.forget(used)
    assert await injector.headers() is used
