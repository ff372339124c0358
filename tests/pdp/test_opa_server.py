"""A policy server as the engine: the same decisions, and nothing counted that is no answer of the trusted revision."""

from __future__ import annotations

import asyncio
import gzip
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import orjson
import pytest
from aiohttp import web

from bundles.trusted_set import Probe
from pdp.decision_document import comparable
from pdp.documents import Effect, encode_input
from pdp.errors import EngineFailed, PolicyRefused
from pdp.opa_server import OpaAddressRefused, OpaServerEngine
from pdp.opa_session import ANSWER_MAX_BYTES
from pdp.prepared import PolicyPlane
from pdp.wasm.host import WasmEngine
from tests.pdp.parts import CHAINS, QUESTION, RULES, asked, bundle_of, in_environment

REVISION = {"provenance": {"bundles": {"main": {"revision": "r1"}}}}
ALLOWED = {"effect": "ALLOW", "reasons": [], "obligations": {}}
QUESTION_BYTES = encode_input(QUESTION)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class Server:
    """A running OPA with the tests' small policy as revision r1."""

    url: str
    socket_url: str


@pytest.fixture(scope="module")
def opa_server(opa_path: Path) -> Iterator[Server]:
    """OPA on loopback and on a Unix socket."""
    with tempfile.TemporaryDirectory(prefix="opa") as scratch:
        source = Path(scratch, "bundle")
        source.mkdir()
        (source / "rules.rego").write_bytes(RULES)
        (source / "data.json").write_bytes(orjson.dumps({"chains": CHAINS}))
        (source / ".manifest").write_bytes(b'{"revision": "r1", "rego_version": 1}')
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        path = Path(scratch, "opa.sock")
        command = [
            str(opa_path),
            "run",
            "--server",
            "--log-level",
            "error",
            "--disable-telemetry",
            "--bundle",
            str(source),
        ]
        command += ["--addr", f"http://127.0.0.1:{port}", "--addr", f"unix://{path}"]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            _wait_until_healthy(process, f"http://127.0.0.1:{port}/health")
            yield Server(f"http://127.0.0.1:{port}", f"unix://{path}")
        finally:
            process.terminate()
            process.wait(10)


def _wait_until_healthy(process: subprocess.Popen[bytes], url: str) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and process.poll() is None:
        try:
            urllib.request.urlopen(url, timeout=1).close()
        except (urllib.error.URLError, OSError):
            time.sleep(0.05)
        else:
            return
    pytest.fail("OPA did not start")


CORPUS = [
    *(in_environment(name) for name in ("dev", "prod", "test", "")),
    *(asked(subject=QUESTION.subject._replace(roles=roles)) for roles in ((), ("operator",), ("b", "triage", "a"))),
    asked(args={"n": 1.0, "m": [1.5, -0.0], "t": "é\u2028\u0000"}),
    asked(subject=QUESTION.subject._replace(roles=("triage", 'é"\\', ""))),
]


@pytest.mark.parametrize("listener", ["url", "socket_url"], ids=["loopback", "Unix socket"])
async def test_both_engines_decide_alike_when_asked_the_same_corpus(
    opa_server: Server, rules_wasm: bytes, engine: WasmEngine, listener: str
) -> None:
    embedded, remote = (
        PolicyPlane(engine),
        PolicyPlane(OpaServerEngine(getattr(opa_server, listener), deadline_seconds=10)),
    )
    await embedded.load(bundle_of(rules_wasm))
    await remote.load(bundle_of(None))
    for question in CORPUS:
        ours, theirs = await embedded.decide(question), await remote.decide(question)
        assert ours.decision == theirs.decision
        assert ours.input_digest == theirs.input_digest
        assert theirs.engine == "opa"
    await embedded.close()
    await remote.close()


async def test_both_engines_write_the_same_document_when_sets_are_sorted(
    opa_server: Server, rules_wasm: bytes, engine: WasmEngine
) -> None:
    embedded = engine.prepare(bundle_of(rules_wasm))
    remote = await OpaServerEngine(opa_server.url, deadline_seconds=10).connect(bundle_of(None))
    for question in map(encode_input, CORPUS):
        answer = await remote.ask(question)
        assert comparable(orjson.loads(embedded.decide(question))) == comparable(orjson.loads(answer.document))
    embedded.close()
    await remote.close()


async def test_ask_fails_when_the_server_holds_another_revision(opa_server: Server) -> None:
    policy = await OpaServerEngine(opa_server.url, deadline_seconds=10).connect(bundle_of(None, revision="r2"))
    with pytest.raises(EngineFailed, match="r2"):
        await policy.ask(QUESTION_BYTES)
    await policy.close()


@pytest.fixture
async def serving() -> AsyncIterator[Callable[[Handler], Awaitable[str]]]:
    """Starts a server that answers data queries as told, and gives its address."""
    runners: list[web.AppRunner] = []

    async def serve(handler: Handler) -> str:
        app = web.Application()
        app.router.add_post("/v1/data/tidegate/decision", handler)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        runners.append(runner)
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        return f"http://127.0.0.1:{runner.addresses[0][1]}"

    yield serve
    for runner in runners:
        await runner.cleanup()


def answering(body: bytes, status: int = 200) -> Handler:
    """Answers everything with this."""

    async def handle(request: web.Request) -> web.StreamResponse:
        return web.Response(body=body, status=status, content_type="application/json")

    return handle


async def test_ask_sends_the_question_once_and_keeps_the_servers_id_when_it_answers(
    serving: Callable[[Handler], Awaitable[str]],
) -> None:
    seen: list[tuple[str, bytes]] = []

    async def handle(request: web.Request) -> web.StreamResponse:
        seen.append((request.path_qs, await request.read()))
        return web.json_response({"result": ALLOWED, "decision_id": "d-9", **REVISION})

    policy = await OpaServerEngine(await serving(handle)).connect(bundle_of(None))
    answer = await policy.ask(QUESTION_BYTES)
    assert (orjson.loads(answer.document), answer.decision_id) == (ALLOWED, "d-9")
    assert seen == [("/v1/data/tidegate/decision?provenance=true", b'{"input":' + QUESTION_BYTES + b"}")]
    await policy.close()
    with pytest.raises(EngineFailed, match="closed"):
        await policy.ask(QUESTION_BYTES)


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(orjson.dumps(REVISION), id="no result is undefined"),
        pytest.param(orjson.dumps({"result": ALLOWED}), id="no provenance"),
        pytest.param(orjson.dumps({"result": ALLOWED, "provenance": {}}), id="no bundles"),
        pytest.param(orjson.dumps({"result": ALLOWED, "provenance": {"bundles": {}}}), id="no bundle at all"),
        pytest.param(
            orjson.dumps({"result": ALLOWED, "provenance": {"bundles": {"a": None}}}), id="a bundle of nothing"
        ),
        pytest.param(
            orjson.dumps({"result": ALLOWED, "provenance": {"bundles": {"a": {"revision": "r0"}}}}),
            id="an older revision",
        ),
        pytest.param(
            orjson.dumps({"result": ALLOWED, "provenance": {"bundles": {"a": {"revision": "r1"}, "b": {}}}}),
            id="a second bundle of unknown revision",
        ),
        pytest.param(b"", id="nothing"),
        pytest.param(b"<html>", id="not JSON"),
        pytest.param(b"[]", id="a list"),
        pytest.param(b'{"result":' + b" " * ANSWER_MAX_BYTES + b"1}", id="more bytes than allowed"),
    ],
)
async def test_ask_fails_when_the_answer_does_not_count(
    serving: Callable[[Handler], Awaitable[str]], body: bytes
) -> None:
    policy = await OpaServerEngine(await serving(answering(body))).connect(bundle_of(None))
    with pytest.raises(EngineFailed) as failed:
        await policy.ask(QUESTION_BYTES)
    assert failed.value.code == "engine_failed"
    await policy.close()


@pytest.mark.parametrize("status", [201, 204, 302, 400, 401, 500, 502, 504])
async def test_ask_fails_after_one_try_when_the_status_is_not_200(
    serving: Callable[[Handler], Awaitable[str]], status: int
) -> None:
    tries = 0

    async def handle(request: web.Request) -> web.StreamResponse:
        nonlocal tries
        tries += 1
        return web.Response(status=status, headers={"Location": "/v1/data/tidegate/decision"})

    policy = await OpaServerEngine(await serving(handle)).connect(bundle_of(None))
    with pytest.raises(EngineFailed, match=str(status)):
        await policy.ask(QUESTION_BYTES)
    assert tries == 1
    await policy.close()


async def test_ask_fails_when_the_answer_is_compressed_though_nobody_asked(
    serving: Callable[[Handler], Awaitable[str]],
) -> None:
    wanted: list[str | None] = []

    async def handle(request: web.Request) -> web.StreamResponse:
        wanted.append(request.headers.get("Accept-Encoding"))
        body = gzip.compress(orjson.dumps({"result": ALLOWED, **REVISION}))
        return web.Response(body=body, content_type="application/json", headers={"Content-Encoding": "gzip"})

    policy = await OpaServerEngine(await serving(handle)).connect(bundle_of(None))
    with pytest.raises(EngineFailed, match="compressed"):
        await policy.ask(QUESTION_BYTES)
    assert wanted == ["identity"]
    await policy.close()


async def test_ask_fails_when_the_server_does_not_answer_in_time(serving: Callable[[Handler], Awaitable[str]]) -> None:
    release = asyncio.Event()

    async def handle(request: web.Request) -> web.StreamResponse:
        await release.wait()
        return web.Response()

    policy = await OpaServerEngine(await serving(handle), deadline_seconds=0.05).connect(bundle_of(None))
    with pytest.raises(EngineFailed, match="in time"):
        await policy.ask(QUESTION_BYTES)
    release.set()
    await policy.close()


async def test_the_circuit_opens_when_nobody_listens() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        now = 0.0
        engine = OpaServerEngine(f"http://127.0.0.1:{unused.getsockname()[1]}", seconds=lambda: now)
        policy = await engine.connect(bundle_of(None))
        for _ in range(5):
            with pytest.raises(EngineFailed, match="cannot be reached"):
                await policy.ask(QUESTION_BYTES)
        with pytest.raises(EngineFailed, match="left alone"):
            await policy.ask(QUESTION_BYTES)
        now = 3.0
        with pytest.raises(EngineFailed, match="cannot be reached"):
            await policy.ask(QUESTION_BYTES)
        await policy.close()


async def test_a_plane_denies_when_the_servers_decision_is_outside_the_contract(
    serving: Callable[[Handler], Awaitable[str]],
) -> None:
    body = orjson.dumps({"result": True, **REVISION})
    plane = PolicyPlane(OpaServerEngine(await serving(answering(body))))
    await plane.load(bundle_of(None))
    decided = await plane.decide(QUESTION)
    assert (decided.decision.effect, decided.decision.reasons[0].code) == (Effect.DENY, "decision_malformed")
    await plane.close()


async def test_a_plane_refuses_the_bundle_when_the_server_decides_a_probe_otherwise(opa_server: Server) -> None:
    probe = Probe("cases/a.json", orjson.loads(QUESTION_BYTES), {"effect": "DENY", "reasons": [], "obligations": {}})
    plane = PolicyPlane(OpaServerEngine(opa_server.url, deadline_seconds=10))
    with pytest.raises(PolicyRefused):
        await plane.load(bundle_of(None, probes=(probe,)))
    assert plane.current() is None


@pytest.mark.parametrize(
    "url",
    [
        "http://10.0.0.1:8181",
        "http://opa.example:8181",
        "http://127.0.0.1",
        "https://127.0.0.1:8181",
        "http://127.0.0.1:8181/v1",
        "http://127.0.0.1:8181?x=1",
        "http://127.0.0.1:99999",
        "http://0.0.0.0:8181",
        "http://[::2]:8181",
        "unix:relative",
        "unix://host/path",
        "file:///x",
        "",
        "127.0.0.1:8181",
    ],
)
def test_engine_refuses_when_the_address_is_not_local(url: str) -> None:
    with pytest.raises(OpaAddressRefused):
        OpaServerEngine(url)


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:8181", "http://localhost:8181/", "http://[::1]:8181", "unix:///run/opa.sock"]
)
def test_engine_accepts_an_address_when_it_is_local(url: str) -> None:
    assert OpaServerEngine(url).name == "opa"
