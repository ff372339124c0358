"""The bundle service over its own port: reading, waiting, publishing, and everything it does not let through."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bundles.build import sign_files
from bundles.canonical import sha256_hex
from bundles.dsse import cosign
from bundles.errors import BundleMisuse, BundleUnavailable
from bundles.freshness import BundleIdentity, verify_statement
from bundles.keys import private_pem, public_pem, write_private
from bundles.service import BundleService, open_service
from bundles.service_config import load_service_config
from bundles.service_protocol import ServiceAnswer, ServiceRequest, encode_cosignatures, wait_seconds
from bundles.service_store import only_process
from tests.bundles.parts import NOW, OPTIONS, good_bundle, good_files, signed, signing_key
from tests.bundles.test_freshness import KEY

CI, GATES, STRANGER = "ci-" + "t" * 30, "gates-" + "t" * 30, "nobody-" + "t" * 30

CONFIG = """
directory: store
freshness: {key: "file:freshness.pem"}
bundles:
  - {name: main, trusted_keys: [{keyid: bundle, algorithm: ES256, key: "file:bundle.pub.pem"}]}
  - {name: main, tenant: acme, open: true, trusted_keys: [{keyid: bundle, algorithm: ES256, key: "file:bundle.pub.pem"}]}
  - name: two
    threshold: 2
    trusted_keys:
      - {keyid: bundle, algorithm: ES256, key: "file:bundle.pub.pem"}
      - {keyid: anna, algorithm: ES256, key: "file:anna.pub.pem"}
tokens:
  - {name: ci, token: "file:ci.token", may: publish, bundles: ["*"]}
  - {name: gates, token: "file:gates.token", may: read, bundles: ["main"]}
"""


def write_directory(folder: Path, config: str = CONFIG) -> Path:
    """Keys, tokens and configuration of a service."""
    write_private(folder / "freshness.pem", private_pem(signing_key("freshness")))
    (folder / "bundle.pub.pem").write_bytes(public_pem(signing_key()))
    (folder / "anna.pub.pem").write_bytes(public_pem(signing_key("anna")))
    write_private(folder / "ci.token", CI.encode() + b"\n")
    write_private(folder / "gates.token", GATES.encode() + b"\n")
    (folder / "service.yaml").write_text(config)
    return folder


class Desk:
    """A service on a directory, its clock and what it said."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.now = float(NOW)
        self.said: list[tuple[str, Mapping[str, object]]] = []
        self.service = self.reopened()

    def reopened(self) -> BundleService:
        """A service that starts on what is there."""
        document = load_service_config((self.folder / "service.yaml").read_bytes())
        self.service = open_service(
            document, self.folder, say=lambda what, fields: self.said.append((what, fields)), clock=lambda: self.now
        )
        return self.service

    async def ask(
        self, method: str, path: str = "/bundles/main", body: bytes = b"", *, token: str = GATES, **headers: str
    ) -> ServiceAnswer:
        """One request; keyword arguments are headers with ``_`` for ``-``."""

        async def read_body() -> bytes:
            return body

        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if token:
            sent["authorization"] = f"Bearer {token}"
        return await self.service.handle(ServiceRequest(method, path, sent, read_body))

    async def put(self, body: bytes, path: str = "/bundles/main", **headers: str) -> ServiceAnswer:
        return await self.ask("PUT", path, body, token=CI, **headers)


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(write_directory(tmp_path))


def code(answer: ServiceAnswer) -> tuple[int, str]:
    return answer.status, json.loads(answer.body)["code"]


def header(answer: ServiceAnswer, name: str) -> str | None:
    return dict(answer.headers).get(name)


def identity(raw: bytes, sequence: int = 7) -> BundleIdentity:
    return BundleIdentity("main", f"sha256:{sha256_hex(raw)}", sequence)


async def test_bundle_is_served_with_a_statement_when_it_was_published(desk: Desk) -> None:
    raw = good_bundle()
    assert (await desk.put(raw)).status == 201
    answer = await desk.ask("GET")
    assert (answer.status, answer.body) == (200, raw)
    assert header(answer, "Content-Type") == "application/gzip"
    assert header(answer, "ETag") == f'"sha256:{sha256_hex(raw)}"'
    assert header(answer, "Cache-Control") == "no-store"
    statement = verify_statement(header(answer, "Tidegate-Freshness") or "", (KEY,), identity(raw), now=NOW)
    assert (statement.issued_at, statement.expires_at) == (NOW, NOW + 600)


async def test_statement_is_renewed_on_304_when_nothing_changed(desk: Desk) -> None:
    raw = good_bundle()
    await desk.put(raw)
    etag = header(await desk.ask("GET"), "ETag") or ""
    desk.now += 120
    answer = await desk.ask("GET", if_none_match=etag)
    assert (answer.status, answer.body) == (304, b"")
    token = header(answer, "Tidegate-Freshness") or ""
    assert verify_statement(token, (KEY,), identity(raw), now=desk.now).issued_at == NOW + 120
    assert header(answer, "ETag") == etag


async def test_long_poll_is_answered_with_the_news_when_something_is_published(desk: Desk) -> None:
    await desk.put(good_bundle())
    etag = header(await desk.ask("GET"), "ETag") or ""
    waiting = asyncio.create_task(desk.ask("GET", if_none_match=etag, prefer="modes=snapshot,delta;wait=30"))
    while not desk.service.waiting:
        await asyncio.sleep(0)
    newer = signed(good_files(), sequence=8)
    assert (await desk.put(newer)).status == 200
    answer = await waiting
    assert (answer.status, answer.body) == (200, newer)
    assert header(answer, "Content-Type") == "application/vnd.openpolicyagent.bundles"
    assert header(answer, "Preference-Applied") == "wait=30"


async def test_long_poll_is_answered_with_304_when_its_time_is_up(desk: Desk) -> None:
    await desk.put(good_bundle())
    etag = header(await desk.ask("GET"), "ETag") or ""
    answer = await desk.ask("GET", if_none_match=etag, prefer="wait=1")
    assert answer.status == 304 and header(answer, "Tidegate-Freshness")


async def test_long_poll_ends_when_the_service_closes(desk: Desk) -> None:
    await desk.put(good_bundle())
    etag = header(await desk.ask("GET"), "ETag") or ""
    waiting = asyncio.create_task(desk.ask("GET", if_none_match=etag, prefer="wait=300"))
    while not desk.service.waiting:
        await asyncio.sleep(0)
    desk.service.close()
    assert (await waiting).status == 304


async def test_long_poll_is_answered_at_once_when_the_client_has_another_bundle(desk: Desk) -> None:
    await desk.put(good_bundle())
    answer = await desk.ask("GET", if_none_match='"sha256:older"', prefer="modes=snapshot;wait=300")
    assert answer.status == 200


WAITS = {
    "as OPA writes it": ("modes=snapshot,delta;wait=10", 10),
    "as RFC 7240 writes it": ("respond-async, wait=10", 10),
    "in quotes": ('wait="10"', 10),
    "alone": ("wait=7", 7),
    "longer than allowed": ("wait=99999", 300),
    "not at all": ("modes=snapshot", None),
    "as part of another word": ("await=10", None),
    "without a number": ("wait=soon", None),
    "below zero": ("wait=-1", None),
    "as nothing": ("", None),
}


@pytest.mark.parametrize("spelling", WAITS)
def test_wait_seconds_is_read_when_written(spelling: str) -> None:
    prefer, seconds = WAITS[spelling]
    assert wait_seconds(prefer) == seconds


async def test_service_serves_what_it_had_when_it_starts_again(desk: Desk) -> None:
    await desk.put(good_bundle())
    await desk.put(signed(good_files(), sequence=9))
    served = await desk.ask("GET")
    await asyncio.to_thread(desk.reopened)
    assert (await desk.ask("GET")).body == served.body
    history = json.loads((await desk.ask("GET", "/history/main")).body)["items"]
    assert [entry["sequence"] for entry in history] == [9, 7]
    assert code(await desk.put(signed(good_files(), sequence=8))) == (409, "bundle_rollback")


def _reconfigured(desk: Desk, of_main: str) -> None:
    """The service starts anew with another configuration of ``main``."""
    first, rest = (desk.folder / "service.yaml").read_text().split("  - {name: main, trusted_keys", 1)
    (desk.folder / "service.yaml").write_text(f"{first}  - {of_main}\n{rest[rest.index(chr(10)) + 1 :]}")
    desk.said.clear()
    desk.reopened()


BUNDLE_KEY = '{keyid: bundle, algorithm: ES256, key: "file:bundle.pub.pem"}'
ANNAS_KEY = '{keyid: anna, algorithm: ES256, key: "file:anna.pub.pem"}'
NO_LONGER_TRUSTED = {
    "its key is trusted no more": (f"{{name: main, trusted_keys: [{ANNAS_KEY}]}}", "bundle_key_unknown"),
    "the epoch was raised": (f"{{name: main, epoch: 1, trusted_keys: [{BUNDLE_KEY}]}}", "bundle_epoch_mismatch"),
    "the audience is another": (
        f"{{name: main, audience: b, trusted_keys: [{BUNDLE_KEY}]}}",
        "bundle_audience_mismatch",
    ),
    "two have to sign": (
        f"{{name: main, threshold: 2, trusted_keys: [{BUNDLE_KEY}, {ANNAS_KEY}]}}",
        "bundle_threshold",
    ),
}


@pytest.mark.parametrize(("of_main", "refusal"), NO_LONGER_TRUSTED.values(), ids=NO_LONGER_TRUSTED.keys())
async def test_service_vouches_no_more_for_what_it_had_when(of_main: str, refusal: str, desk: Desk) -> None:
    raw = good_bundle()
    await desk.put(raw)
    etag = header(await desk.ask("GET"), "ETag") or ""
    await asyncio.to_thread(_reconfigured, desk, of_main)
    for answer in (await desk.ask("GET"), await desk.ask("HEAD"), await desk.ask("GET", if_none_match=etag)):
        assert code(answer) == (404, "not_found")
        assert header(answer, "Tidegate-Freshness") is None
    about = {"bundle": "main", "digest": f"sha256:{sha256_hex(raw)}", "sequence": 7}
    assert [(what, {**fields, "error": ""}) for what, fields in desk.said] == [
        ("not_served", {**about, "code": refusal, "error": ""})
    ]
    history = json.loads((await desk.ask("GET", "/history/main")).body)["items"]
    assert [entry["sequence"] for entry in history] == [7]


async def test_recovery_from_a_stolen_key_serves_the_new_bundle_when_it_is_published(desk: Desk) -> None:
    stolen = good_bundle()
    await desk.put(stolen)
    await asyncio.to_thread(_reconfigured, desk, f"{{name: main, epoch: 1, trusted_keys: [{ANNAS_KEY}]}}")
    assert code(await desk.put(stolen)) == (422, "bundle_key_unknown")
    renewed = replace(OPTIONS, keyid="anna", epoch=1, sequence=1)
    raw = sign_files(good_files(), signing_key("anna"), renewed)
    assert (await desk.put(raw, if_none_match="*")).status == 201
    answer = await desk.ask("GET")
    assert (answer.status, answer.body) == (200, raw)
    desk.said.clear()
    await asyncio.to_thread(desk.reopened)
    assert (await desk.ask("GET")).body == raw
    assert desk.said == []


async def test_sequences_only_rise_when_the_bundle_before_is_not_vouched_for(desk: Desk) -> None:
    await desk.put(good_bundle())
    await asyncio.to_thread(_reconfigured, desk, f"{{name: main, trusted_keys: [{ANNAS_KEY}]}}")
    for sequence, refusal in ((6, "bundle_rollback"), (7, "bundle_sequence_reused")):
        options = replace(OPTIONS, keyid="anna", sequence=sequence)
        answer = await desk.put(sign_files(good_files(), signing_key("anna"), options))
        assert code(answer) == (409, refusal)
    options = replace(OPTIONS, keyid="anna", sequence=8)
    assert (await desk.put(sign_files(good_files(), signing_key("anna"), options))).status == 201


async def test_history_and_disk_keep_the_newest_when_the_limit_is_reached(tmp_path: Path) -> None:
    desk = await asyncio.to_thread(lambda: Desk(write_directory(tmp_path, "history_max_count: 2\n" + CONFIG)))
    for sequence in (1, 2, 3):
        await desk.put(signed(good_files(), sequence=sequence))
    history = json.loads((await desk.ask("GET", "/history/main")).body)["items"]
    assert [entry["sequence"] for entry in history] == [3, 2]
    assert len(list((tmp_path / "store" / "published" / "_" / "main" / "archives").iterdir())) == 2


async def test_bundles_of_one_name_stay_apart_when_they_belong_to_two_tenants(desk: Desk) -> None:
    await desk.put(good_bundle())
    await desk.put(signed(good_files(), sequence=3), "/bundles/acme/main")
    acme = await desk.ask("GET", "/bundles/acme/main", token="")
    assert acme.status == 200 and acme.body != (await desk.ask("GET")).body
    assert [json.loads((await desk.ask("GET", f"/history/{name}", token=CI)).body)["items"][0]["sequence"]
            for name in ("main", "acme/main")] == [7, 3]  # fmt: skip


async def test_publishing_is_repeatable_when_the_same_archive_comes_again(desk: Desk) -> None:
    raw = good_bundle()
    await desk.put(raw)
    answer = await desk.put(raw)
    assert answer.status == 200 and json.loads(answer.body)["published"] is False


async def test_publishing_counts_cosignatures_when_the_bundle_needs_two(desk: Desk) -> None:
    raw = signed(good_files(), name="two")
    digest = f"sha256:{sha256_hex(raw)}"
    first = cosign("two", digest, key=signing_key(), keyid="bundle")
    both = cosign("two", digest, key=signing_key("anna"), keyid="anna", existing=first)
    for short in ({}, {"tidegate_cosignatures": encode_cosignatures(first)}):
        assert code(await desk.put(raw, "/bundles/two", **short)) == (422, "bundle_threshold")
    assert code(await desk.put(raw, "/bundles/two", tidegate_cosignatures="*")) == (422, "cosignatures_invalid")
    assert (await desk.put(raw, "/bundles/two", tidegate_cosignatures=encode_cosignatures(both))).status == 201
    served = await desk.ask("GET", "/bundles/two", token=CI)
    assert header(served, "Tidegate-Cosignatures") == encode_cosignatures(both)


REFUSED = {
    "is no archive": (b"<html>", (422, "bundle_archive_invalid")),
    "is empty": (b"", (422, "bundle_archive_invalid")),
    "is unsigned": (b"\x1f\x8b", (422, "bundle_archive_invalid")),
    "is another's": (sign_files(good_files(), signing_key("theirs"), OPTIONS), (422, "bundle_signature_invalid")),
    "has another name": (signed(good_files(), name="side"), (422, "bundle_name_mismatch")),
    "has another epoch": (signed(good_files(), epoch=1), (422, "bundle_epoch_mismatch")),
    "has expired": (signed(good_files(), expires_at=NOW), (422, "bundle_expired")),
    "has a lower sequence": (signed(good_files(), sequence=6), (409, "bundle_rollback")),
    "has the same sequence and another content": (
        signed({**good_files(), "chains/data.json": b"{}"}),
        (409, "bundle_sequence_reused"),
    ),
}


@pytest.mark.parametrize("fault", REFUSED)
async def test_publishing_is_refused_when_the_bundle(fault: str, desk: Desk) -> None:
    raw = good_bundle()
    await desk.put(raw)
    body, expected = REFUSED[fault]
    assert code(await desk.put(body)) == expected
    assert (await desk.ask("GET")).body == raw
    assert desk.said[-1][0] == "publish_refused"


NOT_ALLOWED: dict[str, tuple[dict[str, Any], tuple[int, str]]] = {
    "nobody asks for a closed bundle": ({"method": "GET", "token": ""}, (401, "token_missing")),
    "a stranger asks": ({"method": "GET", "token": STRANGER}, (401, "token_invalid")),
    "a stranger asks for an open bundle": (
        {"method": "GET", "path": "/bundles/acme/main", "token": STRANGER},
        (401, "token_invalid"),
    ),
    "a reader asks for another's bundle": ({"method": "GET", "path": "/bundles/two"}, (404, "not_found")),
    "a reader asks for another's history": ({"method": "GET", "path": "/history/two"}, (404, "not_found")),
    "a reader asks for what does not exist": ({"method": "GET", "path": "/bundles/none"}, (404, "not_found")),
    "nothing was published": ({"method": "GET"}, (404, "not_found")),
    "the path leads elsewhere": ({"method": "GET", "path": "/v1/data"}, (404, "not_found")),
    "the path climbs": ({"method": "GET", "path": "/bundles/../service.yaml"}, (404, "not_found")),
    "nobody publishes": ({"method": "PUT", "token": ""}, (401, "token_missing")),
    "a stranger publishes": ({"method": "PUT", "token": STRANGER}, (401, "token_invalid")),
    "a reader publishes": ({"method": "PUT"}, (403, "publish_forbidden")),
    "a reader publishes elsewhere": ({"method": "PUT", "path": "/bundles/two"}, (404, "not_found")),
    "nobody publishes to an open bundle": (
        {"method": "PUT", "path": "/bundles/acme/main", "token": ""},
        (401, "token_missing"),
    ),
    "a bundle is to be deleted": ({"method": "DELETE", "token": CI}, (405, "method_not_allowed")),
    "history is to be deleted": ({"method": "DELETE", "path": "/history/main", "token": CI}, (405, "method_not_allowed")),
    "another bundle was expected": ({"method": "PUT", "token": CI, "if_match": '"sha256:x"'}, (412, "precondition_failed")),
    "any bundle was expected": ({"method": "PUT", "token": CI, "if_match": "*"}, (412, "precondition_failed")),
}  # fmt: skip


@pytest.mark.parametrize("case", NOT_ALLOWED)
async def test_request_is_refused_when(case: str, desk: Desk) -> None:
    asked, expected = NOT_ALLOWED[case]
    assert code(await desk.ask(**{"body": good_bundle(), **asked})) == expected


async def test_request_body_is_not_read_when_the_publisher_is_unknown(desk: Desk) -> None:
    async def read_body() -> bytes:
        raise BundleMisuse("read", "a stranger's body was read")

    for token in ("", STRANGER, GATES):
        sent = {"authorization": f"Bearer {token}"} if token else {}
        answer = await desk.service.handle(ServiceRequest("PUT", "/bundles/main", sent, read_body))
        assert answer.status in (401, 403)


async def test_publishing_is_refused_when_another_was_faster(desk: Desk) -> None:
    await desk.put(good_bundle())
    etag = header(await desk.ask("GET"), "ETag") or ""
    assert (await desk.put(signed(good_files(), sequence=8), if_match=etag)).status == 200
    assert code(await desk.put(signed(good_files(), sequence=9), if_match=etag)) == (412, "precondition_failed")
    assert code(await desk.put(signed(good_files(), sequence=9), if_none_match="*")) == (412, "precondition_failed")


def test_service_does_not_start_when_the_archive_on_disk_was_changed(tmp_path: Path) -> None:
    desk = Desk(write_directory(tmp_path))
    asyncio.run(desk.put(good_bundle()))
    (archive,) = (tmp_path / "store" / "published" / "_" / "main" / "archives").iterdir()
    archive.write_bytes(archive.read_bytes()[:-1])
    with pytest.raises(BundleUnavailable) as refused:
        desk.reopened()
    assert refused.value.code == "storage_damaged"


@pytest.mark.parametrize("content", [b"{", b"[]", b'{"v":1}', b'{"v":1,"highest":{"0":"x"},"history":[]}',
                                     b'{"v":1,"highest":{},"history":[{}]}'])  # fmt: skip
def test_service_does_not_start_when_the_index_is_damaged(content: bytes, tmp_path: Path) -> None:
    desk = Desk(write_directory(tmp_path))
    folder = tmp_path / "store" / "published" / "_" / "main"
    folder.mkdir(parents=True)
    (folder / "index.json").write_bytes(content)
    with pytest.raises(BundleUnavailable):
        desk.reopened()


async def test_publishing_fails_and_the_old_stays_when_the_disk_refuses(desk: Desk) -> None:
    raw = good_bundle()
    await desk.put(raw)
    index = desk.folder / "store" / "published" / "_" / "main" / "index.json"
    index.unlink()
    index.mkdir()
    assert code(await desk.put(signed(good_files(), sequence=8))) == (503, "storage_failed")
    assert (await desk.ask("GET")).body == raw


def test_service_does_not_start_when_the_online_key_also_signs_bundles(tmp_path: Path) -> None:
    write_directory(tmp_path)
    (tmp_path / "bundle.pub.pem").write_bytes(public_pem(signing_key("freshness")))
    with pytest.raises(BundleMisuse) as refused:
        Desk(tmp_path)
    assert refused.value.code == "freshness_key_shared"


WEAK_TOKENS = {
    "token_weak": (b"short", 0o600),
    "key_exposed": (CI.encode(), 0o644),
    "token_shared": (GATES.encode(), 0o600),
}


@pytest.mark.parametrize("fault", WEAK_TOKENS)
def test_service_does_not_start_when_a_token_is(fault: str, tmp_path: Path) -> None:
    write_directory(tmp_path)
    content, mode = WEAK_TOKENS[fault]
    (tmp_path / "ci.token").write_bytes(content)
    (tmp_path / "ci.token").chmod(mode)
    with pytest.raises(BundleMisuse) as refused:
        Desk(tmp_path)
    assert refused.value.code == fault


def test_directory_is_refused_when_another_service_holds_it(tmp_path: Path) -> None:
    with only_process(tmp_path), pytest.raises(BundleUnavailable) as refused, only_process(tmp_path):
        pytest.fail("two services on one directory")
    assert refused.value.code == "storage_busy"


BAD_CONFIGS = {
    "is no YAML": "a: [",
    "is a list": "- a",
    "has an unknown key": CONFIG + "secret: x\n",
    "has an inline key": CONFIG.replace("file:freshness.pem", "-----BEGIN"),
    "has a token for a bundle that does not exist": CONFIG.replace('bundles: ["main"]', 'bundles: ["mian"]'),
    "has one address twice": CONFIG.replace("tenant: acme, ", ""),
    "lets statements hold a minute": CONFIG.replace("freshness.pem", 'freshness.pem", ttl_seconds: 60, keyid: "f'),
    "lets statements hold an hour": CONFIG.replace("freshness.pem", 'freshness.pem", ttl_seconds: 3600, keyid: "f'),
    "listens to everybody without TLS": CONFIG + 'listen: "0.0.0.0:8090"\n',
    "listens to a name without TLS": CONFIG + 'listen: "bundles.internal:8090"\n',
    "listens on no port": CONFIG + 'listen: "127.0.0.1"\n',
    "names a bundle with a slash": CONFIG.replace("name: two", 'name: "a/b"'),
    "has a host with a path": CONFIG + 'hosts: ["bundles.example/x"]\n',
    "has a host in capitals": CONFIG + 'hosts: ["Bundles.example"]\n',
    "trusts HS256": CONFIG.replace("ES256", "HS256"),
}


@pytest.mark.parametrize("fault", BAD_CONFIGS)
def test_service_config_is_refused_when_it(fault: str) -> None:
    with pytest.raises(BundleMisuse) as refused:
        load_service_config(BAD_CONFIGS[fault].encode())
    assert refused.value.code == "service_config_invalid"


def test_service_config_is_accepted_when_a_proxy_ends_tls() -> None:
    document = load_service_config((CONFIG + 'listen: "0.0.0.0:8090"\ntls_terminated: true\n').encode())
    assert document.endpoint == ("0.0.0.0", 8090)


def test_service_config_takes_short_statements_when_it_says_development() -> None:
    text = CONFIG.replace("freshness.pem", 'freshness.pem", ttl_seconds: 2, keyid: "f') + "development: true\n"
    assert load_service_config(text.encode()).freshness.ttl_seconds == 2
