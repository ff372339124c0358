"""Small documents from URLs of the configuration (key sets), over the same guarded connections as everything else."""

from __future__ import annotations

from gateway.egress.dialer import UpstreamPool
from gateway.egress.errors import UpstreamFailed


async def fetch_document(pool: UpstreamPool, url: str, max_bytes: int) -> bytes:
    """The body of a 200 answer to a GET, at most `max_bytes`; redirects are failures.

    Raises `UpstreamError` and the refusal `egress_forbidden`.
    """
    response = await pool.request("GET", url, (("Accept", "application/json"), ("User-Agent", "tidegate")))
    if response.status != 200:
        await response.close(discard=True)
        raise UpstreamFailed(f"the document's server answered {response.status}")
    return await response.read(max_bytes)
