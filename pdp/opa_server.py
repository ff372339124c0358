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
import ipaddress
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import aiohttp
import orjson
from opa_client.opa_async import AsyncOpaClient

from pdp.circuit import Circuit
from pdp.engine import ENTRYPOINT
from pdp.errors import EngineBehind, EngineErred, EngineFailed, EngineUndefined, PdpError
from pdp.prepared import Answer

if TYPE_CHECKING:
    from collections.abc import Callable

    from bundles.trusted_set import TrustedBundle

ENGINE_NAME = "opa"
DEADLINE_SECONDS = 1.0
ANSWER_MAX_BYTES = 2 << 20
CONNECTIONS_MAX_COUNT = 64
KEEPALIVE_SECONDS = 15.0
_NOTHING = "tidegate/nothing"
"""A path that no bundle defines: its answer says the revision and no more."""
_HEADERS = {"Content-Type": "application/json", "Accept-Encoding": "identity"}


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
        client = _Client(self._address, self._deadline_seconds)
        await client.open()
        return OpaServerPolicy(client, bundle.revision, self._circuit, self._seconds)


class OpaServerPolicy:
    """One revision as the server answers for it."""

    def __init__(self, client: _Client, revision: str, circuit: Circuit, seconds: Callable[[], float]) -> None:
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


class _Client(AsyncOpaClient):  # type: ignore[misc]  # the library carries no types
    """The client library with its session replaced: Unix socket or loopback, no cookies, no retries."""

    def __init__(self, address: _Address, deadline_seconds: float) -> None:
        super().__init__(host=address.host, port=address.port, retries=0, timeout=deadline_seconds)
        self._socket_path = address.socket_path
        self._session: aiohttp.ClientSession | None

    async def open(self) -> None:
        """Make the session; nothing is sent yet."""
        await self._init_session()

    async def _init_session(self) -> None:
        connector: aiohttp.BaseConnector
        if self._socket_path is not None:
            connector = aiohttp.UnixConnector(
                self._socket_path, limit=CONNECTIONS_MAX_COUNT, keepalive_timeout=KEEPALIVE_SECONDS
            )
        else:
            connector = aiohttp.TCPConnector(limit=CONNECTIONS_MAX_COUNT, keepalive_timeout=KEEPALIVE_SECONDS)
        self._session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=self.timeout),
            trust_env=False,
            auto_decompress=False,
        )

    async def ask(self, path: str, input_bytes: bytes) -> bytes:
        """The raw answer of one data query; raises ``EngineFailed``."""
        if self._session is None:
            raise EngineFailed("the policy is closed")
        url = f"{self.root_url}/data/{path}?provenance=true"
        body = b'{"input":' + input_bytes + b"}"
        try:
            async with self._request("POST", url, data=body, headers=_HEADERS, allow_redirects=False) as response:
                if response.status == 500:
                    raise EngineErred("the policy server answered 500")
                if response.status != 200:
                    raise EngineFailed(f"the policy server answered {response.status}")
                if response.headers.get("Content-Encoding", "identity") != "identity":
                    # Unpacking happens before any size is known, so nothing packed is asked for or taken.
                    raise EngineFailed("the policy server's answer is compressed")
                return await _bounded(response)
        except TimeoutError as late:
            raise EngineFailed("the policy server did not answer in time") from late
        except (aiohttp.ClientError, OSError) as failed:
            raise EngineFailed("the policy server cannot be reached") from failed


class _Address:
    """Where the server listens."""

    def __init__(self, host: str, port: int, socket_path: str | None) -> None:
        self.host = host
        self.port = port
        self.socket_path = socket_path


def _address(url: str) -> _Address:
    parts = urlsplit(url)
    if parts.scheme == "unix" and parts.path.startswith("/") and not parts.netloc:
        return _Address("localhost", 80, parts.path)
    try:
        host, port = parts.hostname or "", parts.port
        loopback = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        host, port, loopback = "", None, False
    if parts.scheme != "http" or not loopback or port is None or parts.path not in ("", "/") or parts.query:
        raise OpaAddressRefused("expected unix:///path or http://127.0.0.1:port")
    return _Address(f"[{host}]" if ":" in host else host, port, None)


async def _bounded(response: aiohttp.ClientResponse) -> bytes:
    raw = bytearray()
    async for chunk in response.content.iter_any():
        raw += chunk
        if len(raw) > ANSWER_MAX_BYTES:
            raise EngineFailed(f"the policy server's answer is larger than {ANSWER_MAX_BYTES} bytes")
    return bytes(raw)


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
