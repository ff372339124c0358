"""The opa engine before a real OPA that is down, slow, behind, silent or restarted: an answer, or nothing leaves."""

from __future__ import annotations

import asyncio
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bundles.keys import public_pem
from bundles.trusted_set import TrustedBundle
from pdp.errors import EngineFailed, PolicyRefused
from pdp.opa_server import OpaServerEngine, OpaServerPolicy
from pdp.opa_session import CONNECTIONS_MAX_COUNT
from pdp.prepared import PolicyPlane
from tests.bundles.parts import good_files, signed, signing_key, verified
from tests.e2e.harness import free_port
from tests.integration.opa_process import OpaProcess

READER = b'{"subject":{"properties":{"roles":["reader"]}}}'
STRANGER = b'{"subject":{"properties":{"roles":[]}}}'
PUBLIC = public_pem(signing_key())
RECOVERY_SECONDS = 20.0


def _files(revision: str) -> dict[str, bytes]:
    """A bundle without probes, whose decision is undefined for all but readers."""
    files = {name: content for name, content in good_files().items() if not name.startswith("probes/")}
    return {**files, ".manifest": files[".manifest"].replace(b'"r1"', f'"{revision}"'.encode())}


RAW = signed(_files("r1"))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, opa_path: Path) -> Iterator[OpaProcess]:
    """OPA with revision r1, verification on."""
    with OpaProcess.start(tmp_path_factory.mktemp("opa"), RAW, PUBLIC) as running:
        yield running


@pytest.fixture
def bundle() -> TrustedBundle:
    """What the gate trusts: the same bundle."""
    return verified(RAW)


async def _refused(policy: OpaServerPolicy, question: bytes = READER) -> str:
    with pytest.raises(EngineFailed) as failed:
        await policy.ask(question)
    assert failed.value.code == "engine_failed"
    return failed.value.detail


async def _answers_again(policy: OpaServerPolicy) -> float:
    """Ask until the circuit lets a question through and it is answered; how many seconds that took."""
    started = time.monotonic()
    while time.monotonic() - started < RECOVERY_SECONDS:
        try:
            await policy.ask(READER)
        except EngineFailed:
            await asyncio.sleep(0.05)
        else:
            return time.monotonic() - started
    raise TimeoutError("the engine did not come back")


@pytest.mark.parametrize("listener", ["url", "socket_url"], ids=["loopback", "Unix socket"])
async def test_ask_is_answered_with_the_servers_id_when_the_revision_is_the_trusted_one(
    server: OpaProcess, bundle: TrustedBundle, listener: str
) -> None:
    policy = await OpaServerEngine(getattr(server, listener), deadline_seconds=10).connect(bundle)
    answers = [await policy.ask(READER) for _ in range(3)]
    assert {answer.document for answer in answers} == {b'{"effect":"ALLOW"}'}
    await policy.close()


async def test_ask_fails_when_the_decision_is_undefined_and_answers_the_next(
    server: OpaProcess, bundle: TrustedBundle
) -> None:
    policy = await OpaServerEngine(server.socket_url, deadline_seconds=10).connect(bundle)
    for _ in range(7):  # more than open the circuit: OPA did answer
        assert await _refused(policy, STRANGER) == "the decision is undefined"
    assert (await policy.ask(READER)).document == b'{"effect":"ALLOW"}'
    await policy.close()


async def test_ask_fails_when_opa_holds_another_revision_than_the_gate_trusts(server: OpaProcess) -> None:
    policy = await OpaServerEngine(server.url, deadline_seconds=10).connect(verified(signed(_files("r2"))))
    assert "'r2' is trusted" in await _refused(policy)
    await policy.close()


async def test_load_keeps_the_old_policy_when_opa_does_not_hold_the_new_revision_yet(
    server: OpaProcess, bundle: TrustedBundle
) -> None:
    plane = PolicyPlane(OpaServerEngine(server.url, deadline_seconds=10))
    await plane.load(bundle)
    probed = signed({**_files("r2"), "probes/a.json": b'{"decision":{"effect":"ALLOW"},"input":{"a":1}}'})
    with pytest.raises(PolicyRefused):
        await plane.load(verified(probed))
    active = plane.current()
    assert active is not None
    assert active.bundle.revision == "r1"
    await plane.close()


async def test_many_questions_are_answered_when_they_outnumber_the_connections(
    server: OpaProcess, bundle: TrustedBundle
) -> None:
    policy = await OpaServerEngine(server.socket_url, deadline_seconds=30).connect(bundle)
    answers = await asyncio.gather(*(policy.ask(READER) for _ in range(3 * CONNECTIONS_MAX_COUNT)))
    assert {answer.document for answer in answers} == {b'{"effect":"ALLOW"}'}
    await policy.close()


@pytest.mark.parametrize("address", ["loopback", "Unix socket"])
async def test_ask_fails_at_once_and_then_not_even_that_when_opa_is_down(address: str, bundle: TrustedBundle) -> None:
    with tempfile.TemporaryDirectory(prefix="opa") as scratch:
        url = f"http://127.0.0.1:{free_port()}" if address == "loopback" else f"unix://{scratch}/none.sock"
        policy = await OpaServerEngine(url).connect(bundle)
        said = [await _refused(policy) for _ in range(6)]
        assert said[:5] == ["the policy server cannot be reached"] * 5
        assert "left alone" in said[5]
        await policy.close()


async def test_ask_ends_at_its_deadline_when_opa_stands_still_and_answers_when_it_goes_on(
    tmp_path: Path, bundle: TrustedBundle
) -> None:
    with OpaProcess.start(tmp_path, RAW, PUBLIC) as stopped:
        policy = await OpaServerEngine(stopped.socket_url, deadline_seconds=0.3).connect(bundle)
        await _answers_again(policy)
        stopped.process.send_signal(signal.SIGSTOP)
        try:
            started = time.monotonic()
            said = await asyncio.gather(*(_refused(policy) for _ in range(5)))
            assert time.monotonic() - started < 3
            assert set(said) == {"the policy server did not answer in time"}
            assert "left alone" in await _refused(policy)
        finally:
            stopped.process.send_signal(signal.SIGCONT)
        await _answers_again(policy)
        await policy.close()


async def test_questions_are_answered_again_when_opa_was_restarted_on_the_same_port(
    tmp_path: Path, bundle: TrustedBundle
) -> None:
    port = free_port()
    with OpaProcess.start(tmp_path, RAW, PUBLIC, port=port) as first:
        policy = await OpaServerEngine(first.url).connect(bundle)
        await _answers_again(policy)
    await _refused(policy)
    with OpaProcess.start(tmp_path, RAW, PUBLIC, port=port):
        await _answers_again(policy)
        for _ in range(5):
            assert (await policy.ask(READER)).document == b'{"effect":"ALLOW"}'
    await policy.close()


async def test_ask_fails_when_opa_was_restarted_with_another_bundle(tmp_path: Path, bundle: TrustedBundle) -> None:
    port = free_port()
    with OpaProcess.start(tmp_path, RAW, PUBLIC, port=port) as first:
        policy = await OpaServerEngine(first.url).connect(bundle)
        await _answers_again(policy)
    with OpaProcess.start(tmp_path, signed(_files("r0")), PUBLIC, port=port):
        said = [await _refused(policy) for _ in range(2)]  # the first may meet the connection that the restart closed
        assert "['r0']" in said[1]
    await policy.close()
