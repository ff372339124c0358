"""Two services on one bucket: neither loses or reorders a publication, and neither vouches for what it cannot confirm."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from bundles.build import sign_files
from bundles.canonical import sha256_hex
from bundles.errors import BundleError, BundleMisuse, BundleUnavailable
from bundles.service import BundleService, open_service
from bundles.service_config import load_service_config
from bundles.service_following import StorageFollower
from bundles.service_protocol import ServiceAnswer, ServiceRequest
from bundles.service_shelf import Publication
from bundles.service_storage import open_shelves
from bundles.service_store import DirectoryShelves
from tests.bundles.bucket import DOWN, FORBIDDEN, INDEX, LOST, SERVED, Bucket
from tests.bundles.parts import NOW, OPTIONS, good_bundle, good_files, signed, signing_key
from tests.bundles.s3_server import ACCESS_KEY, REGION, SECRET_KEY, s3_server
from tests.bundles.test_service import CI, CONFIG, GATES, code, header, write_directory

ON_A_BUCKET = CONFIG.replace("directory: store\n", "")


class Service:
    """One of the services, and what it said."""

    def __init__(self, folder: Path, bucket: Bucket) -> None:
        self.said: list[tuple[str, Mapping[str, object]]] = []
        document = load_service_config((folder / "service.yaml").read_bytes())
        self.service: BundleService = open_service(
            document, folder, say=self.say, clock=lambda: float(NOW), shelves=bucket.shelves()
        )
        self.follower = StorageFollower(self.service, refresh_seconds=0.01, say=self.say)

    def say(self, what: str, fields: Mapping[str, object]) -> None:
        self.said.append((what, fields))

    async def get(self, **headers: str) -> ServiceAnswer:
        return await self._ask("GET", b"", GATES, headers)

    async def put(self, archive: bytes, **headers: str) -> ServiceAnswer:
        return await self._ask("PUT", archive, CI, headers)

    async def history(self) -> list[int]:
        request = ServiceRequest("GET", "/history/main", {"authorization": f"Bearer {GATES}"}, _nothing)
        answer = await self.service.handle(request)
        return [entry["sequence"] for entry in json.loads(answer.body)["items"]]

    async def _ask(self, method: str, body: bytes, token: str, headers: dict[str, str]) -> ServiceAnswer:
        async def read() -> bytes:
            return body

        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        sent["authorization"] = f"Bearer {token}"
        return await self.service.handle(ServiceRequest(method, "/bundles/main", sent, read))


async def _nothing() -> bytes:
    return b""


@pytest.fixture
def bucket() -> Bucket:
    return Bucket()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_directory(tmp_path, ON_A_BUCKET)


@pytest.fixture
def two(folder: Path, bucket: Bucket) -> tuple[Service, Service]:
    return Service(folder, bucket), Service(folder, bucket)


async def test_publication_is_served_by_both_when_the_other_looked(two: tuple[Service, Service]) -> None:
    first, second = two
    raw = good_bundle()
    assert (await first.put(raw)).status == 201
    assert (await second.get()).status == 404
    await second.follower.look()
    answer = await second.get()
    assert (answer.body, header(answer, "Tidegate-Freshness") is not None) == (raw, True)
    assert [what for what, _ in second.said] == ["adopted"]


async def test_long_poll_of_the_other_service_is_answered_when_it_looked(two: tuple[Service, Service]) -> None:
    first, second = two
    await first.put(good_bundle())
    await second.follower.look()
    etag = header(await second.get(), "ETag") or ""
    waiting = asyncio.create_task(second.get(if_none_match=etag, prefer="wait=30"))
    while not second.service.waiting:
        await asyncio.sleep(0)
    newer = signed(good_files(), sequence=8)
    await first.put(newer)
    following = asyncio.create_task(second.follower.run())
    answer = await asyncio.wait_for(waiting, 10)
    following.cancel()
    assert (answer.status, answer.body) == (200, newer)


async def test_stale_publisher_gets_412_when_another_service_was_faster(
    two: tuple[Service, Service], bucket: Bucket, folder: Path
) -> None:
    first, second = two
    await first.put(good_bundle())
    etag = header(await first.get(), "ETag") or ""
    assert (await second.put(signed(good_files(), sequence=8), if_match=etag)).status == 200
    assert code(await first.put(signed(good_files(), sequence=9), if_match=etag)) == (412, "precondition_failed")
    assert code(await first.put(good_bundle(), if_none_match="*")) == (412, "precondition_failed")
    assert await first.history() == await second.history() == [8, 7]


async def test_stale_publisher_gets_412_when_the_other_comes_between_look_and_write(
    two: tuple[Service, Service], bucket: Bucket, folder: Path
) -> None:
    first, second = two
    await first.put(good_bundle())

    def overtake() -> None:
        raw = b"other"
        shelf = bucket.shelf()
        shelf.open()
        shelf.put(Publication(f"sha256:{sha256_hex(raw)}", 8, 0, "r1", NOW, "ci", len(raw)), raw, None)

    bucket.meanwhile = overtake
    assert code(await second.put(signed(good_files(), sequence=9))) == (412, "precondition_failed")
    assert second.said[-1][0] == "publish_refused"
    reopened = bucket.shelf()
    await asyncio.to_thread(reopened.open)
    assert [entry.sequence for entry in reopened.history] == [8, 7]


async def test_lower_sequence_is_refused_when_only_the_other_service_knew_the_higher(
    two: tuple[Service, Service],
) -> None:
    first, second = two
    await first.put(signed(good_files(), sequence=9))
    assert code(await second.put(signed(good_files(), sequence=8))) == (409, "bundle_rollback")
    other = sign_files(good_files(), signing_key(), OPTIONS)
    assert code(await second.put(other)) == (409, "bundle_rollback")


async def test_service_serves_what_it_has_with_freshness_when_the_storage_is_down(
    two: tuple[Service, Service], bucket: Bucket
) -> None:
    first, _ = two
    await first.put(good_bundle())
    bucket.before[("get", "")] = DOWN
    for _ in range(3):
        await first.follower.look()
    answer = await first.get()
    assert answer.status == 200 and header(answer, "Tidegate-Freshness")
    assert [what for what, fields in first.said if fields.get("bundle") == "main"] == ["published", "storage_failing"]
    assert code(await first.put(signed(good_files(), sequence=8))) == (503, "storage_failed")
    bucket.before.clear()
    await first.follower.look()
    assert ("storage_back", {"bundle": "main"}) in first.said
    assert (await first.put(signed(good_files(), sequence=8))).status == 200


async def test_service_stops_vouching_when_nobody_could_look_for_too_long(
    two: tuple[Service, Service], bucket: Bucket
) -> None:
    first, _ = two
    await first.put(good_bundle())
    bucket.before[("get", "")] = FORBIDDEN
    bucket.now = 100.5
    await first.follower.look()
    answer = await first.get()
    assert code(answer) == (503, "storage_unconfirmed")
    assert "storage_forbidden" in json.loads(answer.body)["detail"]
    assert header(answer, "Tidegate-Freshness") is None
    bucket.before.clear()
    await first.follower.look()
    assert (await first.get()).status == 200


async def test_fault_is_said_again_when_it_becomes_another(two: tuple[Service, Service], bucket: Bucket) -> None:
    first, _ = two
    for fault in (DOWN, DOWN, FORBIDDEN):
        bucket.before[("get", INDEX)] = fault
        await first.follower.look()
    assert [fields["code"] for what, fields in first.said] == ["storage_unreachable", "storage_forbidden"]


async def test_publisher_hears_that_nobody_knows_when_the_answer_is_lost(
    two: tuple[Service, Service], bucket: Bucket
) -> None:
    first, second = two
    bucket.before[("swap", "index.json")] = LOST
    answer = await first.put(good_bundle())
    assert code(answer) == (503, "storage_failed") and "nobody knows" in json.loads(answer.body)["detail"]


async def test_publication_that_fails_here_is_not_served_when_another_wrote_it(
    two: tuple[Service, Service], bucket: Bucket
) -> None:
    first, _ = two
    ours = good_bundle()
    await first.put(ours)
    raw = sign_files(good_files(), signing_key("theirs"), OPTIONS)
    shelf = bucket.shelf()
    await asyncio.to_thread(shelf.open)
    entry = Publication(f"sha256:{sha256_hex(raw)}", 8, 0, "r1", NOW, "ci", len(raw))
    await asyncio.to_thread(shelf.put, entry, raw, None)
    await first.follower.look()
    assert (await first.get()).body == ours
    assert [fields["code"] for what, fields in first.said if what == "storage_failing"] == ["storage_refused"]
    assert code(await first.put(signed(good_files(), sequence=9))) == (503, "storage_failed")


async def test_follower_ends_with_the_error_when_it_is_one_of_ours_to_mend() -> None:
    class Broken:
        bundle_ids = ("main",)

        async def refresh(self, bundle_id: str) -> bool:
            raise KeyError(bundle_id)

    follower = StorageFollower(Broken(), refresh_seconds=0.0, say=lambda what, fields: None)
    with pytest.raises(KeyError):
        await follower.run()


# -- which storage --------------------------------------------------------------------------------------------------

STORAGE = f"""
storage:
  kind: s3
  bucket: bundles
  region: {REGION}
  endpoint: http://127.0.0.1:PORT
  access_key: "env:A"
  secret_key: "env:B"
  session_token: "env:C"
  timeout_seconds: 2
"""


def secret(reference: str) -> str:
    return {"env:A": ACCESS_KEY, "env:B": SECRET_KEY, "env:C": "session"}[reference]


def test_storage_is_the_directory_when_no_bucket_is_configured(tmp_path: Path) -> None:
    shelves = open_shelves(load_service_config(CONFIG.encode()), tmp_path, read_secret=secret, say=lambda *_: None)
    assert isinstance(shelves, DirectoryShelves)
    shelf = shelves.shelf(SERVED)
    assert (shelf.open(), shelf.doubt, shelf.refresh(lambda shelved: None)) == (None, None, None)


def test_storage_is_the_bucket_when_it_is_configured(tmp_path: Path) -> None:
    with s3_server() as server:
        server.new_bucket("bundles")
        document = load_service_config((ON_A_BUCKET + STORAGE.replace("PORT", str(server.port))).encode())
        shelf = open_shelves(document, tmp_path, read_secret=secret, say=lambda *_: None).shelf(SERVED)
        assert shelf.open() is None
        assert list(server.objects("bundles")) == ["conditions.probe"]


def test_storage_is_not_opened_when_the_bucket_cannot_be_reached(tmp_path: Path) -> None:
    document = load_service_config((ON_A_BUCKET + STORAGE.replace("PORT", "1")).encode())
    with pytest.raises(BundleUnavailable) as failed:
        open_shelves(document, tmp_path, read_secret=secret, say=lambda *_: None)
    assert failed.value.code == "storage_unreachable"


def test_storage_is_not_opened_when_a_secret_is_missing(tmp_path: Path) -> None:
    def none(reference: str) -> str:
        raise BundleMisuse("secret_missing", reference)

    document = load_service_config((ON_A_BUCKET + STORAGE.replace("PORT", "1")).encode())
    with pytest.raises(BundleError, match="secret_missing"):
        open_shelves(document, tmp_path, read_secret=none, say=lambda *_: None)


WITHOUT = "import sys; sys.modules['botocore'] = None; from cli.main import main; sys.argv[0] = 'tidegate'; main()"


def test_service_says_what_to_install_when_the_extra_is_missing(folder: Path) -> None:
    (folder / "service.yaml").write_text(ON_A_BUCKET + STORAGE.replace("PORT", "1"))
    command = [sys.executable, "-c", WITHOUT, "bundle", "serve", "--config", str(folder / "service.yaml"), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    error = json.loads(done.stdout.splitlines()[-1])["error"]
    assert (done.returncode, error["code"]) == (2, "extra_missing"), done.stdout + done.stderr
    assert "tidegate[s3]" in json.dumps(error)


def test_botocore_is_not_imported_when_no_bucket_is_configured() -> None:
    script = "import sys, cli.main, cli.bundle_service, bundles.service_storage; sys.exit('botocore' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], timeout=60, check=False).returncode == 0
