"""A policy server as the engine: OPA over its REST API, through opa-python-client.

Guarantees that an answer counts only if the server gave exactly one result, in time, from the revision that this gate
trusts; nothing is asked twice. Leaves getting the bundle to OPA, which polls the same bundle service or file and
verifies the same signature.

**Security**: an undefined decision comes as 200 without ``result``; the server may hold another revision than the
gate. Only a Unix socket or a loopback address is accepted, because the answer carries no signature.
**Source**: OPA's REST API, ``POST /v1/data/{path}`` with ``provenance``.
"""

from __future__ import annotations

import asyncio
import importlib
import ipaddress
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import orjson

from pdp.circuit import Circuit
from pdp.engine import ENTRYPOINT
from pdp.errors import EngineBehind, EngineFailed, EngineUndefined, PdpError
from pdp.opa_address import OpaAddress
from pdp.prepared import Answer

if TYPE_CHECKING:
    from collections.abc import Callable

    from bundles.trusted_set import TrustedBundle
    from pdp.opa_session import OpaSession

ENGINE_NAME = "opa"
DEADLINE_SECONDS = 1.0
_NOTHING = "tidegate/nothing"
"""A path that no bundle defines: its answer says the revision and no more."""


class OpaAddressRefused(PdpError):
    """The configured address is neither a Unix socket nor loopback."""

    code = "engine_address_refused"


class OpaServerEngine:
    """Answers with an OPA server."""

    def __init__(
        self,
        url: str,
        *,
        deadline_seconds: float = DEADLINE_SECONDS,
        seconds: Callable[[], float] = time.monotonic,
    ) -> None:
        """``url`` is ``unix:///path`` or ``http://127.0.0.1:port``; raises ``OpaAddressRefused``."""
        self._address = _address(url)
        self._deadline_seconds = deadline_seconds
        self._seconds = seconds
        self._circuit = Circuit()

    @property
    def name(self) -> str:
        """``opa``."""
        return ENGINE_NAME

    async def connect(self, bundle: TrustedBundle) -> OpaServerPolicy:
        """A policy that answers for ``bundle`` and refuses answers of any other revision."""
        session = await asyncio.to_thread(importlib.import_module, "pdp.opa_session")  # its library is large
        client: OpaSession = session.OpaSession(self._address, self._deadline_seconds)
        await client.open()
        return OpaServerPolicy(client, bundle.revision, self._circuit, self._seconds)


class OpaServerPolicy:
    """One revision as the server answers for it."""

    def __init__(self, client: OpaSession, revision: str, circuit: Circuit, seconds: Callable[[], float]) -> None:
        self._client = client
        self._revision = revision
        self._circuit = circuit
        self._seconds = seconds
        self._asking = 0
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def name(self) -> str:
        """``opa``."""
        return ENGINE_NAME

    async def ask(self, input_bytes: bytes) -> Answer:
        """Ask once; raises ``EngineFailed`` unless exactly one result of the trusted revision came in time."""
        self._circuit.enter(self._seconds())
        self._asking += 1
        self._idle.clear()
        try:
            raw = await self._client.ask(ENTRYPOINT, input_bytes)
        except EngineFailed:
            self._circuit.failed(self._seconds())
            raise
        finally:
            self._asking -= 1
            if not self._asking:
                self._idle.set()
        self._circuit.answered()
        return _read(raw, self._revision)

    async def confirm(self) -> None:
        """Raise ``EngineBehind`` unless the server holds the trusted revision now; ``EngineFailed`` if it does not answer."""
        _checked(await self._client.ask(_NOTHING, b"{}"), self._revision)

    async def close(self) -> None:
        """Wait for the questions under way, each of which has a deadline, then disconnect."""
        await self._idle.wait()
        await self._client.close_connection()


def _address(url: str) -> OpaAddress:
    parts = urlsplit(url)
    if parts.scheme == "unix" and parts.path.startswith("/") and not parts.netloc:
        return OpaAddress("localhost", 80, parts.path)
    try:
        host, port = parts.hostname or "", parts.port
        loopback = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        host, port, loopback = "", None, False
    if parts.scheme != "http" or not loopback or port is None or parts.path not in ("", "/") or parts.query:
        raise OpaAddressRefused("expected unix:///path or http://127.0.0.1:port")
    return OpaAddress(f"[{host}]" if ":" in host else host, port, None)


def _read(raw: bytes, revision: str) -> Answer:
    """The result of an answer, if it is one, of the trusted revision."""
    answer = _checked(raw, revision)
    if "result" not in answer:
        raise EngineUndefined("the decision is undefined")
    decision_id = answer.get("decision_id")
    return Answer(orjson.dumps(answer["result"]), decision_id if isinstance(decision_id, str) else None)


def _checked(raw: bytes, revision: str) -> dict[str, Any]:
    """An answer of the trusted revision."""
    try:
        answer: Any = orjson.loads(raw)
    except orjson.JSONDecodeError as refused:
        raise EngineFailed("the policy server's answer is not JSON") from refused
    if not isinstance(answer, dict):
        raise EngineFailed("the policy server's answer is not an object")
    held = _revisions(answer.get("provenance"))
    if held != {revision}:
        raise EngineBehind(f"the policy server holds the revisions {sorted(held)}, {revision!r} is trusted")
    return answer


def _revisions(provenance: object) -> set[str]:
    """The revisions of all bundles the server holds; one without a revision counts as the empty one."""
    bundles = provenance.get("bundles") if isinstance(provenance, dict) else None
    if not isinstance(bundles, dict):
        return set()
    return {
        str(entry["revision"]) if isinstance(entry, dict) and "revision" in entry else "" for entry in bundles.values()
    }
