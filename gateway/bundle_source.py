"""Asking a bundle service over the gate's own guarded connections.

Guarantees: one question goes to the configured address under the egress rules, without redirects; its answer costs at most the
question's seconds and bytes, whatever the service sends or does not send. Leaves judging the answer to ``bundles.client``.
"""

from __future__ import annotations

import asyncio
from typing import Final

from bundles.client_protocol import Fetched, Question
from bundles.errors import BundleRefused, BundleUnavailable
from bundles.service_protocol import DELTA_STATUS
from gateway.egress.dialer import UpstreamPool
from gateway.egress.errors import UpstreamTimeout
from gateway.egress.exchange import UpstreamResponse, UpstreamTimeouts
from gateway.errors import GateError

CONNECT_SECONDS: Final = 10.0
_SINGLE: Final = frozenset({"content-type", "etag", "tidegate-freshness", "tidegate-cosignatures"})


class BundleAddress:
    """One bundle's address at a service; a ``Fetch`` for the client."""

    def __init__(self, pool: UpstreamPool, url: str, token: str | None) -> None:
        self._pool = pool
        self._url = url
        self._token = token

    async def __call__(self, question: Question) -> Fetched:
        """See ``Fetch``."""
        try:
            response = await self._asked(question)
            headers = _headers(response)
            if response.status not in (200, DELTA_STATUS):
                await response.close(discard=response.status != 304)
                return Fetched(response.status, headers)
            async with asyncio.timeout(question.body_seconds):
                return Fetched(response.status, headers, await _body(response, question.body_max_bytes))
        except (TimeoutError, UpstreamTimeout) as late:
            raise BundleUnavailable("bundle_service_timeout", "the service did not answer in time") from late
        except GateError as failed:
            detail = getattr(failed, "detail", "") or str(failed)
            raise BundleUnavailable("bundle_service_unreachable", detail) from failed

    async def _asked(self, question: Question) -> UpstreamResponse:
        headers = question.headers
        if self._token is not None:
            headers = (*headers, ("Authorization", f"Bearer {self._token}"))
        timeouts = UpstreamTimeouts(
            connect_seconds=CONNECT_SECONDS,
            first_byte_seconds=question.head_seconds,
            between_bytes_seconds=question.body_seconds,
        )
        async with asyncio.timeout(CONNECT_SECONDS + question.head_seconds):
            return await self._pool.request("GET", self._url, headers, timeouts=timeouts)


def _headers(response: UpstreamResponse) -> dict[str, str]:
    """Names in lower case; raises ``bundle_service_answer`` when one that must stand alone stands twice."""
    found: dict[str, str] = {}
    for raw_name, value in response.headers:
        name = raw_name.lower()
        if name in _SINGLE and name in found:
            raise BundleUnavailable("bundle_service_answer", f"{raw_name} stands twice")
        found[name] = value.strip()
    return found


async def _body(response: UpstreamResponse, max_bytes: int) -> bytes:
    """The whole body, or ``bundle_too_large`` at the first piece past the limit."""
    pieces: list[bytes] = []
    size = 0
    async for piece in response.content:
        size += len(piece)
        if size > max_bytes:
            await response.close(discard=True)
            raise BundleRefused("bundle_too_large", f"the archive has more than {max_bytes} bytes")
        pieces.append(piece)
    return b"".join(pieces)
