"""The command line's side of a bundle service: one request at a time, bounded, to publish and to look.

Guarantees: no proxies and no redirects; a token never goes to another machine without TLS; an answer is read up to a limit and
within a deadline; a problem document becomes :class:`BundleRefused` with its code. Leaves polling to ``bundles.client``.
"""

from __future__ import annotations

import http.client
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from bundles.archive import ArchiveLimits
from bundles.errors import BundleMisuse, BundleRefused, BundleUnavailable
from bundles.loopback import is_loopback
from bundles.service_protocol import COSIGNATURES_HEADER, encode_cosignatures

TIMEOUT_SECONDS: Final = 60.0
PROBLEM_TYPE: Final = "application/problem+json"


@dataclass(frozen=True, slots=True)
class RemoteAnswer:
    """Status, headers (lower case) and body of one answer that is no refusal."""

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class RemoteBundle:
    """One address of a service and the token to use there."""

    url: str
    token: str | None = field(default=None, repr=False)

    def read(self, *, head_only: bool = False) -> RemoteAnswer | None:
        """What is served now; ``None`` when nothing has been published (or nothing may be seen)."""
        try:
            return self._request("HEAD" if head_only else "GET", None, {})
        except BundleRefused as refused:
            if refused.code == "not_found":
                return None
            raise

    def publish(self, archive: bytes, cosignatures: bytes | None, *, replaces: str | None) -> RemoteAnswer:
        """Put ``archive`` there if what is served still has the ETag ``replaces`` (``None``: if nothing is)."""
        headers = {"Content-Type": "application/gzip"}
        headers.update({"If-Match": replaces} if replaces is not None else {"If-None-Match": "*"})
        if cosignatures is not None:
            headers[COSIGNATURES_HEADER] = encode_cosignatures(cosignatures)
        return self._request("PUT", archive, headers)

    def _request(self, method: str, body: bytes | None, headers: dict[str, str]) -> RemoteAnswer:
        connection, path = self._connection()
        if self.token:
            headers["Authorization"] = f"Bearer {self.token}"
        limit = ArchiveLimits().archive_max_bytes
        try:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            raw = response.read(limit + 1)
        except (OSError, http.client.HTTPException) as failed:
            raise BundleUnavailable("bundle_service_unreachable", f"{self.url}: {failed}") from failed
        finally:
            connection.close()
        if len(raw) > limit:
            raise BundleRefused("bundle_too_large", f"the answer has more than {limit} bytes")
        answer = RemoteAnswer(response.status, {name.lower(): value for name, value in response.getheaders()}, raw)
        if answer.status >= 400:
            raise _refusal(answer, head_only=method == "HEAD")
        if answer.status not in (200, 201):
            raise BundleUnavailable("bundle_service_answer", f"{self.url} answered {answer.status}")
        return answer

    def _connection(self) -> tuple[http.client.HTTPConnection, str]:
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.query:
            raise BundleMisuse("bundle_service_url", f"not an address of a bundle service: {self.url}")
        if self.token and parts.scheme == "http" and not is_loopback(parts.hostname):
            raise BundleMisuse("bundle_service_url", "a token goes to another machine over https only")
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        return kind(parts.hostname, parts.port, timeout=TIMEOUT_SECONDS), parts.path or "/"


def read_token(path: Path) -> str:
    """The token in a file."""
    try:
        return path.read_text().strip()
    except OSError as missing:
        raise BundleUnavailable("token_unavailable", f"{path}: {missing.strerror}") from missing


def _refusal(answer: RemoteAnswer, *, head_only: bool) -> BundleRefused | BundleUnavailable:
    if head_only and answer.status == 404:
        return BundleRefused("not_found", "nothing is served there")
    if answer.headers.get("content-type", "").startswith(PROBLEM_TYPE):
        try:
            document = json.loads(answer.body or b"{}")
        except ValueError:
            document = {}
        if isinstance(document, dict) and answer.status < 500:
            why = document.get("detail") or document.get("title") or f"the service answered {answer.status}"
            return BundleRefused(str(document.get("code", "refused")), str(why))
    return BundleUnavailable("bundle_service_status", f"the service answered {answer.status}")
