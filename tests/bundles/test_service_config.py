"""Storage in a service's configuration: what is accepted, and what is refused with words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from bundles.errors import BundleMisuse
from bundles.service_config import ObjectStorage, load_service_config

ROOT = Path(__file__).resolve().parents[2]

STORAGE: dict[str, Any] = {
    "kind": "s3",
    "bucket": "acme-bundles",
    "region": "eu-central-1",
    "access_key": "env:BUNDLES_ACCESS_KEY",
    "secret_key": "file:s3.secret",
}


def config(**top: Any) -> bytes:
    document = {
        "freshness": {"key": "file:freshness.pem"},
        "bundles": [
            {"name": "main", "trusted_keys": [{"keyid": "k", "algorithm": "ES256", "key": "file:k.pub.pem"}]},
        ],
        **top,
    }
    return yaml.safe_dump(document).encode()


def storage(**changed: Any) -> ObjectStorage:
    found = load_service_config(config(storage={**STORAGE, **changed})).storage
    assert found is not None
    return found


def test_storage_is_a_directory_when_nothing_is_said() -> None:
    assert load_service_config(config()).storage is None


def test_storage_is_accepted_when_it_names_bucket_region_and_keys() -> None:
    found = storage()
    assert (found.endpoint, found.prefix, found.addressing) == (None, "", "auto")
    assert (found.timeout_seconds, found.refresh_seconds, found.unconfirmed_max_seconds) == (30, 5, 3600)


ACCEPTED: dict[str, dict[str, Any]] = {
    "TLS elsewhere": {"endpoint": "https://minio.example:9000/"},
    "no TLS on this machine": {"endpoint": "http://127.0.0.1:9000"},
    "no TLS on localhost": {"endpoint": "http://localhost:9000"},
    "no TLS on IPv6's own": {"endpoint": "http://[::1]:9000"},
    "a folder in the bucket": {"prefix": "tidegate/prod-1/"},
    "the shortest times": {"timeout_seconds": 1, "refresh_seconds": 1, "unconfirmed_max_seconds": 10},
    "the longest times": {"timeout_seconds": 300, "refresh_seconds": 300, "unconfirmed_max_seconds": 86_400},
    "just enough time to look once": {"timeout_seconds": 30, "refresh_seconds": 10, "unconfirmed_max_seconds": 40},
    "a session's token": {"session_token": "file:s3.session"},
}


@pytest.mark.parametrize("case", ACCEPTED)
def test_storage_is_accepted_when_it_says(case: str) -> None:
    found = storage(**ACCEPTED[case])
    assert found.endpoint is None or not found.endpoint.endswith("/")


REFUSED: dict[str, dict[str, Any]] = {
    "another kind": {"kind": "gcs"},
    "no bucket": {"bucket": ""},
    "a bucket in capitals": {"bucket": "Acme"},
    "a bucket that is a path": {"bucket": "a/../b"},
    "a bucket one character too long": {"bucket": "b" * 64},
    "a prefix that climbs": {"prefix": "../"},
    "a prefix from the root": {"prefix": "/a/"},
    "a prefix without its end": {"prefix": "a"},
    "no TLS to elsewhere": {"endpoint": "http://minio.example:9000"},
    "no TLS to a neighbour of loopback": {"endpoint": "http://128.0.0.1:9000"},
    "another scheme": {"endpoint": "ftp://minio.example"},
    "an endpoint with a path": {"endpoint": "https://minio.example/bucket"},
    "an endpoint with a query": {"endpoint": "https://minio.example?x=1"},
    "an endpoint with a fragment": {"endpoint": "https://minio.example#x"},
    "an endpoint with a user": {"endpoint": "https://key@minio.example"},
    "an endpoint with a password": {"endpoint": "https://:secret@minio.example"},
    "an endpoint without a host": {"endpoint": "https://"},
    "an endpoint at port 0": {"endpoint": "https://minio.example:0"},
    "an endpoint at no port": {"endpoint": "https://minio.example:99999"},
    "an empty region": {"region": ""},
    "a region with a slash": {"region": "a/b"},
    "no time": {"timeout_seconds": 0},
    "a second too long": {"timeout_seconds": 301},
    "looking a second too seldom": {"refresh_seconds": 301},
    "vouching a second too short": {"unconfirmed_max_seconds": 9},
    "vouching a second too long": {"unconfirmed_max_seconds": 86_401},
    "less time than one look takes": {"timeout_seconds": 30, "refresh_seconds": 10, "unconfirmed_max_seconds": 39},
    "an addressing that there is not": {"addressing": "host"},
    "an unknown setting": {"acl": "public-read"},
    "an access key inline": {"access_key": "AKIA0123456789"},
    "a secret key inline": {"secret_key": "inline-secret-value"},
    "a session token inline": {"session_token": "inline-secret-value"},
}


@pytest.mark.parametrize("case", REFUSED)
def test_storage_is_refused_when_it_says(case: str) -> None:
    with pytest.raises(BundleMisuse) as refused:
        storage(**REFUSED[case])
    assert refused.value.code == "service_config_invalid"
    assert "inline-secret-value" not in refused.value.detail


def test_storage_is_refused_when_a_directory_stands_beside_it() -> None:
    with pytest.raises(BundleMisuse, match="exclude each other"):
        load_service_config(config(directory="store", storage=STORAGE))


def test_storage_is_refused_when_history_keeps_only_one() -> None:
    with pytest.raises(BundleMisuse, match="history_max_count"):
        load_service_config(config(history_max_count=1, storage=STORAGE))
    assert load_service_config(config(history_max_count=2, storage=STORAGE)).history_max_count == 2


@pytest.mark.parametrize("missing", sorted(STORAGE))
def test_storage_is_refused_when_it_lacks(missing: str) -> None:
    rest = {name: value for name, value in STORAGE.items() if name != missing}
    with pytest.raises(BundleMisuse, match=missing):
        load_service_config(config(storage=rest))


def test_service_is_accepted_when_it_has_a_name_that_clients_write() -> None:
    assert load_service_config(config(hosts=["bundles.example:443"])).hosts == ["bundles.example:443"]


BADLY_SAID: dict[str, dict[str, Any]] = {
    "a name that no client writes": {"hosts": ["Bundles.Example"]},
    "no port": {"listen": "127.0.0.1"},
    "a port too high": {"listen": "127.0.0.1:65536"},
    "every address without TLS before it": {"listen": "0.0.0.0:8090"},
    "a key inline": {"freshness": {"key": "inline-secret-value"}},
    "a lease too short": {"freshness": {"key": "file:f.pem", "ttl_seconds": 60}},
    "a token for no bundle": {"tokens": [{"name": "t", "token": "file:t", "may": "read", "bundles": ["other"]}]},
}


@pytest.mark.parametrize("case", BADLY_SAID)
def test_service_is_refused_when_it_says(case: str) -> None:
    with pytest.raises(BundleMisuse) as refused:
        load_service_config(config(**BADLY_SAID[case]))
    assert refused.value.code == "service_config_invalid"
    assert "inline-secret-value" not in refused.value.detail


def test_guide_shows_a_storage_that_the_service_accepts() -> None:
    text = (ROOT / "docs" / "bundle-service.md").read_text(encoding="utf-8")
    shown = next(block for block in text.split("```") if block.lstrip().startswith("storage:"))
    found = load_service_config(config(**yaml.safe_load(shown))).storage
    assert found is not None and set(yaml.safe_load(shown)["storage"]) == set(ObjectStorage.model_fields) - {
        "session_token"
    }
