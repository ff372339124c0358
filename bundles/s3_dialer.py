"""One HTTP exchange with a bucket's endpoint: bounded in time and size, to one host only.

Guarantees: an exchange ends at its deadline, however slowly the other side takes or gives; an answer is read up to a
limit; no proxies, no redirects, no other host than the configured one, a connection per exchange. Leaves signing and what
an answer means to ``bundles.s3_client``, and how long a name is looked up to the system's resolver.

**Security**: security rule 5. TLS as the system's certificates (or ``SSL_CERT_FILE``) say.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import SplitResult, urlsplit

from bundles.s3_answers import StorageFault, elsewhere, not_s3

ERROR_MAX_BYTES: Final = 65_536
"""More than any error document of S3."""
_BLOCK_BYTES: Final = 65_536
_OURS: Final = frozenset({"host", "content-length", "transfer-encoding", "connection", "expect"})


@dataclass(frozen=True, slots=True)
class Exchanged:
    """Status, headers and body of one answer, whatever it says."""

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)


class S3Dialer:
    """Exchanges with the hosts of one bucket. Blocks: call it in a thread; any number may call at once."""

    def __init__(self, hosts: frozenset[str], *, timeout_seconds: float, answer_max_bytes: int) -> None:
        self._hosts = hosts
        self._timeout = timeout_seconds
        self._answer_max = answer_max_bytes
        self._tls = ssl.create_default_context()

    def exchange(self, method: str, url: str, headers: Mapping[str, str], body: bytes) -> Exchanged:
        """Send one request and read its answer; raises :class:`StorageFault`."""
        parts = urlsplit(url)
        host = parts.hostname or ""
        if host not in self._hosts:
            raise elsewhere(host)
        deadline = time.monotonic() + self._timeout
        raw = self._dialled(host, parts.port or (443 if parts.scheme == "https" else 80), deadline)
        raw.settimeout(self._timeout)
        with _Watch(raw, deadline) as watch:
            connection = http.client.HTTPConnection(host, parts.port, timeout=self._timeout)
            try:
                connection.sock = self._secured(raw, host) if parts.scheme == "https" else raw
                target = f"{parts.path or '/'}?{parts.query}" if parts.query else parts.path or "/"
                _send(connection, (method, target, _host(parts)), headers, body)
                with contextlib.closing(connection.getresponse()) as response:
                    given = self._answer(response, host)
            except (OSError, ValueError, http.client.HTTPException, StorageFault) as failed:
                raise self._failed(host, failed, watch) from failed
            finally:
                connection.close()
                raw.close()
        if watch.expired:  # What was cut off at the deadline can look like a whole answer.
            raise self._late(host)
        return given

    def _dialled(self, host: str, port: int, deadline: float) -> socket.socket:
        """A connection to the first address that takes one before the deadline."""
        failed: OSError = OSError(f"{host} has no address")
        try:
            for _, _, _, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
                left = deadline - time.monotonic()
                if left <= 0:
                    break
                try:
                    return socket.create_connection((str(address[0]), port), left)
                except OSError as refused:
                    failed = refused
        except OSError as unknown:
            failed = unknown
        if isinstance(failed, TimeoutError):
            raise StorageFault(
                "storage_timeout", f"{host}: no connection in {self._timeout:g} s", undone=True
            ) from failed
        detail = f"{host}:{port}: {failed.strerror or failed}; is the storage up, and storage.endpoint right?"
        raise StorageFault("storage_unreachable", detail, undone=True) from failed

    def _secured(self, raw: socket.socket, host: str) -> ssl.SSLSocket:
        try:
            return self._tls.wrap_socket(raw, server_hostname=host)
        except ssl.SSLError as failed:
            detail = f"{host}: TLS: {failed.reason}; a CA of your own goes into the system's store or SSL_CERT_FILE"
            raise StorageFault("storage_unreachable", detail, undone=True) from failed

    def _failed(self, host: str, failed: Exception, watch: _Watch) -> StorageFault:
        if watch.expired or isinstance(failed, TimeoutError):
            return self._late(host)
        if isinstance(failed, StorageFault):
            return StorageFault(failed.code, failed.detail, undone=failed.undone)
        if isinstance(failed, OSError):
            return StorageFault("storage_unreachable", f"{host}: the connection broke: {failed}", undone=False)
        return not_s3(host, type(failed).__name__)

    def _late(self, host: str) -> StorageFault:
        return StorageFault("storage_timeout", f"{host}: no whole answer in {self._timeout:g} s", undone=False)

    def _answer(self, response: http.client.HTTPResponse, host: str) -> Exchanged:
        limit = self._answer_max if response.status < 300 else ERROR_MAX_BYTES
        declared = response.length
        if declared is None and not response.chunked:
            raise not_s3(host, "it does not say how long it is")
        body = b"" if declared is not None and declared > limit else response.read(limit + 1)
        if len(body) > limit or (declared is not None and declared > limit):
            raise not_s3(host, f"it has more than {limit} bytes")
        if declared is not None and len(body) < declared:
            raise not_s3(host, f"it ended after {len(body)} of {declared} bytes")
        return Exchanged(response.status, {name.lower(): value for name, value in response.getheaders()}, body)


class _Watch:
    """Ends a connection at the deadline, from outside of whatever blocks on it.

    The duplicate reaches the connection also while TLS takes the socket over.
    """

    def __init__(self, connected: socket.socket, deadline: float) -> None:
        self.expired = False
        self._connected = connected.dup()
        self._timer = threading.Timer(max(deadline - time.monotonic(), 0.0), self._end)
        self._timer.name = "s3-deadline"
        self._timer.daemon = True

    def __enter__(self) -> _Watch:
        self._timer.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()
        self._timer.join()
        self._connected.close()

    def _end(self) -> None:
        self.expired = True
        with contextlib.suppress(OSError):  # The other side ended it at this moment.
            self._connected.shutdown(socket.SHUT_RDWR)


def _host(parts: SplitResult) -> str:
    """The host as it was signed: with its port only where that is not the scheme's own."""
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname or ""
    own = 443 if parts.scheme == "https" else 80
    return host if parts.port in (None, own) else f"{host}:{parts.port}"


def _send(
    connection: http.client.HTTPConnection, line: tuple[str, str, str], headers: Mapping[str, str], body: bytes
) -> None:
    method, target, host = line
    connection.putrequest(method, target, skip_host=True, skip_accept_encoding=True)
    connection.putheader("Host", host)
    for name, value in headers.items():
        if name.lower() not in _OURS:
            connection.putheader(name, value)
    connection.putheader("Content-Length", str(len(body)))
    connection.putheader("Connection", "close")
    connection.endheaders()
    view = memoryview(body)
    # An answer may come before the whole body was taken (a refusal): then it is what counts.
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        for start in range(0, len(body), _BLOCK_BYTES):
            connection.send(view[start : start + _BLOCK_BYTES])


class HeldBody(io.BytesIO):
    """A body that was read already, in the shape that botocore reads from."""

    def stream(self) -> Iterator[bytes]:
        """All of it."""
        yield self.read()
