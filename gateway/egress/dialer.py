"""Connections to upstreams: resolved once, checked, pinned, kept apart per credential.

Guarantees: a connection goes to the very address that was checked; requests leave exactly once and as given (no
cookies, redirects, proxies, resending or decompression); bodies stream both ways within fixed buffers; every phase has
a deadline; errors say whether anything was sent. Leaves retries to the flow and headers to `connectors`.

Uses aiohttp's client protocol and parser directly. Its `ClientSession` resends idempotent methods, keeps cookies,
follows redirects and normalises URLs, and its per-request objects cost more than the rest of this module.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

from yarl import URL

from gateway.egress.addresses import AddressClass, check_address
from gateway.egress.errors import UpstreamNotSent, UpstreamTimeout
from gateway.egress.exchange import Exchange, UpstreamProtocol, UpstreamResponse, UpstreamTimeouts
from gateway.egress.resolver import Resolver, SystemResolver, addresses_of
from gateway.egress.wire import Origin, split_url

_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
DEFAULT_TIMEOUTS = UpstreamTimeouts()


@dataclass(frozen=True, slots=True)
class PoolLimits:
    """How many connections a pool holds, and how long an unused one is trusted.

    A request that is not safe to repeat gets a fresh connection unless one was used a moment ago: an upstream that
    closes an idle connection just then would leave its outcome unknown.
    """

    connections_max: int = 128
    idle_max: int = 64
    idle_seconds: float = 15.0
    idle_unsafe_seconds: float = 1.0
    addresses_tried_max: int = 4


class UpstreamPool:
    """The connections of one (tenant, instance, credential)."""

    def __init__(
        self,
        allowed: frozenset[AddressClass],
        *,
        resolver: Resolver | None = None,
        ssl_context: ssl.SSLContext | None = None,
        limits: PoolLimits | None = None,
    ) -> None:
        self._allowed = allowed
        self._resolver: Resolver = resolver or SystemResolver()
        self._ssl_context = ssl_context
        self._limits = limits or PoolLimits()
        self._free = asyncio.Semaphore(self._limits.connections_max)
        self._idle: dict[Origin, deque[UpstreamProtocol]] = {}
        self._sweeper: asyncio.TimerHandle | None = None
        self._closed = False

    async def request(
        self,
        method: str,
        url: URL | str,
        headers: Sequence[tuple[str, str]],
        body: bytes | AsyncIterator[bytes] | None = None,
        timeouts: UpstreamTimeouts = DEFAULT_TIMEOUTS,
    ) -> UpstreamResponse:
        """Send one request once, and return when the head of its answer is there.

        `url` is absolute and already encoded; `headers` are text in latin-1. A body given in pieces goes out with the
        Content-Length among `headers`, or chunked. The response must be read to its end or closed.

        Raises `UpstreamNotSent`, `UpstreamFailed` or `UpstreamTimeout`, and the refusal `egress_forbidden`.
        """
        if self._closed:
            raise UpstreamNotSent("the gate is closing")
        origin, target = split_url(url if isinstance(url, str) else str(url))
        if self._free.locked():
            await self._acquire(timeouts)
        else:
            await self._free.acquire()
        protocol: UpstreamProtocol | None = None
        handed_over = False
        try:
            protocol = self._take(origin, method)
            if protocol is None:  # a protocol is a queue, and false while that is empty
                protocol = await self._connect(origin, timeouts)
            exchange = Exchange(protocol, origin, timeouts, lambda reusable: self._give(origin, protocol, reusable))
            response = await exchange.run(method, target, headers, body)
            handed_over = True
            return response
        finally:
            if not handed_over:
                self._give(origin, protocol, False)

    async def close(self) -> None:
        """Close every unused connection; running exchanges end with theirs."""
        self._closed = True
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None
        for waiting in self._idle.values():
            for protocol in waiting:
                protocol.close()
        self._idle.clear()
        await asyncio.sleep(0)  # lets the transports close

    async def _acquire(self, timeouts: UpstreamTimeouts) -> None:
        try:
            async with asyncio.timeout(timeouts.connect_seconds):
                await self._free.acquire()
        except TimeoutError as error:
            raise UpstreamTimeout("no connection to the upstream came free in time", sent=False) from error

    def _take(self, origin: Origin, method: str) -> UpstreamProtocol | None:
        waiting = self._idle.get(origin)
        if not waiting:
            return None
        now = asyncio.get_running_loop().time()
        longest = self._limits.idle_seconds if method in _SAFE else self._limits.idle_unsafe_seconds
        while waiting:
            protocol = waiting.pop()  # the one used last
            idle_seconds = now - protocol.idle_since
            if protocol.is_reusable():
                if idle_seconds <= min(longest, protocol.keep_alive_seconds or longest):
                    return protocol
                if idle_seconds <= self._limits.idle_seconds:
                    waiting.append(protocol)  # good enough for a request that may be repeated
                    return None
            protocol.close()
        return None

    def _give(self, origin: Origin, protocol: UpstreamProtocol | None, reusable: bool) -> None:
        self._free.release()
        if protocol is None:
            return
        waiting = self._idle.get(origin)
        if waiting is None:
            waiting = self._idle[origin] = deque()
        if self._closed or not reusable or not protocol.is_reusable():
            protocol.abort()
            return
        if len(waiting) >= self._limits.idle_max:
            waiting.popleft().close()  # unused for longest: worth least, above all to unsafe requests
        loop = asyncio.get_running_loop()
        protocol.idle_since = loop.time()
        waiting.append(protocol)
        if self._sweeper is None:
            self._sweeper = loop.call_later(self._limits.idle_seconds, self._sweep)

    def _sweep(self) -> None:
        """Close connections that nobody used for `idle_seconds`."""
        loop = asyncio.get_running_loop()
        oldest = loop.time() - self._limits.idle_seconds
        for origin, waiting in list(self._idle.items()):
            while waiting and (waiting[0].idle_since <= oldest or not waiting[0].is_reusable()):
                waiting.popleft().close()
            if not waiting:
                del self._idle[origin]
        self._sweeper = loop.call_later(self._limits.idle_seconds, self._sweep) if self._idle else None

    async def _connect(self, origin: Origin, timeouts: UpstreamTimeouts) -> UpstreamProtocol:
        try:
            async with asyncio.timeout(timeouts.connect_seconds):
                addresses = await addresses_of(self._resolver, origin.host, origin.port)
                for address in addresses:
                    check_address(address, self._allowed)
                return await self._dial(origin, addresses[: self._limits.addresses_tried_max])
        except TimeoutError as error:
            raise UpstreamTimeout("the upstream did not accept a connection in time", sent=False) from error

    async def _dial(self, origin: Origin, addresses: Sequence[str]) -> UpstreamProtocol:
        """Connect to the first of the checked addresses that accepts.

        **Security**: the address is dialled, never the name, so that a second answer of the resolver has no say; TLS is
        checked against the name.
        """
        loop = asyncio.get_running_loop()
        last: Exception | None = None
        for address in addresses:
            try:
                if origin.scheme == "https":
                    context = self._ssl_context or _default_ssl_context()
                    _, protocol = await loop.create_connection(
                        lambda: UpstreamProtocol(loop), address, origin.port, ssl=context, server_hostname=origin.host
                    )
                else:
                    _, protocol = await loop.create_connection(lambda: UpstreamProtocol(loop), address, origin.port)
            except ssl.SSLError as error:
                raise UpstreamNotSent("the upstream's TLS identity is not accepted") from error
            except TimeoutError:
                raise
            except OSError as error:
                last = error
                continue
            return protocol
        raise UpstreamNotSent("the upstream refuses connections") from last


class UpstreamPools:
    """One pool for each (tenant, instance, credential), so that no connection ever carries another one's state."""

    def __init__(self, *, resolver: Resolver | None = None, pools_max: int = 1_024) -> None:
        self._resolver = resolver
        self._pools_max = pools_max
        self._pools: dict[tuple[str, str, str], tuple[frozenset[AddressClass], UpstreamPool]] = {}
        self._retired: set[asyncio.Task[None]] = set()

    def pool(self, tenant: str, instance: str, credential: str, allowed: frozenset[AddressClass]) -> UpstreamPool:
        """The pool of a key, made when needed; another set of allowed classes makes a new one."""
        key = (tenant, instance, credential)
        entry = self._pools.get(key)
        if entry is not None and entry[0] == allowed:
            return entry[1]
        if entry is not None:
            self._retire(key)
        elif len(self._pools) >= self._pools_max:
            self._retire(next(iter(self._pools)))
        pool = UpstreamPool(allowed, resolver=self._resolver)
        self._pools[key] = (allowed, pool)
        return pool

    async def close(self) -> None:
        """Close every pool."""
        pools = [pool for _, pool in self._pools.values()]
        self._pools.clear()
        for pool in pools:
            await pool.close()
        if self._retired:
            await asyncio.wait(self._retired)

    def _retire(self, key: tuple[str, str, str]) -> None:
        _, pool = self._pools.pop(key)
        task = asyncio.get_running_loop().create_task(pool.close(), name="retire-upstream-pool")
        self._retired.add(task)
        task.add_done_callback(self._retired.discard)


@lru_cache(maxsize=1)
def _default_ssl_context() -> ssl.SSLContext:
    """System roots, TLS 1.2 at least, names checked, HTTP/1.1 only."""
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    return context
