"""The session with an OPA server: opa-python-client with its connections replaced.

Guarantees: nothing is asked twice, no cookie is kept, no answer is unpacked or read beyond its bound, every question ends
within its deadline. Loaded only where an OPA server is asked, because the library brings much along. Leaves to `opa_server`
what an answer is worth.
"""

from __future__ import annotations

import aiohttp
from opa_client.opa_async import AsyncOpaClient

from pdp.errors import EngineErred, EngineFailed
from pdp.opa_address import OpaAddress

ANSWER_MAX_BYTES = 2 << 20
CONNECTIONS_MAX_COUNT = 64
KEEPALIVE_SECONDS = 15.0
_HEADERS = {"Content-Type": "application/json", "Accept-Encoding": "identity"}


class OpaSession(AsyncOpaClient):  # type: ignore[misc]  # the library carries no types
    """The client library with its session replaced: Unix socket or loopback, no cookies, no retries."""

    def __init__(self, address: OpaAddress, deadline_seconds: float) -> None:
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


async def _bounded(response: aiohttp.ClientResponse) -> bytes:
    raw = bytearray()
    async for chunk in response.content.iter_any():
        raw += chunk
        if len(raw) > ANSWER_MAX_BYTES:
            raise EngineFailed(f"the policy server's answer is larger than {ANSWER_MAX_BYTES} bytes")
    return bytes(raw)
