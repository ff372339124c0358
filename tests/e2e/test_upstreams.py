"""Hostile services behind a real gate: what the caller hears, what the ledger keeps, and that nothing else goes out."""

from __future__ import annotations

import http.client
import json
import socket
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import yaml

from tests.e2e.calling import host
from tests.e2e.harness import GateProcess, edit_config, free_port, init_directory, tidegate
from tests.e2e.hostile import CUT_AFTER_BYTES, METADATA, HostileUpstream, never_accepting
from tests.e2e.raw import Answer, exchange, request
from tests.soak.ledger_reading import End, raw_records_of, records_of, store_of, verify_store
from tests.soak.renaming import RenamingGate

INCIDENT = "/c/servicenow/api/now/table/incident"
CHANGE = "/c/servicenow/api/now/table/change_request"
MIB = 1 << 20
GROWTH_MAX_KIB = 32 << 10
FLOOD_BYTES = 256 * MIB
LONG_FLOOD_BYTES = 2048 * MIB
SMALL_ANSWER_BYTES = MIB
LARGE_ANSWER_BYTES = 16 * MIB
HELD_BACK_MAX_BYTES = 32 * MIB
READ_BYTES = 1 << 18
POLL_SECONDS = 0.1
STALLED_POLLS = 10
SETTLE_SECONDS = 20.0
LIMITS = {"upstream_connect_seconds": 1, "upstream_answer_seconds": 2, "upstream_idle_seconds": 2}
ROLES = ("developer", "triage", "operator")


@pytest.fixture(scope="module")
def upstream() -> Iterator[HostileUpstream]:
    """A service that misbehaves on request."""
    with HostileUpstream.start(FLOOD_BYTES) as running:
        yield running


@pytest.fixture(scope="module")
def exposed(
    tmp_path_factory: pytest.TempPathFactory, upstream: HostileUpstream, opa_path: Path
) -> Iterator[GateProcess]:
    """A gate in front of it, with deadlines of a second, a refusing and a never accepting service, and answer limits."""
    directory = init_directory(tmp_path_factory.mktemp("exposed") / "gate")
    _limit_answers(directory)
    here = f"http://127.0.0.1:{upstream.port}"
    with never_accepting() as silent:
        places = {
            "servicenow": here,
            "webhook": here,
            "github": f"http://127.0.0.1:{free_port()}",
            "slack": f"http://127.0.0.1:{silent}",
        }
        instances = {name: {"base_url": place} for name, place in places.items()}
        edit_config(directory, {"limits": LIMITS, "instances": instances})
        with GateProcess.start(directory) as running:
            yield running


def _limit_answers(directory: Path) -> None:
    """Give two actions of the starter policies the longest answer they may have, as a policy's author would."""
    path = directory / "bundle" / "connectors" / "servicenow" / "data.yaml"
    manifest = yaml.safe_load(path.read_text(encoding="utf-8"))
    limits = {"change_request.read": SMALL_ANSWER_BYTES, "change_request.list": LARGE_ANSWER_BYTES}
    for action in manifest["actions"]:
        if action["name"] in limits:
            action["response_max_bytes"] = limits[action["name"]]
    path.write_text(yaml.safe_dump(manifest, sort_keys=False), encoding="utf-8")
    key, out = directory / "keys" / "bundle.pem", directory / "bundle.tar.gz"
    built = tidegate("bundle", "build", str(directory / "bundle"), "--key", str(key), "--out", str(out))
    assert built.returncode == 0, built.stdout + built.stderr


def _call(gate: GateProcess, method: str, target: str, headers: dict[str, str] | None = None) -> Answer:
    """One call; anything but GET carries a small JSON body."""
    sent = {"Host": host(gate), "Authorization": f"Bearer {gate.token('caller', *ROLES)}", **(headers or {})}
    body = None
    if method != "GET":
        sent.setdefault("Content-Type", "application/json")
        body = _BODIES.get(target.split("?")[0], {"short_description": "sent"})
    raw = request(method, target, sent, json.dumps(body).encode() if body is not None else None)
    return exchange(gate.url, raw, hold_open=True)


_BODIES: dict[str, dict[str, str]] = {
    "/c/github/repos/acme/widgets/issues": {"title": "sent"},
    "/c/slack/api/chat.postMessage": {"channel": "C1", "text": "sent"},
}


def _ends(gate: GateProcess, answer: Answer) -> list[End]:
    """The records of the call that was answered, in a ledger that verifies."""
    assert verify_store(store_of(gate.directory)) > 0
    return records_of(gate.directory, answer.headers["tidegate-call"])


# --- refuses, hangs, cuts -----------------------------------------------------------------------------------------
READS = [
    pytest.param("hang", 504, "upstream_timeout", 3, id="never answers"),
    pytest.param("hang-in-body", 504, "upstream_timeout", 1, id="stops in the middle of its answer"),
    pytest.param("cut", 502, "upstream_failed", 1, id="cuts an answer of known length"),
    pytest.param("cut-chunked", 502, "upstream_failed", 1, id="cuts a chunked answer between chunks"),
    pytest.param("cut-in-chunk", 502, "upstream_failed", 1, id="cuts a chunked answer within a chunk"),
    pytest.param("close", 502, "upstream_failed", 3, id="reads and closes"),
    pytest.param("garbage", 502, "upstream_failed", 3, id="answers no HTTP"),
]


@pytest.mark.parametrize(("fault", "status", "code", "times"), READS)
def test_read_is_refused_and_recorded_when_the_service(
    exposed: GateProcess, upstream: HostileUpstream, fault: str, status: int, code: str, times: int
) -> None:
    before = upstream.times_asked(f"/{fault} ")
    answer = _call(exposed, "GET", f"{INCIDENT}/{fault}")
    assert (answer.status, answer.code) == (status, code)
    assert upstream.times_asked(f"/{fault} ") - before == times
    assert _ends(exposed, answer) == [End("call", None, code)]


@pytest.mark.parametrize("fault", [pytest.param(case.values[0], id=case.id) for case in READS])
def test_write_is_unknown_and_sent_once_when_the_service(
    exposed: GateProcess, upstream: HostileUpstream, fault: str
) -> None:
    name = f"{fault}-w"
    key = {"Idempotency-Key": f"once-{fault}"}
    first = _call(exposed, "PATCH", f"{INCIDENT}/{name}", key)
    assert (first.status, first.code) == (504, "outcome_unknown")
    assert _ends(exposed, first) == [End("intent"), End("outcome", None, "outcome_unknown")]
    again = _call(exposed, "PATCH", f"{INCIDENT}/{name}", key)
    assert (again.status, again.code) == (504, "outcome_unknown")
    assert _ends(exposed, again) == [End("refusal", None, "outcome_unknown")]
    assert upstream.times_asked(f"/{name} ") == 1


@pytest.mark.parametrize("method", ["GET", "PATCH"])
def test_answer_comes_through_and_is_recorded_when_its_length_has_thousands_of_digits(
    exposed: GateProcess, method: str
) -> None:
    answer = _call(exposed, method, f"{INCIDENT}/long-length")
    assert (answer.status, answer.body) == (200, b'{"result": []}')
    assert _ends(exposed, answer)[-1] == End("call" if method == "GET" else "outcome", 200, None)


UNREACHABLE = [
    pytest.param("GET", "/c/github/repos/acme/widgets", 502, "upstream_failed", id="a read, refused"),
    pytest.param("POST", "/c/github/repos/acme/widgets/issues", 502, "upstream_failed", id="a write, refused"),
    pytest.param("POST", "/c/slack/api/chat.postMessage", 504, "upstream_timeout", id="a write, never accepted"),
]


@pytest.mark.parametrize(("method", "target", "status", "code"), UNREACHABLE)
def test_call_fails_plainly_when_nothing_can_be_sent(
    exposed: GateProcess, method: str, target: str, status: int, code: str
) -> None:
    answer = _call(exposed, method, target)
    assert (answer.status, answer.code) == (status, code)
    ends = [End("call", None, code)] if method == "GET" else [End("intent"), End("outcome", None, code)]
    assert _ends(exposed, answer) == ends


def test_key_is_free_again_when_nothing_was_sent(exposed: GateProcess) -> None:
    key = {"Idempotency-Key": "nothing-sent"}
    for _ in range(2):
        answer = _call(exposed, "POST", "/c/github/repos/acme/widgets/issues", key)
        assert (answer.status, answer.code) == (502, "upstream_failed")
        assert _ends(exposed, answer) == [End("intent"), End("outcome", None, "upstream_failed")]


# --- long answers -------------------------------------------------------------------------------------------------
class Reader:
    """A client that reads an answer of any length and keeps only its length."""

    def __init__(self, gate: GateProcess, method: str, target: str, *, receive_bytes: int = 0) -> None:
        where = urlsplit(gate.url)
        self.link = http.client.HTTPConnection(str(where.hostname), where.port, timeout=60)
        self.link.connect()
        if receive_bytes:
            self.link.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        headers = {"Authorization": f"Bearer {gate.token('caller', *ROLES)}", "Content-Type": "application/json"}
        self.link.request(method, target, None if method == "GET" else '{"a": 1}', headers)
        self.answer = self.link.getresponse()
        self.call = str(self.answer.headers["Tidegate-Call"])

    def read(self) -> tuple[int, bool]:
        """How many bytes came, and whether the answer ended as HTTP ends an answer."""
        buffer, count = bytearray(READ_BYTES), 0
        try:
            while size := self.answer.readinto(buffer):
                count += size
        except (http.client.HTTPException, ConnectionError):
            return count, False
        declared = self.answer.headers["Content-Length"]
        return count, declared is None or int(declared) == count


class Memory:
    """How much the resident memory of a process grows at its highest, from now on."""

    def __init__(self, gate: GateProcess) -> None:
        self._process = Path("/proc") / str(gate.process.pid)
        (self._process / "clear_refs").write_text("5")  # the kernel's way to start a new high-water mark
        self._before = self._kib("VmRSS")

    def grown_kib(self) -> int:
        """Highest minus first, in KiB."""
        return self._kib("VmHWM") - self._before

    def _kib(self, name: str) -> int:
        lines = (self._process / "status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


STREAM_CUTS = [
    pytest.param("GET", f"{INCIDENT}/cut-long", "call", id="a read of known length"),
    pytest.param("GET", f"{INCIDENT}/cut-long-chunked", "call", id="a chunked read"),
    pytest.param("POST", "/c/webhook/cut-long", "outcome", id="a write of known length"),
    pytest.param("POST", "/c/webhook/cut-long-chunked", "outcome", id="a chunked write"),
]


@pytest.mark.parametrize(("method", "target", "kind"), STREAM_CUTS)
def test_stream_ends_without_its_terminator_when_the_service_cuts(
    exposed: GateProcess, method: str, target: str, kind: str
) -> None:
    reader = Reader(exposed, method, target)
    with closing(reader.link):
        assert reader.answer.status == 200
        count, whole = reader.read()
    assert not whole
    assert count <= CUT_AFTER_BYTES
    records = raw_records_of(exposed.directory, reader.call)
    expected = [End("response_began", 200), End(kind, 200, "upstream_failed")]
    assert records_of(exposed.directory, reader.call) == ([End("intent")] if kind == "outcome" else []) + expected
    assert records[-1]["digests"]["cut"]
    assert records[-1]["digests"]["response"]["length"] == count
    assert verify_store(store_of(exposed.directory)) > 0


FLOODS = [
    pytest.param("GET", f"{INCIDENT}/flood", "call", id="a read of known length"),
    pytest.param("GET", f"{INCIDENT}/flood-chunked", "call", id="a chunked read"),
    pytest.param("POST", "/c/webhook/flood", "outcome", id="a write of known length"),
    pytest.param("POST", "/c/webhook/flood-chunked", "outcome", id="a chunked write"),
]


def _warm(gate: GateProcess) -> None:
    small = Reader(gate, "GET", f"{INCIDENT}/warm")
    with closing(small.link):
        assert small.read()[1]


def _check_flood(gate: GateProcess, upstream: HostileUpstream, case: tuple[str, str, str], size: int) -> None:
    """Let the service send `size` bytes; the client gets them all, the gate's memory does not."""
    method, target, kind = case
    upstream.flood_bytes = size
    _warm(gate)
    memory = Memory(gate)
    reader = Reader(gate, method, target)
    with closing(reader.link):
        assert reader.answer.status == 200
        assert reader.read() == (size, True)
    assert memory.grown_kib() <= GROWTH_MAX_KIB
    expected = [End("response_began", 200), End(kind, 200)]
    assert records_of(gate.directory, reader.call) == ([End("intent")] if kind == "outcome" else []) + expected
    assert verify_store(store_of(gate.directory)) > 0


@pytest.mark.parametrize(("method", "target", "kind"), FLOODS)
def test_gate_stays_small_when_the_answer_has_256_mib(
    exposed: GateProcess, upstream: HostileUpstream, method: str, target: str, kind: str
) -> None:
    _check_flood(exposed, upstream, (method, target, kind), FLOOD_BYTES)


@pytest.mark.soak
@pytest.mark.timeout(1200)
@pytest.mark.parametrize(("method", "target", "kind"), FLOODS)
def test_gate_stays_small_when_the_answer_has_2_gib(
    exposed: GateProcess, upstream: HostileUpstream, method: str, target: str, kind: str
) -> None:
    _check_flood(exposed, upstream, (method, target, kind), LONG_FLOOD_BYTES)


def test_gate_holds_little_back_when_the_client_does_not_read(exposed: GateProcess, upstream: HostileUpstream) -> None:
    upstream.flood_bytes = FLOOD_BYTES
    _warm(exposed)
    memory, before = Memory(exposed), upstream.flooded
    reader = Reader(exposed, "GET", f"{INCIDENT}/flood", receive_bytes=READ_BYTES)
    with closing(reader.link):
        assert _stalled(upstream) - before <= HELD_BACK_MAX_BYTES
        assert memory.grown_kib() <= GROWTH_MAX_KIB
    assert _settled(exposed, reader.call) == [End("response_began", 200), End("call", 200, "upstream_failed")]


def _stalled(upstream: HostileUpstream) -> int:
    """What the service could send by the time that it could send no more."""
    deadline = time.monotonic() + SETTLE_SECONDS
    last, same = -1, 0
    while same < STALLED_POLLS and time.monotonic() < deadline:
        same = same + 1 if upstream.flooded == last else 0
        last = upstream.flooded
        time.sleep(POLL_SECONDS)
    return last


def _settled(gate: GateProcess, call: str) -> list[End]:
    """The records of a call whose client has gone, once its last one is there."""
    deadline = time.monotonic() + SETTLE_SECONDS
    while time.monotonic() < deadline:
        ends = records_of(gate.directory, call)
        if ends and ends[-1].kind in {"call", "outcome"}:
            return ends
        time.sleep(POLL_SECONDS)
    return records_of(gate.directory, call)


TOO_LONG = [
    pytest.param(f"{INCIDENT}/flood-json", id="longer than is rewritten, of known length"),
    pytest.param(f"{INCIDENT}/flood-json-chunked", id="longer than is rewritten, chunked"),
    pytest.param(f"{CHANGE}/flood", id="longer than the manifest allows, of known length"),
    pytest.param(f"{CHANGE}/flood-chunked", id="longer than the manifest allows, chunked"),
    pytest.param(f"{CHANGE}?sysparm_query=flood", id="longer than a stream may be, of known length"),
]


@pytest.mark.parametrize("target", TOO_LONG)
def test_answer_is_refused_and_left_unread_when_it_is(
    exposed: GateProcess, upstream: HostileUpstream, target: str
) -> None:
    upstream.flood_bytes = FLOOD_BYTES
    before = upstream.flooded
    answer = _call(exposed, "GET", target)
    assert (answer.status, answer.code) == (502, "upstream_failed")
    assert _ends(exposed, answer) == [End("call", None, "upstream_failed")]
    assert upstream.flooded - before <= HELD_BACK_MAX_BYTES


def test_write_is_recorded_as_failed_when_its_answer_is_too_long(
    exposed: GateProcess, upstream: HostileUpstream
) -> None:
    answer = _call(exposed, "PATCH", f"{INCIDENT}/flood-json-w")
    assert (answer.status, answer.code) == (502, "upstream_failed")
    assert _ends(exposed, answer) == [End("intent"), End("outcome", None, "upstream_failed")]
    assert upstream.times_asked("/flood-json-w ") == 1


def test_stream_is_cut_where_the_manifest_says_when_it_has_no_length(
    exposed: GateProcess, upstream: HostileUpstream
) -> None:
    upstream.flood_bytes = FLOOD_BYTES
    reader = Reader(exposed, "GET", f"{CHANGE}?sysparm_query=flood-chunked")
    with closing(reader.link):
        assert reader.answer.status == 200
        count, whole = reader.read()
    assert not whole
    assert count <= LARGE_ANSWER_BYTES
    assert records_of(exposed.directory, reader.call) == [
        End("response_began", 200),
        End("call", 200, "upstream_failed"),
    ]


# --- redirects ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("method", [pytest.param("GET", id="a read"), pytest.param("PATCH", id="a write")])
def test_redirect_to_metadata_is_handed_back_and_never_followed(
    exposed: GateProcess, upstream: HostileUpstream, method: str, status: int
) -> None:
    answer = _call(exposed, method, f"{INCIDENT}/redirect-{status}-metadata")
    assert (answer.status, answer.headers["location"]) == (status, METADATA)
    assert [line for line in upstream.asked if "meta-data" in line] == []
    ends = [End("call", status)] if method == "GET" else [End("intent"), End("outcome", status)]
    assert _ends(exposed, answer) == ends


@pytest.mark.parametrize("status", [302, 307])
def test_redirect_to_another_service_reaches_nobody(
    exposed: GateProcess, upstream: HostileUpstream, status: int
) -> None:
    with HostileUpstream.start() as canary:
        upstream.elsewhere = f"http://127.0.0.1:{canary.port}/api/now/table/incident/moved"
        answer = _call(exposed, "PATCH", f"{INCIDENT}/redirect-{status}-elsewhere")
        assert (answer.status, answer.headers["location"]) == (status, upstream.elsewhere)
        assert canary.asked == []


@pytest.mark.parametrize("where", ["own", "relative"])
def test_redirect_within_the_service_leads_through_the_gate(
    exposed: GateProcess, upstream: HostileUpstream, where: str
) -> None:
    before = upstream.times_asked("/moved ")
    answer = _call(exposed, "GET", f"{INCIDENT}/redirect-302-{where}")
    assert (answer.status, answer.headers["location"]) == (302, f"{exposed.url}{INCIDENT}/moved")
    assert upstream.times_asked("/moved ") == before
    assert _call(exposed, "GET", f"{INCIDENT}/moved").status == 200


# --- names that change their address ------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def renamed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RenamingGate]:
    """A gate whose resolver is the tests' own."""
    directory = init_directory(tmp_path_factory.mktemp("renamed") / "gate")
    with HostileUpstream.start() as service, socket.socket() as refusing:
        refusing.bind(("127.0.0.1", 0))  # bound and not listening: every connection is refused
        bases = {"servicenow": service.port, "github": refusing.getsockname()[1]}
        instances = {name: {"base_url": f"http://service.test:{port}"} for name, port in bases.items()}
        edit_config(directory, {"limits": LIMITS, "instances": instances})
        with RenamingGate.start(directory, service) as running:
            yield running


HERE = ("127.0.0.1",)
SECOND_ANSWERS = [
    pytest.param(("10.0.0.1",), id="private"),
    pytest.param(("169.254.169.254",), id="metadata"),
    pytest.param(("127.0.0.1", "169.254.169.254"), id="metadata behind an allowed one"),
    pytest.param(("::ffff:192.168.0.1",), id="private in IPv6 clothes"),
    pytest.param(("fd00:ec2::254",), id="metadata over IPv6"),
    pytest.param(("0.0.0.0",), id="unspecified"),
]


@pytest.mark.parametrize("second", SECOND_ANSWERS)
@pytest.mark.parametrize("method", [pytest.param("GET", id="a read"), pytest.param("PATCH", id="a write")])
def test_egress_is_forbidden_when_the_second_address_is(
    renamed: RenamingGate, second: tuple[str, ...], method: str
) -> None:
    renamed.will_answer(HERE, second)
    before = len(renamed.service.asked)
    assert _call(renamed.gate, method, f"{INCIDENT}/renamed").status == 200
    assert renamed.questions() == 1
    answer = _call(renamed.gate, method, f"{INCIDENT}/renamed")
    assert (answer.status, answer.code) == (403, "egress_forbidden")
    assert renamed.questions() == 2
    assert len(renamed.service.asked) - before == 1
    assert not any(address in answer.body.decode() for address in second)
    code = "egress_forbidden"
    ends = [End("call", None, code)] if method == "GET" else [End("intent"), End("outcome", None, code)]
    assert _ends(renamed.gate, answer) == ends


@pytest.mark.parametrize(("method", "path"), [("GET", ""), ("POST", "/issues")], ids=["a read", "a write"])
def test_egress_is_forbidden_when_the_address_changes_before_a_retry(
    renamed: RenamingGate, method: str, path: str
) -> None:
    renamed.will_answer(HERE, ("10.0.0.1",))
    answer = _call(renamed.gate, method, f"/c/github/repos/acme/widgets{path}")
    assert (answer.status, answer.code) == (403, "egress_forbidden")
    assert renamed.questions() == 2
    assert _ends(renamed.gate, answer)[-1].code == "egress_forbidden"


def test_connection_goes_to_the_answer_that_was_checked_when_the_next_one_differs(renamed: RenamingGate) -> None:
    renamed.will_answer(HERE, ("10.0.0.1",))
    before = len(renamed.service.asked)
    assert _call(renamed.gate, "GET", f"{INCIDENT}/renamed").status == 200
    assert renamed.questions() == len(renamed.service.asked) - before == 1
