"""A request that is refused takes everything behind it along: what a client hid there is neither answered nor sent.

Each body is framed so that two parsers could end it at two places, and a second request stands where the other one
would see it.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.calling import LIST, call, host
from tests.e2e.harness import GateProcess, edit_config, init_directory
from tests.e2e.hostile import HostileUpstream
from tests.e2e.raw import conversation, request

HIDDEN = "hidden-behind"
STATUS = b"HTTP/1.1 "


@pytest.fixture(scope="module")
def upstream() -> Iterator[HostileUpstream]:
    """A service that answers, and keeps the request lines."""
    with HostileUpstream.start() as running:
        yield running


@pytest.fixture(scope="module")
def fronted(tmp_path_factory: pytest.TempPathFactory, upstream: HostileUpstream) -> Iterator[GateProcess]:
    """A gate in front of it, with short deadlines."""
    directory = init_directory(tmp_path_factory.mktemp("fronted") / "gate")
    here = {"base_url": f"http://127.0.0.1:{upstream.port}"}
    limits = {"header_read_seconds": 2, "body_read_seconds": 2, "idle_seconds": 2}
    edit_config(directory, {"limits": limits, "instances": {"servicenow": here}})
    with GateProcess.start(directory) as running:
        yield running


def _bearer(gate: GateProcess) -> dict[str, str]:
    return {"Host": host(gate), "Authorization": f"Bearer {gate.token('triage-bot', 'triage')}"}


def _hidden(gate: GateProcess) -> bytes:
    return request("GET", f"{LIST}/{HIDDEN}", _bearer(gate))


def _framed(gate: GateProcess, *framing: str) -> bytes:
    lines = [f"PATCH {LIST}/a1 HTTP/1.1", f"Host: {host(gate)}", "Content-Type: application/json"]
    lines += [f"Authorization: {_bearer(gate)['Authorization']}", *framing, "", ""]
    return "\r\n".join(lines).encode("latin-1")


SMUGGLING = [
    pytest.param(("Content-Length: 4", "Transfer-Encoding: chunked"), b"0\r\n\r\n", id="the chunks count elsewhere"),
    pytest.param(("Transfer-Encoding: chunked", "Content-Length: 0"), b"", id="the length counts elsewhere"),
    pytest.param(("Content-Length: 0", "Content-Length: 2"), b"", id="the first length counts elsewhere"),
    pytest.param(
        ("Transfer-Encoding: xchunked", "Content-Length: 0"), b"", id="an unknown coding is ignored elsewhere"
    ),
    pytest.param(("Transfer-Encoding : chunked",), b"0\r\n\r\n", id="a name with a space is ignored elsewhere"),
    pytest.param(("Transfer-Encoding:\x0bchunked",), b"0\r\n\r\n", id="an odd space is trimmed elsewhere"),
    pytest.param(("X-Note: a\rTransfer-Encoding: chunked",), b"0\r\n\r\n", id="a lone return ends a line elsewhere"),
    pytest.param(("X-Note: a\nContent-Length: 0",), b"", id="a lone newline ends a line elsewhere"),
    pytest.param(("Transfer-Encoding: chunked",), b"0\r\nX-Later: 1\r\n\r\n", id="trailers are dropped elsewhere"),
    pytest.param(("Transfer-Encoding: chunked",), b"0x0\r\n\r\n", id="a size with a prefix is read elsewhere"),
    pytest.param(("Transfer-Encoding: chunked",), b"-0\r\n\r\n", id="a size with a sign is read elsewhere"),
    pytest.param(("Transfer-Encoding: chunked",), b"0\n\r\n", id="a bare newline ends a size elsewhere"),
]


@pytest.mark.parametrize(("framing", "body"), SMUGGLING)
def test_hidden_request_is_neither_answered_nor_sent_when_the_one_before_is_refused(
    fronted: GateProcess, upstream: HostileUpstream, framing: tuple[str, ...], body: bytes
) -> None:
    answered = conversation(fronted.url, _framed(fronted, *framing) + body + _hidden(fronted))
    assert answered.startswith(b"HTTP/1.1 400 ")
    assert b'"code":"malformed_request"' in answered
    assert answered.count(STATUS) == 1
    assert [line for line in upstream.asked if HIDDEN in line] == []
    assert call(fronted, "GET", LIST).status == 200


def test_hidden_request_is_not_sent_when_it_stands_in_a_body_that_is_read_whole(
    fronted: GateProcess, upstream: HostileUpstream
) -> None:
    hidden = _hidden(fronted)
    answered = conversation(fronted.url, _framed(fronted, f"Content-Length: {len(hidden)}") + hidden)
    assert answered.startswith(b"HTTP/1.1 400 ")
    assert answered.count(STATUS) == 1
    assert [line for line in upstream.asked if HIDDEN in line] == []


def test_requests_are_answered_in_their_order_when_they_come_in_one_piece(
    fronted: GateProcess, upstream: HostileUpstream
) -> None:
    first, second = (request("GET", f"{LIST}/{word}", _bearer(fronted)) for word in ("piped-1", "piped-2"))
    answered = conversation(fronted.url, first + second)
    assert answered.count(b"HTTP/1.1 200 ") == 2
    assert [line.split("/")[-2].split(" ")[0] for line in upstream.asked if "piped" in line] == ["piped-1", "piped-2"]
