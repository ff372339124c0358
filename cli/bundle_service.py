"""``tidegate bundle serve|publish|cosign|freshness-key`` and ``inspect --remote``: bundles between machines.

Thin: the service is ``bundles.service``; here are the options, the listener and the words.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import typer

from bundles.archive import read_archive
from bundles.build import check_rebuild, inspect_bundle
from bundles.canonical import sha256_hex
from bundles.claims import SIGNATURES_FILE
from bundles.compiler import find_opa
from bundles.content import read_content
from bundles.dsse import ENVELOPE_MAX_BYTES, ENVELOPE_SUFFIX, cosign, read_envelope
from bundles.errors import BundleMisuse, BundleRefused, BundleUnavailable
from bundles.freshness import FRESHNESS_HEADER, STATEMENT_MAX_BYTES
from bundles.jws import parse_jws
from bundles.keys import generate_signing_key, load_private_key, public_pem
from bundles.sequence import write_durably
from bundles.service import archive_max_bytes, open_service
from bundles.service_client import RemoteBundle, read_token
from bundles.service_config import ServiceDocument, load_service_config
from bundles.service_following import StorageFollower
from bundles.service_storage import open_shelves
from bundles.service_store import only_process
from cli.bundle_errors import guarded
from cli.output import JSON_OPTION, emit, shown

if TYPE_CHECKING:
    from aiohttp import web

    from bundles.service import BundleService, Say
    from bundles.trusted_set import VerifyBundle
    from gateway.edge.answer import Answer
    from gateway.operations.log import LineLog

GRACE_SECONDS: Final = 5.0
CONFIG_MAX_BYTES: Final = 1 << 20

SERVICE_CONFIG: Final = typer.Option(Path("bundle-service.yaml"), "--config", help="The service's configuration.")
ARCHIVE: Final = typer.Argument(..., help="The bundle archive.", dir_okay=False)
TO: Final = typer.Option(..., "--to", help="The bundle's address, https://…/bundles/NAME.")
TOKEN_FILE: Final = typer.Option(None, "--token-file", help="File with the service's token.", dir_okay=False)
COSIGNATURES: Final = typer.Option(None, "--cosignatures", help="Default: ARCHIVE.dsse.json, if it is there.")
KEY: Final = typer.Option(..., "--key", help="The private signing key (PEM, 0600).", dir_okay=False)
KEYID: Final = typer.Option(..., "--keyid", help="The key's name in the gateways' configuration.")
NAME: Final = typer.Option("main", "--name", help="The bundle's name in the gateways' configuration.")
OUT: Final = typer.Option(..., "--out", help="Where the private key goes; the public half beside it.", dir_okay=False)


def serve(config: Path = SERVICE_CONFIG, as_json: bool = JSON_OPTION) -> None:
    """Serve signed bundles with freshness statements, by OPA's bundle API. SIGTERM and SIGINT stop it."""
    document = guarded(lambda: load_service_config(_bounded(config, CONFIG_MAX_BYTES)), as_json)

    def work() -> None:
        shared = document.storage is not None
        with contextlib.nullcontext() if shared else only_process(config.parent / document.directory):
            asyncio.run(_serve(document, config.parent))

    guarded(work, as_json)


async def _serve(document: ServiceDocument, base_dir: Path) -> None:
    from gateway.edge.limits import EdgeLimits
    from gateway.edge.server import start_server
    from gateway.operations.edge_refusals import EdgeRefusals
    from gateway.operations.log import LineLog
    from pdp.bundle_verifier import BundleVerifier

    log = LineLog(sys.stdout.buffer)
    verifier = BundleVerifier()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    try:

        def say(what: str, fields: Mapping[str, object]) -> None:
            log.line("bundle_service", {"what": what, **fields})

        service = await asyncio.to_thread(_opened, document, base_dir, say, verifier.verify)
        host, port = document.endpoint
        limits = EdgeLimits(body_max_bytes=archive_max_bytes())
        try:
            desk = _Desk(service, limits.body_max_bytes, frozenset(document.hosts), log)
            told = EdgeRefusals("bundle_service", lambda _: None, partial(say, "refused"), time.monotonic)
            server = await start_server(desk.handle, host, port, limits, told)
        except OSError as refused:
            raise BundleUnavailable("listen_failed", f"{document.listen}: {refused.strerror}") from refused
        say("listening", {"host": host, "port": server.port})
        try:
            await _until(stop, service, document, say)
        finally:
            service.close()
            await server.close(GRACE_SECONDS)
    finally:
        verifier.close()
        await asyncio.to_thread(log.close)


def _opened(document: ServiceDocument, base_dir: Path, say: Say, verify: VerifyBundle) -> BundleService:
    """The service on the configured storage. Blocks."""
    from gateway.connectors.credentials import CredentialError, SecretReader

    reader = SecretReader(os.environ, base_dir)

    def read_secret(reference: str) -> str:
        try:
            return reader.read(reference)
        except CredentialError as refused:
            raise BundleMisuse(refused.code, refused.detail) from refused

    shelves = open_shelves(document, base_dir, read_secret=read_secret, say=say)
    return open_service(document, base_dir, say=say, shelves=shelves, verify=verify)


async def _until(stop: asyncio.Event, service: BundleService, document: ServiceDocument, say: Say) -> None:
    """Follow a storage that others write too, until it is time to stop; a follower that fails ends the service."""
    if document.storage is None:
        await stop.wait()
        return
    follower = StorageFollower(service, refresh_seconds=document.storage.refresh_seconds, say=say)
    following = asyncio.create_task(follower.run(), name="storage-follower")
    stopping = asyncio.create_task(stop.wait(), name="stop")
    try:
        await asyncio.wait({following, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if following.done():
            following.result()
    finally:
        for task in (following, stopping):
            task.cancel()


class _Desk:
    """Hands requests of the listener to the service."""

    def __init__(self, service: BundleService, body_max_bytes: int, hosts: frozenset[str], log: LineLog) -> None:
        self._service = service
        self._body_max_bytes = body_max_bytes
        self._hosts = hosts
        self._log = log

    async def handle(self, request: web.BaseRequest) -> Answer:
        """Answer one request; the listener answers what it refuses itself."""
        from bundles.service_protocol import ServiceRequest
        from gateway.edge.answer import Answer
        from gateway.edge.body import admit_host, read_body, request_head
        from gateway.edge.headers import check_head

        head = request_head(request)
        admit_host(request, head.headers, self._hosts)
        check_head(head)
        asked = ServiceRequest(
            head.method, head.target.path, dict(head.headers), lambda: read_body(request, self._body_max_bytes)
        )
        given = await self._service.handle(asked)
        if given.status >= 400:
            self._log.line("bundle_service", {"what": "refused", "status": given.status, "path": head.target.path})
        return Answer(given.status, given.headers, given.body)


def publish(
    archive: Path = ARCHIVE,
    to: str = TO,
    token_file: Path | None = TOKEN_FILE,
    cosignatures: Path | None = COSIGNATURES,
    as_json: bool = JSON_OPTION,
) -> None:
    """Publish an archive, unless somebody else published meanwhile or it is not newer."""

    def work() -> dict[str, Any]:
        raw = _bounded(archive, archive_max_bytes())
        envelope = envelope_of(archive, cosignatures)
        remote = RemoteBundle(to, read_token(token_file) if token_file is not None else None)
        served = remote.read(head_only=True)
        replaces = served.headers.get("etag") if served is not None else None
        answer = remote.publish(raw, envelope, replaces=replaces)
        return {"status": answer.status, **_published(answer.body)}

    done = guarded(work, as_json)
    emit(
        as_json,
        done,
        lambda console: console.print(f"Published {shown(archive)}: sequence {done['sequence']}, {done['digest']}"),
    )


def cosign_command(
    archive: Path = ARCHIVE, key: Path = KEY, keyid: str = KEYID, name: str = NAME, as_json: bool = JSON_OPTION
) -> None:
    """Add a co-signature to ARCHIVE.dsse.json, after the module came out of the archive's own Rego again."""

    def work() -> dict[str, Any]:
        raw = _bounded(archive, archive_max_bytes())
        files = read_archive(raw)
        files.pop(SIGNATURES_FILE, None)
        check_rebuild(read_content(files), opa=find_opa())
        digest = f"sha256:{sha256_hex(raw)}"
        place = Path(f"{archive}{ENVELOPE_SUFFIX}")
        existing = _bounded(place, ENVELOPE_MAX_BYTES) if place.exists() else None
        envelope = cosign(name, digest, key=load_private_key(key), keyid=keyid, existing=existing)
        write_durably(place, envelope)
        signed = [known for known, _ in read_envelope(envelope).unverified_signatures]
        return {"path": str(place), "digest": digest, "keyids": signed}

    done = guarded(work, as_json)
    emit(as_json, done, lambda console: console.print(f"{shown(done['path'])}: {shown(', '.join(done['keyids']))}"))


def freshness_key(out: Path = OUT, as_json: bool = JSON_OPTION) -> None:
    """Make the online key of a bundle service; gateways get the public half as a freshness key."""

    def work() -> dict[str, Any]:
        public = out.with_suffix(".pub.pem")
        key = generate_signing_key(out)
        write_durably(public, public_pem(key))
        return {"private": str(out), "public": str(public), "algorithm": "ES256"}

    done = guarded(work, as_json)
    emit(as_json, done, lambda console: console.print(f"{shown(done['private'])}, {shown(done['public'])}"))


def inspect_remote(url: str, token_file: Path | None) -> dict[str, Any]:
    """What a service serves: headers, the statement and the archive's content; nothing of it was verified."""
    answer = RemoteBundle(url, read_token(token_file) if token_file is not None else None).read()
    if answer is None:
        raise BundleRefused("not_found", f"nothing is served at {url}")
    return {**inspect_bundle(answer.body), "remote": url, "etag": answer.headers.get("etag"), **_stated(answer.headers)}


def _stated(headers: Mapping[str, str]) -> dict[str, Any]:
    token = headers.get(FRESHNESS_HEADER.lower())
    if token is None:
        return {"freshness": None}
    jws = parse_jws(token, payload_max_bytes=STATEMENT_MAX_BYTES)
    ends = jws.unverified_payload.get("exp")
    left = ends - int(time.time()) if isinstance(ends, int) else None
    keyid = jws.unverified_header.get("kid")
    return {"freshness": {**jws.unverified_payload, "keyid": keyid, "remaining_seconds": left}}


def _published(body: bytes) -> dict[str, Any]:
    """The service's own account of a publication."""
    try:
        document = json.loads(body)
    except ValueError as refused:
        raise BundleUnavailable("bundle_service_answer", "the service did not answer with JSON") from refused
    if not isinstance(document, dict) or "sequence" not in document or "digest" not in document:
        raise BundleUnavailable("bundle_service_answer", "the service did not say what it published")
    return document


def envelope_of(archive: Path, given: Path | None = None) -> bytes | None:
    """The co-signatures of an archive: the given file, else what lies beside it, else none."""
    place = given or Path(f"{archive}{ENVELOPE_SUFFIX}")
    if given is None and not place.exists():
        return None
    return _bounded(place, ENVELOPE_MAX_BYTES)


def _bounded(path: Path, max_bytes: int) -> bytes:
    try:
        with path.open("rb") as file:
            raw = file.read(max_bytes + 1)
    except OSError as missing:
        raise BundleUnavailable("file_missing", f"{path}: {missing.strerror}") from missing
    if len(raw) > max_bytes:
        raise BundleMisuse("file_too_large", f"{path} has more than {max_bytes} bytes")
    return raw


def register(app: typer.Typer) -> None:
    """Add these commands to the noun ``bundle``."""
    app.command("serve")(serve)
    app.command("publish")(publish)
    app.command("cosign")(cosign_command)
    app.command("freshness-key")(freshness_key)
