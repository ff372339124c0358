"""The verification keys of the configured issuers, from files or URLs, kept fresh.

Guarantees: keys are answered from memory; a refresh is coalesced, rate-limited, bounded in size and all or nothing;
keys that could not be refreshed for too long end. Leaves reading to `keyset`, verification to `identity`, the network
to the function it is given.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from jwt.algorithms import AllowedPublicKeys

from gateway.edge.identity import IdentityVerifier, NeedsKeys, Subject
from gateway.edge.keyset import DOCUMENT_MAX_BYTES, KeySet, parse_key_set
from gateway.edge.problem import refusal
from gateway.errors import GateError, GateMisuse, GateUnavailable

Fetch = Callable[[str, int], Awaitable[bytes]]

_STALE_GENERATION: Final = -1
_LOG = logging.getLogger("tidegate.identity")


@dataclass(frozen=True, slots=True)
class JwksLimits:
    """How often keys are asked for, and how long they hold without an answer."""

    refresh_seconds: float = 300.0
    refresh_min_seconds: float = 10.0
    stale_max_seconds: float = 86_400.0
    fetch_seconds: float = 10.0


@dataclass(slots=True)
class _Issuer:
    source: str
    keys: KeySet = KeySet()
    generation: int = 0
    tried_at: float | None = None
    refreshed_at: float | None = None
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class JwksStore:
    """Key sets by issuer; a `KeySource` for the verifier.

    `sources` maps issuers to `file:PATH` or `https://…`; `fetch(url, max_bytes)` gets a URL; `clock` is monotonic.
    """

    def __init__(
        self,
        sources: Mapping[str, str],
        *,
        clock: Callable[[], float],
        fetch: Fetch | None = None,
        limits: JwksLimits | None = None,
    ) -> None:
        for issuer, source in sources.items():
            if not source.startswith(("file:", "https://")):
                raise GateMisuse(f"the keys of {issuer} come from file: or https:")
            if source.startswith("https://") and fetch is None:
                raise GateMisuse(f"the keys of {issuer} need a way to fetch them")
        self._issuers = {issuer: _Issuer(source) for issuer, source in sources.items()}
        self._clock = clock
        self._fetch = fetch
        self._limits = limits or JwksLimits()
        self._task: asyncio.Task[None] | None = None

    def key(self, issuer: str, kid: str | None, algorithm: str) -> AllowedPublicKeys | None:
        """See `KeySource`."""
        entry = self._issuers.get(issuer)
        return None if entry is None or self._is_stale(entry) else entry.keys.find(kid, algorithm)

    def generation(self, issuer: str) -> int:
        """See `KeySource`; keys that have ended are a generation of their own."""
        entry = self._issuers.get(issuer)
        return _STALE_GENERATION if entry is None or self._is_stale(entry) else entry.generation

    async def refresh(self, issuer: str, *, force: bool = False) -> None:
        """Read the keys of an issuer again, unless that was tried a moment ago.

        Raises `GateMisuse` for a key set that cannot be read and `GateUnavailable` when it cannot be got; the keys so
        far stay.
        """
        entry = self._issuers.get(issuer)
        if entry is None:
            raise GateMisuse("the issuer is not configured")
        async with entry.lock:
            now = self._clock()
            recently = entry.tried_at is not None and now - entry.tried_at < self._limits.refresh_min_seconds
            if recently and not force:
                return
            entry.tried_at = now
            keys = await self._read(entry.source)
            if keys != entry.keys:
                entry.keys = keys
                entry.generation += 1
            entry.refreshed_at = self._clock()

    async def start(self) -> None:
        """Load every key set, then keep them fresh in the background until `close`.

        Raises what `refresh` raises for a file; a URL that does not answer yet only logs, its issuer's tokens are
        refused until it does.
        """
        for issuer, entry in self._issuers.items():
            try:
                await self.refresh(issuer, force=True)
            except GateUnavailable as error:
                if entry.source.startswith("file:"):
                    raise
                _LOG.warning("keys of %s are not there yet: %s", issuer, error)
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._keep_fresh(), name="refresh-issuer-keys")

    async def close(self) -> None:
        """Stop refreshing."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])

    async def _keep_fresh(self) -> None:
        while True:
            await asyncio.sleep(self._limits.refresh_seconds)
            for issuer in self._issuers:
                try:
                    await self.refresh(issuer)
                except GateError as error:
                    _LOG.warning("keys of %s were not refreshed: %s", issuer, error)

    def _is_stale(self, entry: _Issuer) -> bool:
        if entry.refreshed_at is None:
            return True
        return self._clock() - entry.refreshed_at > self._limits.stale_max_seconds

    async def _read(self, source: str) -> KeySet:
        if source.startswith("file:"):
            return await asyncio.to_thread(read_key_set, Path(source.removeprefix("file:")))
        if self._fetch is None:
            raise GateMisuse("there is no way to fetch keys")
        try:
            async with asyncio.timeout(self._limits.fetch_seconds):
                return parse_key_set(await self._fetch(source, DOCUMENT_MAX_BYTES))
        except TimeoutError as error:
            raise GateUnavailable("the key set did not arrive in time") from error


def read_key_set(path: Path) -> KeySet:
    """The key set in a file. Blocks on the disk; raises `GateUnavailable` when it cannot be read, `GateMisuse` when it is none."""
    try:
        with path.open("rb") as file:
            raw = file.read(DOCUMENT_MAX_BYTES + 1)
    except OSError as error:
        raise GateUnavailable(f"the key set {path} cannot be read: {error.strerror}") from error
    try:
        return parse_key_set(raw)
    except GateMisuse as error:
        raise GateMisuse(f"{path}: {error}") from error


async def identify(verifier: IdentityVerifier, keys: JwksStore, token: str, now: float) -> Subject:
    """Verify a token; if its key is unknown, refresh the issuer's keys once and try again.

    Raises a refusal `identity_invalid`. Security: unknown key ids cost at most one refresh per `refresh_min_seconds`.
    """
    try:
        return verifier.verify(token, now)
    except NeedsKeys as needed:
        try:
            await keys.refresh(needed.issuer)
        except GateError as error:
            _LOG.warning("keys of %s were not refreshed: %s", needed.issuer, error)
    try:
        return verifier.verify(token, now)
    except NeedsKeys as error:
        raise refusal("identity_invalid", "the token is signed with a key that its issuer does not publish") from error
