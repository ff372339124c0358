"""The bundle service: OPA's bundle API with freshness statements, and publishing that never goes back.

Guarantees: every 200 and 304 about a bundle carries a statement signed at that moment over exactly what is served; a bundle
is served only after it was verified as a gate would, at every start anew, and kept durably; a lower sequence is never
published; a long poll ends with the first news; only who asks for a delta gets one, with the same statement. Leaves the
listener, its limits and TLS to whoever hands requests in.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import os
import stat
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

from bundles.archive import ArchiveLimits
from bundles.canonical import JsonValue, sha256_hex
from bundles.errors import BundleMisuse, BundleRefused, BundleUnavailable
from bundles.freshness import FRESHNESS_HEADER, BundleIdentity, OnlineKey, sign_statement
from bundles.keys import load_private_key, load_verifying_key, public_pem
from bundles.service_config import EVERY_BUNDLE, ServedBundle, ServiceDocument
from bundles.service_deltas import DeltaDesk, OfferedDelta
from bundles.service_protocol import (
    BUNDLE_TYPE,
    COSIGNATURES_HEADER,
    DELTA_MANIPULATION,
    DELTA_STATUS,
    DELTA_TYPE,
    GZIP_TYPE,
    ServiceAnswer,
    ServiceRequest,
    asks_for_delta,
    decode_cosignatures,
    encode_cosignatures,
    etag_of,
    json_answer,
    names_etag,
    problem,
    wait_seconds,
)
from bundles.service_shelf import Publication, Shelf, Shelved, Shelves
from bundles.service_store import DirectoryShelves
from bundles.trusted_set import TrustedBundle, TrustedKey, TrustPolicy, VerifyBundle, verify_bundle

WAITERS_MAX_COUNT: Final = 4096
TOKEN_MIN_BYTES: Final = 24
TOKEN_FILE_MAX_BYTES: Final = 4096
BUNDLES_PREFIX: Final = "/bundles/"
HISTORY_PREFIX: Final = "/history/"

Say = Callable[[str, Mapping[str, object]], None]


@dataclass(slots=True)
class _Entry:
    """One address: what it accepts, where it lies, what it serves, and who waits for news of it."""

    served: ServedBundle
    trust: TrustPolicy
    shelf: Shelf
    current: Shelved | None
    publishing: asyncio.Lock = field(default_factory=asyncio.Lock)
    news: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(frozen=True, slots=True)
class _Grant:
    name: str
    digest: bytes
    publishes: bool
    bundles: frozenset[str]

    def covers(self, bundle_id: str) -> bool:
        return EVERY_BUNDLE in self.bundles or bundle_id in self.bundles


class BundleService:
    """Answers requests; made by :func:`open_service`. Belongs to one event loop."""

    def __init__(
        self,
        entries: Mapping[str, _Entry],
        grants: tuple[_Grant, ...],
        online: OnlineKey,
        *,
        clock: Callable[[], float] = time.time,
        say: Say,
        verify: VerifyBundle = verify_bundle,
    ) -> None:
        self._entries = dict(entries)
        self._grants = grants
        self._online = online
        self._clock = clock
        self._say = say
        self._verify = verify
        self._waiting = 0
        self._closing = False
        self._statements: dict[str, tuple[int, str, str]] = {}
        self._deltas = DeltaDesk(online, clock, say)

    @property
    def waiting(self) -> int:
        """How many long polls are held."""
        return self._waiting

    async def handle(self, request: ServiceRequest) -> ServiceAnswer:
        """Answer one request; whatever is wrong is a problem document."""
        path = request.path
        if path == "/health/live":
            return json_answer({"live": True})
        if path.startswith(HISTORY_PREFIX):
            return self._history(request, path.removeprefix(HISTORY_PREFIX))
        if not path.startswith(BUNDLES_PREFIX):
            return problem("not_found")
        bundle_id = path.removeprefix(BUNDLES_PREFIX)
        if request.method in ("GET", "HEAD"):
            return await self._read(request, bundle_id)
        if request.method == "PUT":
            return await self._publish(request, bundle_id)
        return problem("method_not_allowed", "GET, HEAD and PUT are allowed here")

    def close(self) -> None:
        """Answer every long poll at once, so that the listener can end."""
        self._closing = True
        self._deltas.close()
        for entry in self._entries.values():
            entry.news.set()

    # -- reading ------------------------------------------------------------------------------------------------------

    async def _read(self, request: ServiceRequest, bundle_id: str) -> ServiceAnswer:
        entry, refused = self._readable(request, bundle_id)
        if entry is None:
            return refused
        waits = wait_seconds(request.headers.get("prefer", ""))
        condition = request.headers.get("if-none-match")
        if condition is not None and waits and names_etag(condition, _digest(entry)):
            await self._news(entry, waits)
        shelved = entry.current
        if shelved is None:
            return problem("not_found", "nothing that this service vouches for has been published here")
        delta = await self._delta(request, entry, shelved)
        if entry.current is not None and entry.current is not shelved:
            # While the delta was made something newer came: nothing may be said to be current but that.
            shelved, delta = entry.current, None
        if entry.shelf.doubt is not None:
            return problem("storage_unconfirmed", entry.shelf.doubt)
        unchanged = condition is not None and names_etag(condition, shelved.publication.digest)
        headers = self._headers(entry, shelved, waits)
        if unchanged:
            return ServiceAnswer(304, headers)
        if delta is not None:
            about = (("Content-Type", DELTA_TYPE), ("IM", DELTA_MANIPULATION), ("Delta-Base", etag_of(delta.base)))
            return ServiceAnswer(DELTA_STATUS, (*about, *headers), delta.envelope)
        kind = BUNDLE_TYPE if waits is not None else GZIP_TYPE
        return ServiceAnswer(200, (("Content-Type", kind), *headers), shelved.archive)

    async def _delta(self, request: ServiceRequest, entry: _Entry, shelved: Shelved) -> OfferedDelta | None:
        """The way from what the client has to what is served, for who asks for that and has something known here."""
        condition = request.headers.get("if-none-match", "")
        if request.method != "GET" or not asks_for_delta(request.headers.get("a-im", "")):
            return None
        if names_etag(condition, shelved.publication.digest):
            return None
        return await self._deltas.offered(entry.served, condition, shelved)

    async def _news(self, entry: _Entry, seconds: int) -> None:
        """Wait until something is published, at most ``seconds``; past the limit of waiters nobody waits."""
        if self._waiting >= WAITERS_MAX_COUNT or self._closing:
            return
        self._waiting += 1
        try:
            async with asyncio.timeout(seconds):
                await entry.news.wait()
        except TimeoutError:
            return  # No news: the answer says so.
        finally:
            self._waiting -= 1

    def _headers(self, entry: _Entry, shelved: Shelved, waits: int | None) -> tuple[tuple[str, str], ...]:
        headers = [
            ("ETag", etag_of(shelved.publication.digest)),
            ("Cache-Control", "no-store"),
            (FRESHNESS_HEADER, self._statement(entry, shelved.publication)),
        ]
        if shelved.cosignatures is not None:
            headers.append((COSIGNATURES_HEADER, encode_cosignatures(shelved.cosignatures)))
        if waits is not None:
            headers.append(("Preference-Applied", f"wait={waits}"))
        return tuple(headers)

    def _statement(self, entry: _Entry, publication: Publication) -> str:
        now = int(self._clock())
        made = self._statements.get(entry.served.id)
        if made is not None and made[:2] == (now, publication.digest):
            return made[2]
        about = BundleIdentity(entry.served.name, publication.digest, publication.sequence)
        online = self._online
        token = sign_statement(about, key=online.key, keyid=online.keyid, now=now, ttl_seconds=online.ttl_seconds)
        self._statements[entry.served.id] = (now, publication.digest, token)
        return token

    def _history(self, request: ServiceRequest, bundle_id: str) -> ServiceAnswer:
        entry, refused = self._readable(request, bundle_id)
        if entry is None:
            return refused
        if request.method != "GET":
            return problem("method_not_allowed", "only GET is allowed here")
        items: list[JsonValue] = [publication.document() for publication in entry.shelf.history]
        return json_answer({"items": items, "next": None})

    # -- publishing ---------------------------------------------------------------------------------------------------

    async def _publish(self, request: ServiceRequest, bundle_id: str) -> ServiceAnswer:
        grant, refused = self._granted(request)
        if grant is None:
            return refused
        entry = self._entries.get(bundle_id)
        if entry is None or not grant.covers(bundle_id):
            return problem("not_found")
        if not grant.publishes:
            return problem("publish_forbidden")
        archive = await request.read_body()
        async with entry.publishing:
            try:
                await self._adopt(entry)
                conflict = _precondition(request.headers, _digest(entry))
                if conflict is not None:
                    return conflict
                envelope = decode_cosignatures(request.headers.get(COSIGNATURES_HEADER.lower()))
                return await self._accept(entry, archive, envelope, grant.name)
            except BundleRefused as fault:
                kind = _CONFLICTS.get(fault.code, "bundle_refused")
                self._say("publish_refused", {"bundle": bundle_id, "publisher": grant.name, "code": fault.code})
                return problem(kind, fault.detail, code=fault.code)
            except BundleUnavailable as fault:
                self._say("publish_failed", {"bundle": bundle_id, "publisher": grant.name, "error": str(fault)})
                return problem(
                    "storage_failed", _UNKNOWN if fault.code == _IN_DOUBT else "the bundle was not published"
                )

    async def _accept(self, entry: _Entry, archive: bytes, envelope: bytes | None, publisher: str) -> ServiceAnswer:
        known = entry.current
        if known is not None and known.publication.digest == f"sha256:{sha256_hex(archive)}":
            return json_answer({**known.publication.document(), "published": False})
        trusted = await asyncio.to_thread(self._verified, entry, archive, envelope)
        publication = Publication(
            digest=trusted.digest,
            sequence=trusted.sequence,
            epoch=trusted.epoch,
            revision=trusted.revision,
            published_at=int(self._clock()),
            publisher=publisher,
            size_bytes=len(archive),
        )
        self._serve(entry, await asyncio.to_thread(entry.shelf.put, publication, archive, envelope))
        self._say("published", {"bundle": entry.served.id, **publication.document()})
        return json_answer({**publication.document(), "published": True}, status=201 if known is None else 200)

    def _serve(self, entry: _Entry, shelved: Shelved) -> None:
        """Make this what is served, and wake who waits for it."""
        if entry.current is not None:
            self._deltas.remember(entry.served, entry.current)
        entry.current = shelved
        waiting, entry.news = entry.news, asyncio.Event()
        waiting.set()

    @property
    def bundle_ids(self) -> tuple[str, ...]:
        """Every address."""
        return tuple(self._entries)

    async def refresh(self, bundle_id: str) -> bool:
        """Serve what another service on the same storage published meanwhile; whether there was any.

        Raises :class:`BundleError`: then what was served before still is, until the shelf is in doubt.
        """
        entry = self._entries[bundle_id]
        async with entry.publishing:
            return await self._adopt(entry)

    async def _adopt(self, entry: _Entry) -> bool:
        def accept(found: Shelved) -> None:
            try:
                self._verified(entry, found.archive, found.cosignatures)
            except BundleRefused as fault:
                raise BundleUnavailable(
                    "storage_refused", f"another service published what fails here: {fault}"
                ) from fault

        found = await asyncio.to_thread(entry.shelf.refresh, accept)
        if found is not None:
            self._serve(entry, found)
            self._say("adopted", {"bundle": entry.served.id, **found.publication.document()})
        return found is not None

    def _verified(self, entry: _Entry, archive: bytes, envelope: bytes | None) -> TrustedBundle:
        """Check as a gate would, and that the sequence is above every one published in this epoch. Blocks."""
        highest = entry.shelf.highest(entry.trust.epoch)
        now = int(self._clock())
        trusted = self._verify(archive, entry.trust, now=now, highest_sequence=highest, cosignatures=envelope)
        if trusted.sequence == highest:
            raise BundleRefused("bundle_sequence_reused", f"sequence {highest} was published with another content")
        return trusted

    # -- who may ------------------------------------------------------------------------------------------------------

    def _readable(self, request: ServiceRequest, bundle_id: str) -> tuple[_Entry | None, ServiceAnswer]:
        """The entry, or the answer for who may not read it: absent and forbidden look alike."""
        entry = self._entries.get(bundle_id)
        if "authorization" not in request.headers and entry is not None and entry.served.open:
            return entry, problem("not_found")
        grant, refused = self._granted(request)
        if grant is None:
            return None, refused
        if entry is None or not (grant.covers(bundle_id) or entry.served.open):
            return None, problem("not_found")
        return entry, refused

    def _granted(self, request: ServiceRequest) -> tuple[_Grant | None, ServiceAnswer]:
        """Whose token this is.

        **Security**: digests of equal length are compared in constant time, all of them, so time tells nothing of a token.
        """
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            return None, problem("token_missing")
        digest = hashlib.sha256(token.strip().encode("utf-8", "surrogateescape")).digest()
        found = [grant for grant in self._grants if hmac.compare_digest(grant.digest, digest)]
        return (found[0] if found else None), problem("token_invalid")


_CONFLICTS: Final[Mapping[str, str]] = {
    "bundle_rollback": "publish_conflict",
    "bundle_sequence_reused": "publish_conflict",
    "precondition_failed": "precondition_failed",
}
_IN_DOUBT: Final = "storage_outcome_unknown"
_UNKNOWN: Final = "nobody knows whether the bundle was published: look at the history, then publish again"


def _digest(entry: _Entry) -> str | None:
    return entry.current.publication.digest if entry.current is not None else None


def _precondition(headers: Mapping[str, str], digest: str | None) -> ServiceAnswer | None:
    """RFC 9110 section 13.2.2: ``If-Match`` first, then ``If-None-Match``."""
    matches, differs = headers.get("if-match"), headers.get("if-none-match")
    if matches is not None and not names_etag(matches, digest):
        return problem("precondition_failed", f"served now: {digest or 'nothing'}")
    if differs is not None and names_etag(differs, digest):
        return problem("precondition_failed", f"served now: {digest}")
    return None


def open_service(
    document: ServiceDocument,
    base_dir: Path,
    *,
    say: Say,
    clock: Callable[[], float] = time.time,
    shelves: Shelves | None = None,
    verify: VerifyBundle = verify_bundle,
) -> BundleService:
    """Read keys, tokens and what was published before: in the configured directory, unless ``shelves`` are given. Blocks.

    What the configured keys, epoch or threshold refuse is not served (``say`` is told) until something newer is published.

    ``verify`` is called in threads; one that works elsewhere keeps large bundles from holding up the event loop.

    Raises :class:`BundleMisuse` (``key_exposed``, ``token_weak``, ``freshness_key_shared``) and
    :class:`BundleUnavailable` (``storage_damaged``, ``key_unavailable``).
    """
    online = load_private_key(_path(base_dir, document.freshness.key))
    if shelves is None:
        shelves = DirectoryShelves(base_dir / document.directory, history_max_count=document.history_max_count)
    entries: dict[str, _Entry] = {}
    for served in document.bundles:
        trust = _trust(served, base_dir)
        if public_pem(online).strip() in (key.public_pem.strip() for key in trust.keys):
            raise BundleMisuse("freshness_key_shared", f"{served.id}: the online key may not sign bundles too")
        shelf = shelves.shelf(served)
        current = _vouched(served, trust, shelf.open(), partial(verify, now=int(clock())), say)
        entries[served.id] = _Entry(served, trust, shelf, current)
    grants = tuple(
        _Grant(
            token.name, _token_digest(_path(base_dir, token.token)), token.may == "publish", frozenset(token.bundles)
        )
        for token in document.tokens
    )
    if len({grant.digest for grant in grants}) != len(grants):
        raise BundleMisuse("token_shared", "two tokens are the same")
    freshness = OnlineKey(online, document.freshness.keyid, document.freshness.ttl_seconds)
    return BundleService(entries, grants, freshness, clock=clock, say=say, verify=verify)


def _vouched(
    served: ServedBundle, trust: TrustPolicy, found: Shelved | None, verify: Callable[..., object], say: Say
) -> Shelved | None:
    """What was published before, if the configuration of today trusts it too.

    **Security**: after a key was stolen the service starts with another key and epoch; a statement about the old bundle
    would keep the thief's one in force wherever the old key is still trusted. Sequences are kept, so they only rise.
    """
    if found is None:
        return None
    try:
        verify(found.archive, trust, highest_sequence=0, cosignatures=found.cosignatures)
    except BundleRefused as fault:
        about = {"digest": found.publication.digest, "sequence": found.publication.sequence}
        say("not_served", {"bundle": served.id, **about, "code": fault.code, "error": fault.detail})
        return None
    return found


def archive_max_bytes() -> int:
    """The largest archive that is taken."""
    return ArchiveLimits().archive_max_bytes


def _trust(served: ServedBundle, base_dir: Path) -> TrustPolicy:
    keys = []
    for key in served.trusted_keys:
        _, pem = load_verifying_key(_path(base_dir, key.key))
        keys.append(TrustedKey(key.keyid, key.algorithm, key.scope, pem))
    return TrustPolicy(served.name, served.audience, tuple(keys), served.threshold, served.epoch)


def _path(base_dir: Path, reference: str) -> Path:
    return base_dir / reference.removeprefix("file:")


def _token_digest(path: Path) -> bytes:
    """The digest of the token in a file that only its owner may read."""
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            token = file.read(TOKEN_FILE_MAX_BYTES).strip()
    except OSError as missing:
        raise BundleUnavailable("token_unavailable", f"{path}: {missing.strerror}") from missing
    if stat.S_IMODE(mode) & 0o077:
        raise BundleMisuse("key_exposed", f"{path} is readable by other users; chmod 600 it")
    if len(token) < TOKEN_MIN_BYTES:
        raise BundleMisuse("token_weak", f"{path}: a token has at least {TOKEN_MIN_BYTES} characters")
    return hashlib.sha256(token).digest()
