"""Why an OPA server gave no answer that counts: other revision, no decision, an error, or nobody there."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web

from pdp.documents import encode_input
from pdp.errors import EngineBehind, EngineErred, EngineFailed, EngineUndefined
from pdp.opa_server import OpaServerEngine, OpaServerPolicy
from tests.pdp.parts import QUESTION, bundle_of


class Opa:
    """Answers every query with this body and status."""

    def __init__(self) -> None:
        self.body: Any = {}
        self.status = 200

    async def handle(self, request: web.Request) -> web.Response:
        return web.json_response(self.body, status=self.status)


@pytest.fixture
async def asked() -> AsyncIterator[tuple[OpaServerPolicy, Opa]]:
    """A policy of revision r1 and the server behind it."""
    opa, application = Opa(), web.Application()
    application.router.add_post("/v1/data/{path:.*}", opa.handle)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    policy = await OpaServerEngine(f"http://127.0.0.1:{runner.addresses[0][1]}").connect(bundle_of(None))
    yield policy, opa
    await policy.close()
    await runner.cleanup()


def holding(revision: str) -> dict[str, Any]:
    return {"provenance": {"bundles": {"main": {"revision": revision}}}}


WHY: dict[str, tuple[int, Any, type[EngineFailed]]] = {
    "it holds another revision": (200, {"result": {}, **holding("r0")}, EngineBehind),
    "it holds another revision and no decision": (200, holding("r0"), EngineBehind),
    "it says no revision": (200, {"result": {}}, EngineBehind),
    "the decision is undefined": (200, holding("r1"), EngineUndefined),
    "it could not evaluate": (500, {"code": "internal_error"}, EngineErred),
}


@pytest.mark.parametrize(("status", "body", "kind"), WHY.values(), ids=WHY.keys())
async def test_ask_says_which_failure_it_was_when(
    asked: tuple[OpaServerPolicy, Opa], status: int, body: Any, kind: type[EngineFailed]
) -> None:
    policy, opa = asked
    opa.status, opa.body = status, body
    with pytest.raises(EngineFailed) as failed:
        await policy.ask(encode_input(QUESTION))
    assert type(failed.value) is kind and failed.value.code == "engine_failed"


@pytest.mark.parametrize("status", [400, 404, 503])
async def test_ask_fails_plainly_when_the_server_refuses(asked: tuple[OpaServerPolicy, Opa], status: int) -> None:
    policy, opa = asked
    opa.status = status
    with pytest.raises(EngineFailed) as failed:
        await policy.ask(encode_input(QUESTION))
    assert type(failed.value) is EngineFailed


async def test_confirm_is_silent_only_when_the_server_holds_the_trusted_revision(
    asked: tuple[OpaServerPolicy, Opa],
) -> None:
    policy, opa = asked
    opa.body = holding("r1")
    await policy.confirm()
    opa.body = holding("r2")
    with pytest.raises(EngineBehind):
        await policy.confirm()
    opa.status = 503
    with pytest.raises(EngineFailed):
        await policy.confirm()
