"""Objects in one bucket, by botocore: it signs and reads S3's protocol, the connection is ours.

Guarantees: every answer is judged by ``bundles.s3_answers``; every exchange is bounded by ``bundles.s3_dialer``; nothing
comes from the environment or the files that botocore reads on its own (profiles, keys, endpoints, proxies). Imported only
when a bucket is configured: the extra `s3` brings botocore.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import botocore.session
from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from botocore.config import Config
from botocore.exceptions import ClientError

from bundles.archive import ArchiveLimits
from bundles.errors import BundleError, BundleUnavailable
from bundles.s3_answers import ABSENT_CODE, elsewhere, fault_of, not_s3
from bundles.s3_dialer import HeldBody, S3Dialer
from bundles.s3_shelf import Found, Missing
from bundles.service_config import ObjectStorage


@dataclass(frozen=True, slots=True)
class S3Keys:
    """What signs the requests."""

    access_key: str
    secret_key: str = field(repr=False)
    session_token: str | None = field(default=None, repr=False)


class S3Objects:
    """The objects of one bucket. Blocks: call it in a thread; any number may call at once."""

    def __init__(self, storage: ObjectStorage, keys: S3Keys) -> None:
        self._bucket = storage.bucket
        self._client = _client(storage, keys)
        endpoint = self._client.meta.endpoint_url
        host = urlsplit(endpoint).hostname or ""
        self._place = f"{endpoint}, bucket {storage.bucket}"
        dialer = S3Dialer(
            frozenset({host, f"{storage.bucket}.{host}"}),
            timeout_seconds=storage.timeout_seconds,
            answer_max_bytes=ArchiveLimits().archive_max_bytes,
        )
        self._client.meta.events.register("before-send.s3", _sender(dialer))

    def place(self, key: str) -> str:
        """Where an object is, in words."""
        return f"{self._place}, {key}"

    def get(self, key: str, *, max_bytes: int, unless_etag: str | None = None) -> Found | Missing:
        """An object with its ETag, unless it is absent or still has ``unless_etag``."""
        condition = {} if unless_etag is None else {"IfNoneMatch": unless_etag}
        with self._judged(key):
            try:
                answer = self._client.get_object(Bucket=self._bucket, Key=key, **condition)
            except ClientError as refused:
                status, code, _ = _said(refused)
                if status == 304:
                    return Missing.UNCHANGED
                if status == 404 and code == ABSENT_CODE:
                    return Missing.ABSENT
                raise
            found = Found(self._etag(answer, key), answer["Body"].read())
        if len(found.body) > max_bytes:
            raise BundleUnavailable("storage_damaged", f"{self.place(key)} has more than {max_bytes} bytes")
        return found

    def put(self, key: str, body: bytes) -> None:
        """Write an object, whatever is there."""
        self._write(key, body, {})

    def swap(self, key: str, body: bytes, *, expected: str | None) -> str:
        """Write an object if what is there still has the ETag ``expected`` (``None``: if nothing is); its new ETag.

        Raises :class:`BundleRefused` ``precondition_failed`` when it has not.
        """
        return self._write(key, body, {"IfNoneMatch": "*"} if expected is None else {"IfMatch": expected})

    def delete(self, key: str) -> None:
        """Remove an object; an absent one is removed already."""
        with self._judged(key):
            self._client.delete_object(Bucket=self._bucket, Key=key)

    def _write(self, key: str, body: bytes, condition: dict[str, str]) -> str:
        with self._judged(key):
            answer = self._client.put_object(Bucket=self._bucket, Key=key, Body=body, **condition)
            return self._etag(answer, key)

    @contextmanager
    def _judged(self, key: str) -> Iterator[None]:
        """Whatever goes wrong about an object, as an error of ours."""
        try:
            yield
        except BundleError:
            raise
        except ClientError as refused:
            raise fault_of(*_said(refused), self.place(key)) from refused
        except Exception as failed:  # botocore lets the errors of its parsers out, as a header's date that is none
            raise not_s3(self.place(key), type(failed).__name__) from failed

    def _etag(self, answer: Any, key: str) -> str:
        etag, headers = answer.get("ETag"), answer["ResponseMetadata"]["HTTPHeaders"]
        if headers.get("content-type", "").startswith("text/html") and headers.get("content-length") != "0":
            raise not_s3(self.place(key), "it is an HTML page")
        if not isinstance(etag, str) or not etag:
            raise not_s3(self.place(key), "it has no ETag")
        return etag


def _client(storage: ObjectStorage, keys: S3Keys) -> Any:
    """A client that knows nothing but what is configured."""
    unasked = {
        name: (None, None, default, convert)
        for name, (_, _, default, convert) in botocore.session.Session.SESSION_VARIABLES.items()
    }
    nowhere = (None, None, os.devnull, None)
    session = botocore.session.Session({**unasked, "config_file": nowhere, "credentials_file": nowhere})
    return session.create_client(
        "s3",
        region_name=storage.region,
        endpoint_url=storage.endpoint,
        aws_access_key_id=keys.access_key,
        aws_secret_access_key=keys.secret_key,
        aws_session_token=keys.session_token,
        config=Config(
            signature_version="s3v4",
            s3={
                "addressing_style": storage.addressing,
                "payload_signing_enabled": True,
                "us_east_1_regional_endpoint": "regional",
            },
            retries={"mode": "standard", "total_max_attempts": 1},
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            ignore_configured_endpoint_urls=True,
            user_agent="tidegate",
        ),
    )


def _sender(dialer: S3Dialer) -> Any:
    """What botocore asks before it would send by itself: the answer that comes over our connection."""

    def send(request: AWSPreparedRequest, **_: object) -> AWSResponse:
        if request.method == "HEAD":
            # Only botocore asks that, for a bucket's region after a redirect; whoever redirects that too never ends it.
            raise elsewhere(urlsplit(request.url).hostname or "")
        body = request.body or b""
        given = dialer.exchange(
            request.method,
            request.url,
            {
                name: value.decode("latin-1") if isinstance(value, bytes) else value
                for name, value in request.headers.items()
            },
            body if isinstance(body, bytes) else body.read(),
        )
        return AWSResponse(request.url, given.status, given.headers, HeldBody(given.body))

    return send


def _said(refused: ClientError) -> tuple[int, str, str]:
    """Status, code and message of an error answer."""
    response = refused.response
    status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    error = response.get("Error", {})
    return int(status), str(error.get("Code", "")), str(error.get("Message", ""))
