"""Handing one upload to a collector over the gate's guarded connections.

Guarantees: an upload counts as taken only on a 2xx answer; everything else raises and says whether a smaller one might be
taken. Redirects are never followed. Leaves when to try again to the exporter.
"""

from __future__ import annotations

import asyncio
import re
from typing import Final

from gateway.egress.dialer import UpstreamPool
from gateway.egress.exchange import UpstreamTimeouts
from gateway.errors import GateError, GateUnavailable

EXCHANGE_SECONDS: Final = 60.0
_SECONDS = re.compile(r"[0-9]{1,6}")


class DeliveryFailed(GateUnavailable):
    """The collector did not take it; `retry_after_seconds` is what it asked for, `too_large` what it complained of."""

    def __init__(self, code: str, detail: str, *, retry_after_seconds: float | None = None) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail
        self.retry_after_seconds = retry_after_seconds

    @property
    def too_large(self) -> bool:
        """Whether a smaller upload might be taken."""
        return self.code == "collector_status_413"


class CollectorClient:
    """One collector: POST below its address, with its token."""

    def __init__(self, pool: UpstreamPool, service: str, token: str | None) -> None:
        self._pool = pool
        self._service = service
        self._token = token

    async def post(self, path: str, body: bytes, *, compressed: bool) -> None:
        """Hand one document over. Raises `DeliveryFailed`."""
        headers = [
            ("Content-Type", "application/json"),
            ("Content-Length", str(len(body))),
            ("Accept", "*/*"),
            ("User-Agent", "tidegate"),
        ]
        if compressed:
            headers.append(("Content-Encoding", "gzip"))
        if self._token is not None:
            headers.append(("Authorization", f"Bearer {self._token}"))
        timeouts = UpstreamTimeouts(first_byte_seconds=EXCHANGE_SECONDS / 2, between_bytes_seconds=EXCHANGE_SECONDS / 2)
        try:
            async with asyncio.timeout(EXCHANGE_SECONDS):
                response = await self._pool.request("POST", self._service + path, headers, body, timeouts)
                await response.close(discard=True)
        except TimeoutError as late:
            raise DeliveryFailed("collector_timeout", "the collector did not answer in time") from late
        except GateError as failed:
            detail = getattr(failed, "detail", "") or str(failed)
            raise DeliveryFailed("collector_unreachable", detail) from failed
        if not 200 <= response.status < 300:
            asked_for = _retry_after(response.headers)
            detail = f"the collector answered {response.status}"
            raise DeliveryFailed(f"collector_status_{response.status}", detail, retry_after_seconds=asked_for)


def _retry_after(headers: tuple[tuple[str, str], ...]) -> float | None:
    for name, value in headers:
        if name.lower() == "retry-after" and _SECONDS.fullmatch(value.strip()):
            return float(value)
    return None
