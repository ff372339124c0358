"""Objects in a bucket of a real S3 server, and what the client makes of answers that S3 would not give."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bundles.archive import ArchiveLimits
from bundles.canonical import sha256_hex
from bundles.errors import BundleError, BundleRefused, BundleUnavailable
from bundles.s3_client import S3Keys, S3Objects
from bundles.s3_shelf import Found, Missing, ObjectShelf, ObjectShelves, ShelfSettings
from bundles.service_config import ObjectStorage
from bundles.service_shelf import Publication
from tests.bundles.bucket import SERVED
from tests.bundles.hostile_s3 import PAGE, Behaviour, Spoken, answering, error, hostile, sending, silent
from tests.bundles.s3_server import ACCESS_KEY, REGION, SECRET_KEY, S3Server, s3_server

KEYS = S3Keys(ACCESS_KEY, SECRET_KEY)


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    with s3_server() as running:
        yield running


@pytest.fixture
def bucket(server: S3Server, request: pytest.FixtureRequest) -> str:
    """An empty bucket of this test's own."""
    return server.new_bucket(f"b-{sha256_hex(request.node.name.encode())[:16]}")


def objects(endpoint: str, bucket: str = "bundles", **settings: Any) -> S3Objects:
    storage = ObjectStorage(
        kind="s3", bucket=bucket, region=REGION, endpoint=endpoint, access_key="env:A", secret_key="env:B", **settings
    )
    return S3Objects(storage, KEYS)


def code_of(work: Callable[[], object]) -> str:
    with pytest.raises(BundleError) as failed:
        work()
    return failed.value.code


def shelf(endpoint: str, bucket: str) -> ObjectShelf:
    settings = ShelfSettings("p/", 2, 100.0, lambda: 0.0, lambda what, fields: None)
    return ObjectShelves(objects(endpoint, bucket), settings).shelf(SERVED)


# -- S3 itself ------------------------------------------------------------------------------------------------------


def test_object_comes_back_when_it_was_put(server: S3Server, bucket: str) -> None:
    there = objects(server.endpoint, bucket)
    there.put("a b/ü+%.gz", b"\0\xff" * 100_000)
    found = there.get("a b/ü+%.gz", max_bytes=200_000)
    assert isinstance(found, Found) and found.body == b"\0\xff" * 100_000
    assert there.get("a b/ü+%.gz", max_bytes=200_000, unless_etag=found.etag) is Missing.UNCHANGED
    assert server.objects(bucket) == {"a b/ü+%.gz": found.body}
    for _ in range(2):
        there.delete("a b/ü+%.gz")
    assert there.get("a b/ü+%.gz", max_bytes=1) is Missing.ABSENT


def test_object_is_taken_up_to_its_limit_and_refused_one_byte_later(server: S3Server, bucket: str) -> None:
    there = objects(server.endpoint, bucket)
    there.put("k", b"12345")
    assert isinstance(there.get("k", max_bytes=5), Found)
    assert code_of(lambda: there.get("k", max_bytes=4)) == "storage_damaged"


def test_writer_is_held_back_when_the_object_is_not_the_expected_one(server: S3Server, bucket: str) -> None:
    there = objects(server.endpoint, bucket)
    first = there.swap("k", b"1", expected=None)
    assert code_of(lambda: there.swap("k", b"2", expected=None)) == "precondition_failed"
    second = there.swap("k", b"2", expected=first)
    assert code_of(lambda: there.swap("k", b"3", expected=first)) == "precondition_failed"
    assert code_of(lambda: there.swap("gone", b"3", expected=second)) == "storage_damaged"
    assert server.objects(bucket) == {"k": b"2"}


def test_bucket_is_named_when_there_is_none(server: S3Server) -> None:
    there = objects(server.endpoint, "no-such-bucket")
    for work in (lambda: there.get("k", max_bytes=1), lambda: there.put("k", b"")):
        assert code_of(work) == "storage_bucket"


def test_environment_changes_nothing_when_it_speaks_of_s3(
    server: S3Server, bucket: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "config").write_text("[default]\nendpoint_url = http://127.0.0.1:9\nca_bundle = /none\n")
    for name, value in {
        "AWS_PROFILE": "absent",
        "AWS_CONFIG_FILE": str(tmp_path / "config"),
        "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
        "AWS_ENDPOINT_URL_S3": "http://127.0.0.1:9",
        "AWS_CA_BUNDLE": "/none",
        "AWS_REGION": "elsewhere-1",
        "AWS_ACCESS_KEY_ID": "other",
        "AWS_SECRET_ACCESS_KEY": "other",
        "AWS_DEFAULTS_MODE": "standard",
        "HTTP_PROXY": "http://127.0.0.1:9",
        "HTTPS_PROXY": "http://127.0.0.1:9",
    }.items():
        monkeypatch.setenv(name, value)
    objects(server.endpoint, bucket).put("k", b"1")
    assert server.objects(bucket) == {"k": b"1"}


def test_one_of_two_racing_services_wins_each_round_when_they_share_a_bucket(server: S3Server, bucket: str) -> None:
    shelves = [shelf(server.endpoint, bucket) for _ in range(2)]
    won: list[int] = []
    for round_ in range(1, 6):
        for each in shelves:
            each.refresh(lambda shelved: None)
        barrier, codes = threading.Barrier(2), []

        def publish(
            place: ObjectShelf, number: int, barrier: threading.Barrier = barrier, codes: list[str] = codes
        ) -> None:
            body = b"archive %d" % number
            entry = Publication(f"sha256:{sha256_hex(body)}", number, 0, "r", 1, "ci", len(body))
            barrier.wait(10)
            try:
                place.put(entry, body, None)
            except BundleRefused as refused:
                codes.append(refused.code)
            else:
                won.append(number)

        threads = [
            threading.Thread(target=publish, args=(place, 10 * round_ + number), name="racing")
            for number, place in enumerate(shelves)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert codes == ["precondition_failed"]
    fresh = shelf(server.endpoint, bucket)
    newest = fresh.open()
    assert newest is not None and newest.publication.sequence == won[-1]
    assert [entry.sequence for entry in fresh.history] == won[:-3:-1]


def test_requests_name_the_bucket_as_a_host_or_as_a_path_when_told() -> None:
    lines: list[str] = []
    reply = answering("404 Not Found", b"<Error><Code>NoSuchKey</Code></Error>", "Content-Type: application/xml")

    def behave(connection: socket.socket, stop: threading.Event) -> None:
        head = connection.recv(65_536)
        lines.append(head.decode("latin-1"))
        reply(Spoken(connection), stop)  # type: ignore[arg-type]

    with hostile(behave) as there:
        for addressing in ("path", "auto"):
            found = objects(f"http://localhost:{there.port}", addressing=addressing).get("k", max_bytes=1)
            assert found is Missing.ABSENT
        with pytest.raises(BundleUnavailable) as failed:
            objects("https://nowhere.invalid", addressing="virtual").get("k", max_bytes=1)
    assert [line.partition(" HTTP")[0] for line in lines] == ["GET /bundles/k", "GET /bundles/k"]
    assert failed.value.detail.startswith("bundles.nowhere.invalid:443")
    assert "AWS4-HMAC-SHA256 Credential=loopback-access/" in lines[0] and SECRET_KEY not in "".join(lines)


# -- something else -------------------------------------------------------------------------------------------------

ETAG, HTML = 'ETag: "x"', "Content-Type: text/html; charset=utf-8"
HOSTILE: dict[str, tuple[Behaviour, str, str]] = {
    "a page": (answering("200 OK", PAGE, HTML), "storage_answer", "storage_answer"),
    "a page with an ETag": (answering("200 OK", PAGE, HTML, ETAG), "storage_answer", "storage_answer"),
    "a page that was not found": (answering("404 Not Found", PAGE, HTML), "storage_answer", "storage_answer"),
    "a page instead of an error": (answering("400 Bad Request", PAGE, HTML), "storage_answer", "storage_answer"),
    "a page that denies": (answering("403 Forbidden", PAGE, HTML), "storage_forbidden", "storage_forbidden"),
    "no ETag": (answering("200 OK", b"body"), "storage_answer", "storage_failed"),
    "a date that is none": (
        answering("200 OK", b"", ETAG, "Last-Modified: soon", "x-amz-object-size: soon"),
        "storage_answer",
        "storage_answer",
    ),
    "a number that is none": (
        answering("200 OK", b"", ETAG, "x-amz-missing-meta: many", "x-amz-object-size: many"),
        "storage_answer",
        "storage_answer",
    ),
    "an error with control characters": (
        answering("400 Bad Request", b"<Error><Code>\x01</Code></Error>", "Content-Type: application/xml"),
        "storage_answer",
        "storage_answer",
    ),
    "broken XML": (
        answering("403 Forbidden", b"<Error><Code>", "Content-Type: application/xml"),
        "storage_forbidden",
        "storage_forbidden",
    ),
    "another place": (answering("302 Found", b"", "Location: http://127.0.0.1:1/"), "storage_bucket", "storage_bucket"),
    "the same place again": (error("301 Moved Permanently", "PermanentRedirect"), "storage_bucket", "storage_bucket"),
    "another region": (
        answering(
            "301 Moved Permanently", b"<Error><Code>PermanentRedirect</Code></Error>", "x-amz-bucket-region: q-1"
        ),
        "storage_bucket",
        "storage_bucket",
    ),
    "denied": (error("403 Forbidden", "AccessDenied"), "storage_forbidden", "storage_forbidden"),
    "a wrong clock": (error("403 Forbidden", "RequestTimeTooSkewed"), "storage_forbidden", "storage_forbidden"),
    "overload": (error("503 Slow Down", "SlowDown"), "storage_failed", "storage_failed"),
    "no conditions": (error("501 Not Implemented", "NotImplemented"), "storage_unsupported", "storage_unsupported"),
    "a cut body": (
        sending(b'HTTP/1.1 200 OK\r\nContent-Length: 10\r\nETag: "x"\r\n\r\n12'),
        "storage_answer",
        "storage_answer",
    ),
    "too much": (
        answering("200 OK", b"", ETAG, f"X-Amz-Meta: {'x' * 70_000}"),
        "storage_answer",
        "storage_answer",
    ),
    "nothing at all": (sending(b""), "storage_unreachable", "storage_unreachable"),
    "silence": (silent, "storage_timeout", "storage_timeout"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_client_fails_with_its_code_when_there_comes(case: str) -> None:
    behaviour, reading, writing = HOSTILE[case]
    with hostile(behaviour) as there:
        late = "storage_timeout" in (reading, writing)  # only those that wait are to wait for little
        bucket = objects(f"http://127.0.0.1:{there.port}", timeout_seconds=1 if late else 20)
        assert code_of(lambda: bucket.get("k", max_bytes=100)) == reading
        assert code_of(lambda: bucket.swap("k", b"body", expected=None)) == writing


DELETING: dict[str, tuple[Behaviour, str]] = {
    "denied": (error("403 Forbidden", "AccessDenied"), "storage_forbidden"),
    "silence": (silent, "storage_timeout"),
}


@pytest.mark.parametrize("case", DELETING)
def test_delete_fails_with_its_code_when_there_comes(case: str) -> None:
    behaviour, code = DELETING[case]
    with hostile(behaviour) as there:
        bucket = objects(f"http://127.0.0.1:{there.port}", timeout_seconds=1)
        assert code_of(lambda: bucket.delete("k")) == code


def test_object_larger_than_any_archive_is_refused_unread() -> None:
    length = ArchiveLimits().archive_max_bytes + 1
    raw = b'HTTP/1.1 200 OK\r\nETag: "x"\r\nContent-Length: %d\r\n\r\n' % length
    with hostile(sending(raw)) as there:
        assert code_of(lambda: objects(f"http://127.0.0.1:{there.port}").get("k", max_bytes=100)) == "storage_answer"


def test_secrets_stay_out_of_what_is_shown() -> None:
    assert SECRET_KEY not in repr(S3Keys(ACCESS_KEY, SECRET_KEY, SECRET_KEY))
    with hostile(error("403 Forbidden", "SignatureDoesNotMatch")) as there:
        with pytest.raises(BundleUnavailable) as failed:
            objects(f"http://127.0.0.1:{there.port}").get("k", max_bytes=1)
    assert SECRET_KEY not in str(failed.value) and "storage.secret_key" not in SECRET_KEY
