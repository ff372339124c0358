"""The bundle service on a bucket, as processes: restarts, two services on one bucket, and a storage that fails."""

from __future__ import annotations

import json
import shutil
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from bundles.build import SigningOptions, sign_files
from bundles.keys import generate_signing_key, load_private_key, write_private
from tests.bundles.parts import good_files
from tests.bundles.s3_server import ACCESS_KEY, BUCKET, REGION, SECRET_KEY, S3Server, s3_server
from tests.e2e.bundle_services import LEASE_SECONDS, ServiceProcess, eventually, follow
from tests.e2e.calling import LIST, call
from tests.e2e.harness import GateProcess, StandIns, free_port, init_directory, point_at_stand_ins, tidegate

INDEX = "prod/published/_/main/index.json"


@pytest.fixture
def s3() -> Iterator[S3Server]:
    with s3_server() as running:
        running.new_bucket(BUCKET)
        yield running


@pytest.fixture
def key(tmp_path: Path) -> Path:
    generate_signing_key(tmp_path / "bundle.pem")
    return tmp_path / "bundle.pem"


def archive(key: Path, sequence: int) -> Path:
    """A small bundle."""
    path = key.parent / f"{sequence}.tar.gz"
    path.write_bytes(sign_files(good_files(), load_private_key(key), SigningOptions(sequence=sequence, issued_at=1)))
    return path


def on_bucket(service: ServiceProcess, s3: S3Server, **changes: object) -> ServiceProcess:
    """The same service with its publications in the bucket."""
    write_private(service.directory / "s3.access", ACCESS_KEY.encode() + b"\n")
    write_private(service.directory / "s3.secret", SECRET_KEY.encode() + b"\n")
    path = service.directory / "service.yaml"
    storage = {
        "kind": "s3",
        "bucket": BUCKET,
        "prefix": "prod/",
        "region": REGION,
        "endpoint": s3.endpoint,
        "access_key": "file:s3.access",
        "secret_key": "file:s3.secret",
        "timeout_seconds": 2,
        "refresh_seconds": 1,
        **changes,
    }
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), "storage": storage}))
    return service


def twin(service: ServiceProcess) -> ServiceProcess:
    """A second service with the same keys, tokens and bucket, on another port."""
    directory = service.directory.parent / "twin"
    shutil.copytree(service.directory, directory)
    port = free_port()
    path = directory / "service.yaml"
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), "listen": f"127.0.0.1:{port}"}))
    return ServiceProcess(directory, port)


@pytest.fixture
def service(tmp_path: Path, key: Path, s3: S3Server) -> ServiceProcess:
    return on_bucket(ServiceProcess.prepare(tmp_path / "service", key), s3)


def sequence(service: ServiceProcess) -> int | None:
    """Which sequence it serves with a statement."""
    done = tidegate("bundle", "inspect", "--remote", service.url, "--json")
    return int(json.loads(done.stdout)["freshness"]["seq"]) if done.returncode == 0 else None


def refusal(service: ServiceProcess) -> tuple[int, str] | None:
    """Status and code of its refusal to serve; `None` when it serves."""
    try:
        with urllib.request.urlopen(service.url, timeout=5):
            return None
    except urllib.error.HTTPError as refused:
        with refused:
            return refused.code, json.loads(refused.read())["code"]


def history(s3: S3Server) -> list[int]:
    """The index as it lies in the bucket."""
    return [entry["sequence"] for entry in json.loads(s3.objects(BUCKET)[INDEX])["history"]]


def said(service: ServiceProcess) -> str:
    return (service.directory / "service.log").read_text()


def test_gate_follows_what_was_published_when_the_service_started_again(
    tmp_path: Path, s3: S3Server, stand_ins: StandIns
) -> None:
    directory = init_directory(tmp_path / "gate")
    point_at_stand_ins(directory, stand_ins)
    bundle_key = directory / "keys" / "bundle.pem"
    made = ServiceProcess.prepare(tmp_path / "service", bundle_key, ttl_seconds=LEASE_SECONDS)
    with on_bucket(made, s3).running():
        assert made.publish(directory / "bundle.tar.gz").returncode == 0
        made.stop()
        assert not (made.directory / "bundles").exists()
        made.start()
        follow(directory, made)
        with GateProcess.start(directory) as gate:
            assert eventually(lambda: call(gate, "GET", LIST).status == 200, 20)
    assert len(s3.objects(BUCKET)) == len(["an archive", "conditions.probe", "index.json"])


def test_both_services_serve_the_newest_when_each_was_published_to(
    service: ServiceProcess, s3: S3Server, key: Path
) -> None:
    with service.running(), twin(service).running() as other:
        assert service.publish(archive(key, 1)).returncode == 0
        assert eventually(lambda: sequence(other) == 1, 20)
        assert other.publish(archive(key, 2)).returncode == 0
        assert eventually(lambda: sequence(service) == 2, 20)
    assert history(s3) == [2, 1]


def test_no_publication_is_lost_or_reordered_when_two_services_race(
    service: ServiceProcess, s3: S3Server, key: Path
) -> None:
    first = archive(key, 1)
    archives = {number: archive(key, number) for number in range(2, 10)}
    outcomes: dict[int, tuple[int, str]] = {}

    def publish(place: ServiceProcess, numbers: range) -> None:
        for number in numbers:
            done = place.publish(archives[number])
            error = json.loads(done.stdout).get("error", {})
            outcomes[number] = (done.returncode, error.get("code", ""))

    with service.running(), twin(service).running() as other:
        assert service.publish(first).returncode == 0
        racing = [
            threading.Thread(target=publish, args=(place, numbers), name="publishing")
            for place, numbers in ((service, range(2, 10, 2)), (other, range(3, 10, 2)))
        ]
        for thread in racing:
            thread.start()
        for thread in racing:
            thread.join(90)
        newest = history(s3)[0]
        assert eventually(lambda: sequence(service) == sequence(other) == newest, 20)
    published = [number for number, (status, _) in outcomes.items() if status == 0]
    assert history(s3) == [*sorted(published, reverse=True), 1]
    refused = {code for status, code in outcomes.values() if status}
    assert refused <= {"precondition_failed", "bundle_rollback", "bundle_sequence_reused"}


def test_service_serves_with_freshness_when_the_storage_hangs_and_takes_up_again(
    service: ServiceProcess, s3: S3Server, key: Path
) -> None:
    with service.running():
        assert service.publish(archive(key, 1)).returncode == 0
        with s3.hanging():
            assert eventually(lambda: "storage_failing" in said(service), 20)
            began = time.monotonic()
            assert sequence(service) == 1
            assert time.monotonic() - began < 10
            done = service.publish(archive(key, 2))
            assert (done.returncode, json.loads(done.stdout)["error"]["code"]) == (3, "bundle_service_status")
        assert eventually(lambda: "storage_back" in said(service), 20)
        assert sequence(service) == 1
        assert service.publish(archive(key, 2)).returncode == 0
    assert history(s3) == [2, 1]


def test_service_states_why_it_serves_no_longer_when_the_storage_is_gone_for_too_long(
    tmp_path: Path, key: Path, s3: S3Server
) -> None:
    made = ServiceProcess.prepare(tmp_path / "service", key)
    on_bucket(made, s3, unconfirmed_max_seconds=10, timeout_seconds=1)
    with made.running():
        assert made.publish(archive(key, 1)).returncode == 0
        s3.process.kill()
        assert eventually(lambda: "storage_unreachable" in said(made), 20)
        assert sequence(made) == 1
        assert eventually(lambda: refusal(made) == (503, "storage_unconfirmed"), 40)


def _remove(s3: S3Server, end: str) -> None:
    found = next(name for name in s3.objects(BUCKET) if name.endswith(end))
    s3.client.delete_object(Bucket=BUCKET, Key=found)


def _spoil(s3: S3Server, end: str, body: bytes) -> None:
    found = next(name for name in s3.objects(BUCKET) if name.endswith(end))
    s3.client.put_object(Bucket=BUCKET, Key=found, Body=body)


DAMAGED: dict[str, tuple[Callable[[S3Server], None], str]] = {
    "an archive is missing": (lambda s3: _remove(s3, ".tar.gz"), "is missing, though the index names it"),
    "an archive is another": (lambda s3: _spoil(s3, ".tar.gz", b"other"), "is not what was published"),
    "the index is a page": (lambda s3: _spoil(s3, "index.json", b"<html>"), "index.json"),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_start_is_refused_with_words_when(case: str, service: ServiceProcess, s3: S3Server, key: Path) -> None:
    damage, words = DAMAGED[case]
    with service.running():
        assert service.publish(archive(key, 1)).returncode == 0
    damage(s3)
    done = tidegate("bundle", "serve", "--config", str(service.directory / "service.yaml"), "--json")
    error = json.loads(done.stdout.splitlines()[-1])["error"]
    assert (done.returncode, error["code"]) == (3, "storage_damaged")
    assert words in json.dumps(error) and BUCKET in json.dumps(error)


SETTINGS: dict[str, tuple[dict[str, object], int, str]] = {
    "a bucket that is not there": ({"bucket": "no-such-bucket"}, 3, "storage_bucket"),
    "an address where nobody listens": ({"endpoint": "http://127.0.0.1:1"}, 3, "storage_unreachable"),
    "a secret that is not there": ({"secret_key": "file:absent"}, 2, "secret_missing"),
    "a variable that is not there": ({"secret_key": "env:TIDEGATE_ABSENT"}, 2, "secret_missing"),
    "a secret inline": ({"secret_key": SECRET_KEY}, 2, "service_config_invalid"),
    "another machine without TLS": ({"endpoint": "http://192.0.2.1"}, 2, "service_config_invalid"),
    "a secret that others read": ({"secret_key": "file:freshness.pub.pem"}, 2, "secret_readable"),
}


@pytest.mark.parametrize("case", SETTINGS)
def test_start_is_refused_when_the_configuration_names(case: str, tmp_path: Path, key: Path, s3: S3Server) -> None:
    changes, status, code = SETTINGS[case]
    made = on_bucket(ServiceProcess.prepare(tmp_path / "service", key), s3, **changes)
    done = tidegate("bundle", "serve", "--config", str(made.directory / "service.yaml"), "--json")
    assert (done.returncode, json.loads(done.stdout.splitlines()[-1])["error"]["code"]) == (status, code)
    assert SECRET_KEY not in done.stdout + done.stderr
