"""One exchange with whatever answers: its end in time and size, and the one host it goes to."""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import trustme

from bundles.errors import BundleUnavailable
from bundles.s3_dialer import ERROR_MAX_BYTES, S3Dialer
from tests.bundles.hostile_s3 import (
    Behaviour,
    answering,
    deaf,
    dripping,
    endless,
    error,
    hostile,
    plain_at_once,
    read_head,
    refusing_early,
    sending,
    silent,
)
from tests.e2e.harness import free_port

LIMIT_BYTES = 100_000
HEAD = b"HTTP/1.1 200 OK\r\n"


def dialer(*hosts: str, timeout_seconds: float = 5.0) -> S3Dialer:
    return S3Dialer(frozenset(hosts or ("127.0.0.1",)), timeout_seconds=timeout_seconds, answer_max_bytes=LIMIT_BYTES)


def failing(url: str, *, body: bytes = b"", timeout_seconds: float = 5.0) -> BundleUnavailable:
    with pytest.raises(BundleUnavailable) as failed:
        dialer(timeout_seconds=timeout_seconds).exchange("PUT" if body else "GET", url, {}, body)
    return failed.value


def test_answer_comes_back_when_it_is_whole() -> None:
    with hostile(answering("200 OK", b"body", 'ETag: "e"', "X-More: 1")) as server:
        given = dialer().exchange("GET", f"http://127.0.0.1:{server.port}/b/k?x=1", {"Accept": "*/*"}, b"")
    assert (given.status, given.body, given.headers["etag"], given.headers["x-more"]) == (200, b"body", '"e"', "1")


def test_request_goes_out_as_signed_when_it_has_headers_of_its_own() -> None:
    seen: list[bytes] = []

    def behave(connection: object, stop: object) -> None:
        seen.append(read_head(connection))  # type: ignore[arg-type]
        connection.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")  # type: ignore[attr-defined]

    with hostile(behave) as server:
        dialer().exchange(
            "PUT",
            f"http://127.0.0.1:{server.port}/b/a%20b?x=%2F",
            {"Authorization": "signed", "Expect": "100-continue", "host": "other", "Content-Length": "9"},
            b"body",
        )
    head = seen[0].partition(b"\r\n\r\n")[0].decode().split("\r\n")
    assert head[0] == "PUT /b/a%20b?x=%2F HTTP/1.1"
    assert sorted(head[1:]) == [
        "Authorization: signed", "Connection: close", "Content-Length: 4", f"Host: 127.0.0.1:{server.port}"
    ]  # fmt: skip


BROKEN: dict[str, tuple[Behaviour, str]] = {
    "nothing": (sending(b""), "storage_unreachable"),
    "no HTTP": (sending(b"SSH-2.0-OpenSSH\r\n"), "storage_answer"),
    "a cut head": (sending(b"HTTP/1.1 200 OK\r\nContent-Le"), "storage_answer"),
    "a cut body": (sending(HEAD + b"Content-Length: 10\r\n\r\n12345"), "storage_answer"),
    "a cut chunk": (sending(HEAD + b"Transfer-Encoding: chunked\r\n\r\nff\r\n12345"), "storage_answer"),
    "a chunk of no size": (sending(HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n"), "storage_answer"),
    "a head without end": (sending(HEAD + b"X: " + b"y" * 70_000), "storage_answer"),
    "a hundred headers too many": (sending(HEAD + b"X: y\r\n" * 300 + b"\r\n"), "storage_answer"),
    "a body one byte too long": (answering("200 OK", b"x" * (LIMIT_BYTES + 1)), "storage_answer"),
    "a body without a length": (sending(HEAD + b"\r\nbody"), "storage_answer"),
    "chunks one byte too long": (
        sending(
            HEAD
            + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (LIMIT_BYTES + 1, b"x" * (LIMIT_BYTES + 1))
        ),
        "storage_answer",
    ),
    "a body said to be too long": (sending(HEAD + b"Content-Length: 999999999999\r\n\r\n"), "storage_answer"),
    "a body without end": (endless, "storage_answer"),
    "an error without end": (answering("500 Failed", b"x" * (ERROR_MAX_BYTES + 1)), "storage_answer"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_exchange_fails_with_words_when_there_comes(case: str) -> None:
    behaviour, code = BROKEN[case]
    with hostile(behaviour) as server:
        fault = failing(f"http://127.0.0.1:{server.port}/")
    assert (fault.code, getattr(fault, "undone", None)) == (code, False)


def test_answer_of_the_longest_size_is_taken() -> None:
    with hostile(answering("200 OK", b"x" * LIMIT_BYTES)) as server:
        assert len(dialer().exchange("GET", f"http://127.0.0.1:{server.port}/", {}, b"").body) == LIMIT_BYTES


SLOW: dict[str, tuple[Behaviour, bytes]] = {
    "nothing comes": (silent, b""),
    "the head comes byte by byte": (dripping(b"HTTP/1.1 200 OK\r\nX: ", forever=b"y"), b""),
    "headers come without end": (dripping(HEAD, forever=b"X: y\r\n"), b""),
    "the body comes byte by byte": (
        dripping(HEAD + b"Content-Length: 90000\r\n\r\n", forever=b"x", pause_seconds=0.01),
        b"",
    ),
    "the body comes in small chunks": (
        dripping(HEAD + b"Transfer-Encoding: chunked\r\n\r\n", forever=b"1\r\nx\r\n", pause_seconds=0.01),
        b"",
    ),
    "it says to go on and on": (dripping(b"", forever=b"HTTP/1.1 100 Continue\r\n\r\n"), b""),
    "it does not take the body": (deaf, b"x" * (64 << 20)),
}


@pytest.mark.parametrize("case", SLOW)
def test_exchange_ends_at_its_deadline_when(case: str) -> None:
    behaviour, body = SLOW[case]
    with hostile(behaviour) as server:
        began = time.monotonic()
        fault = failing(f"http://127.0.0.1:{server.port}/", body=body, timeout_seconds=1.0)
        assert time.monotonic() - began < 8
    assert (fault.code, getattr(fault, "undone", None)) == ("storage_timeout", False)


def test_early_refusal_counts_when_the_body_was_not_taken() -> None:
    with hostile(refusing_early) as server:
        given = dialer().exchange("PUT", f"http://127.0.0.1:{server.port}/", {}, b"x" * 100)
    assert given.status == 403 and b"AccessDenied" in given.body


def test_write_certainly_did_not_happen_when_nobody_listens() -> None:
    fault = failing(f"http://127.0.0.1:{free_port()}/", body=b"x")
    assert (fault.code, getattr(fault, "undone", None)) == ("storage_unreachable", True)
    assert "storage.endpoint" in fault.detail


def test_write_certainly_did_not_happen_when_the_name_is_unknown() -> None:
    with pytest.raises(BundleUnavailable) as failed:
        dialer("nowhere.invalid").exchange("GET", "https://nowhere.invalid/", {}, b"")
    assert failed.value.code == "storage_unreachable"


@pytest.mark.parametrize("url", ["http://localhost:1/", "http://127.0.0.2:1/", "http://b.127.0.0.1:1/", "http:///"])
def test_nothing_is_sent_when_the_host_is_another(url: str) -> None:
    fault = failing(url)
    assert (fault.code, getattr(fault, "undone", None)) == ("storage_bucket", True)


def test_redirect_is_not_followed_when_one_comes() -> None:
    with hostile(answering("307 Moved", b"", "Location: http://127.0.0.1:1/")) as server:
        assert dialer().exchange("GET", f"http://127.0.0.1:{server.port}/", {}, b"").status == 307
        assert server.connections == 1


# -- TLS ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def authority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> trustme.CA:
    """A certificate authority that the system trusts."""
    made = trustme.CA()
    made.cert_pem.write_to_path(tmp_path / "ca.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    return made


def certified(authority: trustme.CA, name: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(context)
    return context


def test_answer_comes_over_tls_when_the_certificate_is_right(authority: trustme.CA) -> None:
    with hostile(answering("200 OK", b"secured"), certified(authority, "localhost")) as server:
        given = dialer("localhost").exchange("GET", f"https://localhost:{server.port}/", {}, b"")
    assert given.body == b"secured"


OTHER: dict[str, Callable[[trustme.CA], ssl.SSLContext | None]] = {
    "is for another name": lambda authority: certified(authority, "other.example"),
    "is by another authority": lambda authority: certified(trustme.CA(), "localhost"),
    "is none at all": lambda authority: None,
}


@pytest.mark.parametrize("case", OTHER)
def test_nothing_is_sent_over_tls_when_the_certificate(case: str, authority: trustme.CA) -> None:
    with (
        hostile(plain_at_once, OTHER[case](authority)) as server,
        pytest.raises(BundleUnavailable) as failed,
    ):
        dialer("localhost").exchange("PUT", f"https://localhost:{server.port}/", {}, b"secret")
    assert failed.value.code == "storage_unreachable" and "TLS" in failed.value.detail


def test_handshake_ends_at_the_deadline_when_nothing_comes(authority: trustme.CA) -> None:
    with hostile(dripping(b"", forever=b"\x16")) as server, pytest.raises(BundleUnavailable) as failed:
        began = time.monotonic()
        dialer("localhost", timeout_seconds=1.0).exchange("GET", f"https://localhost:{server.port}/", {}, b"")
    assert failed.value.code in ("storage_timeout", "storage_unreachable")
    assert time.monotonic() - began < 8


def test_error_document_is_handed_on_when_it_is_short() -> None:
    with hostile(error("404 Not Found", "NoSuchKey")) as server:
        given = dialer().exchange("GET", f"http://127.0.0.1:{server.port}/", {}, b"")
    assert given.status == 404 and b"NoSuchKey" in given.body
