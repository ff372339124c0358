"""OPA's own evaluation cases before the OPA adapter: put into a real server, asked as the gate asks, compared.

One server serves many cases. It holds a bundle whose root no case uses, and the revision that the adapter checks comes from
there; a case's data and modules come and go by OPA's REST API. The module that asks makes the decision undefined where the
query has no result, so the adapter must say so.

A case ends as it does before the embedded engine. None is refused by a profile, because the adapter has none; what OPA's REST
API cannot be given, or what no question to a bundle can be, is named.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp

from bundles.canonical import canonical_json
from bundles.keys import public_pem
from bundles.trusted_set import TrustedBundle
from pdp.errors import EngineErred, EngineFailed, EngineUndefined
from pdp.opa_server import OpaServerEngine
from tests.agreement.cases import ASKING, Case
from tests.agreement.judging import Judgement, bindings_by_opa, compared, ended
from tests.bundles.parts import good_bundle, signed, signing_key, verified
from tests.integration.opa_process import OpaProcess

ANCHOR = "anchor"
RESERVED = frozenset((ANCHOR, "system", "tidegate"))
"""What a case's packages and data may not be named: the server's bundle, OPA's own, and the module that asks."""
ANCHORED = {f"{ANCHOR}/data.json": b'{"held":true}'}
DEADLINE_SECONDS = 30.0
ORDINARY = "an error in strict mode alone"
OWN_BUNDLE = "from a bundle of its own"
UNDEFINED = "undefined"
"""The detail of an agreement that the decision has no value."""

_PACKAGE = re.compile(r"^\s*package\s+(\w+)", re.MULTILINE)
_RUNTIME = "opa.runtime"
_DEFINED_WHERE_ANSWERED = "\ndecision := answers if count(answers) > 0\n"


class PutRefused(Exception):
    """The server did not take a module or data; ``where`` is the name of the module, or ``data``."""

    def __init__(self, where: str, said: str) -> None:
        self.where = where
        self.said = said
        super().__init__(f"{where}: {said}")


@contextmanager
def serving(
    folder: Path, files: Mapping[str, bytes] = ANCHORED, *, root: str = ANCHOR, revision: str | None = None
) -> Iterator[OpaProcess]:
    """A server that holds a bundle with these files, of the trusted revision unless another is named."""
    manifest = canonical_json({"revision": revision or trusted().revision, "roots": [root], "rego_version": 1})
    with OpaProcess.start(folder, signed({**files, ".manifest": manifest}), public_pem(signing_key())) as server:
        yield server


def trusted() -> TrustedBundle:
    """What the adapter is connected for."""
    return verified(good_bundle())


class AdapterJudge:
    """Puts cases into a server, asks them through the adapter, and takes them out again."""

    def __init__(self, server: OpaProcess, session: aiohttp.ClientSession, program: Path) -> None:
        """``session`` is for putting and taking out; ``program`` is OPA, asked where a case wants strict errors."""
        self._server = server
        self._session = session
        self._program = program
        self._bundle = trusted()

    @classmethod
    @asynccontextmanager
    async def at(cls, server: OpaProcess, program: Path) -> AsyncIterator[AdapterJudge]:
        """A judge that puts its cases into ``server``."""
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=DEADLINE_SECONDS)) as session:
            yield cls(server, session, program)

    async def judge(self, case: Case) -> Judgement:
        """Put, ask, compare and take out one case."""
        unaskable = _unaskable(case)
        if unaskable:
            return ended(case, "cannot be asked", unaskable)
        put: list[str] = []
        try:
            await self._put(case, put)
            return await self._asked(case, self._server)
        except PutRefused as refused:
            found = await self._from_its_own_bundle(case)
            return found or ended(case, "cannot be asked", refused.said, detail=refused.where)
        finally:
            for path in reversed(put):
                await self.take_out(path)

    async def held(self) -> Any:
        """All data that the server holds, with what its modules define."""
        async with self._session.get(f"{self._server.url}/v1/data") as response:
            return (await response.json())["result"]

    async def _put(self, case: Case, put: list[str]) -> None:
        """Put everything of a case; ``put`` receives the paths, in the order they were taken."""
        for name, value in case.data.items():
            path = f"data/{quote(name, safe='')}"
            await self.put(path, json.dumps(value).encode())
            put.append(path)
        waiting = _modules(case)
        while waiting:  # a module that calls another's function is taken after it
            taken, refusal = await self._put_some(waiting)
            put += [f"policies/{name}" for name in taken]
            if not taken and refusal is not None:
                raise refusal
            waiting = {name: text for name, text in waiting.items() if name not in taken}

    async def _put_some(self, modules: dict[str, bytes]) -> tuple[list[str], PutRefused | None]:
        """Put those modules that the server takes now; which these were, and the first refusal of the others."""
        taken: list[str] = []
        first: PutRefused | None = None
        for name, text in modules.items():
            try:
                await self.put(f"policies/{name}", text)
            except PutRefused as refused:
                first = first or refused
            else:
                taken.append(name)
        return taken, first

    async def put(self, path: str, content: bytes) -> None:
        """Write data or a module, at a path of the REST API; raises ``PutRefused``."""
        async with self._session.put(f"{self._server.url}/v1/{path}", data=content) as response:
            if response.status not in (200, 204):
                raise PutRefused(path.partition("/")[2], _reason(await response.json()))

    async def take_out(self, path: str) -> None:
        """Remove it again; raises ``RuntimeError`` when it stays."""
        async with self._session.delete(f"{self._server.url}/v1/{path}") as response:
            if response.status not in (200, 204):
                raise RuntimeError(f"{path} stays in the server: {await response.text()}")

    async def _from_its_own_bundle(self, case: Case) -> Judgement | None:
        """The case before a server of its own, which takes modules that call each other all at once; None if it does not."""
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="agreement-")))
            files = {**_modules(case), "data.json": json.dumps(case.data).encode()}
            try:
                server = stack.enter_context(serving(folder, files, root=""))
            except RuntimeError:
                return None
            found = await self._asked(case, server)
        return replace(found, reason=OWN_BUNDLE) if found.end == "agrees" else found

    async def _asked(self, case: Case, server: OpaProcess) -> Judgement:
        # An engine for each case, because errors in a row would open the circuit and then nothing would be asked.
        engine = OpaServerEngine(server.socket_url, deadline_seconds=DEADLINE_SECONDS)
        policy = await engine.connect(self._bundle)
        document = json.dumps(case.input_document if case.has_input else {}).encode()
        answers: list[dict[str, Any]] = []
        try:
            answers = json.loads((await policy.ask(document)).document)
        except EngineUndefined:
            pass  # no answers: what that is worth is seen below
        except EngineErred as erred:
            if case.wants_error and not case.only_strict:
                return ended(case, "error as wanted", detail=erred.detail)
            return ended(case, "differs", "the engine erred", detail=erred.detail)
        except EngineFailed as failed:
            return ended(case, "differs", "the engine failed", detail=failed.detail)
        finally:
            await policy.close()
        found = compared(case, answers, lambda: bindings_by_opa(self._program, case))
        if found.end != "agrees":
            return found
        reason = ORDINARY if case.only_strict else found.reason
        return ended(case, "agrees", reason, detail="" if answers else UNDEFINED)


def _modules(case: Case) -> dict[str, bytes]:
    """The case's modules, and the one that asks."""
    return {**case.files, ASKING: (case.asking("answers") + _DEFINED_WHERE_ANSWERED).encode()}


def _unaskable(case: Case) -> str:
    """Why a case is no question to a server at all; empty if it is one."""
    if case.has_input and case.input_document is None:
        return "an input that is no JSON"
    taken = RESERVED & ({name for text in case.modules for name in _PACKAGE.findall(text)} | case.data.keys())
    if taken:
        return f"a package or data named {min(taken)}"
    if any(_RUNTIME in text for text in (case.query, *case.modules)):
        return f"{_RUNTIME}, which says how the server was started"
    return ""


def _reason(said: dict[str, Any]) -> str:
    """The code and message of what OPA refused, short enough for a table."""
    errors = said.get("errors")
    first = errors[0] if errors else said
    if first["code"] == "rego_recursion_error":  # which rule of the circle is named first is left to chance
        return f"{first['code']}: the query is over all data, and what asks is part of it"
    return f"{first['code']}: {first['message']}"[:80]
