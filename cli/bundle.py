"""``tidegate bundle``: build, sign, verify and inspect signed bundles.

Thin: every decision is made in ``bundles``; here are the options, the clock and the words.
"""

from __future__ import annotations

import functools
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from inspect import signature
from pathlib import Path
from typing import Any, Final

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from bundles.archive import ArchiveLimits
from bundles.build import (
    STEPS,
    BuiltBundle,
    SigningOptions,
    build_bundle,
    build_data_bundle,
    check_rebuild,
    inspect_bundle,
    sign_archive,
)
from bundles.canonical import JsonValue, sha256_hex
from bundles.compiler import find_opa
from bundles.delta_envelope import inspect_delta
from bundles.dsse import check_cosignatures
from bundles.errors import BundleMisuse, BundleUnavailable
from bundles.keys import load_private_key, load_verifying_key
from bundles.sequence import write_durably
from bundles.trusted_set import TrustedBundle, TrustedKey, TrustPolicy, read_sequence, verify_bundle
from cli.bundle_connectors import check_archive, check_connectors, check_source
from cli.bundle_errors import guarded
from cli.bundle_service import TOKEN_FILE, envelope_of, inspect_remote, register
from cli.output import JSON_OPTION, emit, shown
from cli.token import ttl_seconds
from pdp.agreement import Difference, agree

LISTED_MAX: Final = 12
"""A mapping with more entries is counted when it is told in words."""

app = typer.Typer(help="Build, sign, verify and inspect signed bundles.", no_args_is_help=True)

ARCHIVE: Final = typer.Argument(..., help="The bundle archive.", dir_okay=False)
OPTIONAL_ARCHIVE: Final = typer.Argument(None, help="The bundle archive.", dir_okay=False)
REMOTE: Final = typer.Option(None, "--remote", help="The address at a bundle service, instead of an archive.")
SOURCE: Final = typer.Argument(..., help="The source directory.", file_okay=False)
TRUSTED: Final = typer.Option(..., "--key", help="The trusted key (public or private PEM).", dir_okay=False)
KEY: Final = typer.Option(..., "--key", help="The private signing key (PEM, 0600).", dir_okay=False)
OUT: Final = typer.Option(..., "--out", help="Where the signed archive goes.", dir_okay=False)
NAME: Final = typer.Option("main", "--name", help="The bundle's name in the gateway's configuration.")
AUDIENCE: Final = typer.Option("tidegate", "--audience", help="Whom the bundle is meant for.")
KEYID: Final = typer.Option("bundle", "--keyid", help="The key's name in the gateway's configuration.")
SCOPE: Final = typer.Option("write", "--scope", help="The scope the key signs.")
EPOCH: Final = typer.Option(0, "--epoch", min=0, help="Raised at the gateway when keys were recovered.")
SEQUENCE: Final = typer.Option(None, "--sequence", min=1, help="Default: the next one after those known here.")
MINIMUM: Final = typer.Option(0, "--minimum-sequence", min=0, help="Refuse a lower sequence.")
TTL: Final = typer.Option(None, "--ttl", help="How long the signature holds, as 12h; default without end.")
REVISION: Final = typer.Option(None, "--revision", help="Default: a digest of the content.")
COSIGNERS: Final = typer.Option([], "--cosigner", help="KEYID=FILE of who must have co-signed; may be repeated.")
REBUILD: Final = typer.Option(False, "--rebuild", help="Compile the Rego again and compare the module's bytes.")


@dataclass(frozen=True, slots=True)
class _Signing:
    """The options of a command that signs, in the order its help shows them."""

    key: Path = KEY
    out: Path = OUT
    sequence: int | None = SEQUENCE
    name: str = NAME
    audience: str = AUDIENCE
    keyid: str = KEYID
    scope: str = SCOPE
    epoch: int = EPOCH
    ttl: str | None = TTL

    def options(self, revision: str | None = None) -> SigningOptions:
        """What is signed, from now on; raises ``ttl_invalid``."""
        now = int(time.time())
        try:
            expires = None if self.ttl is None else now + ttl_seconds(self.ttl)
        except ValueError as refused:
            raise BundleMisuse("ttl_invalid", str(refused)) from refused
        return SigningOptions(
            name=self.name,
            audience=self.audience,
            keyid=self.keyid,
            scope=self.scope,
            epoch=self.epoch,
            sequence=self.sequence,
            issued_at=now,
            expires_at=expires,
            revision=revision,
        )


def _signs(command: Callable[..., None]) -> Callable[..., None]:
    """``command`` as typer is to see it: with the fields of :class:`_Signing` in place of its ``signing``."""
    fields = signature(_Signing, eval_str=True).parameters
    own = signature(command, eval_str=True)

    @functools.wraps(command)
    def run(**given: Any) -> None:
        signing = _Signing(**{name: given.pop(name) for name in fields})
        command(signing=signing, **given)

    shown_as = [[parameter] if name != "signing" else fields.values() for name, parameter in own.parameters.items()]
    run.__signature__ = own.replace(parameters=[parameter for part in shown_as for parameter in part])  # type: ignore[attr-defined]
    return run


@app.command()
@_signs
def build(
    signing: _Signing,
    source: Path = SOURCE,
    revision: str | None = REVISION,
    as_json: bool = JSON_OPTION,
) -> None:
    """Check, test, compile, prove and sign a source directory."""

    def work() -> BuiltBundle:
        with _Steps() as steps:
            options = signing.options(revision)
            check_source(source)
            return build_bundle(
                source, key=signing.key, out=signing.out, options=options, agreement=_agreement, progress=steps.begin
            )

    built = guarded(work, as_json)
    policy = built.policy
    document = {
        "path": str(built.path),
        "name": built.name,
        "revision": built.revision,
        "sequence": built.sequence,
        "digest": built.digest,
        "files": built.files_count,
        "tests": policy.tests_passed,
        "agreed": policy.inputs_agreed,
        "warnings": [str(finding) for finding in policy.warnings],
    }

    def words(console: Console) -> None:
        for finding in policy.warnings:
            console.print(f"warning: {shown(finding)}")
        console.print(f"Built {shown(built.path)}: sequence {built.sequence}, revision {shown(built.revision)}")
        console.print(f"{policy.tests_passed} tests passed; both engines agree on {policy.inputs_agreed} inputs.")

    emit(as_json, document, words)


@app.command()
@_signs
def data(
    signing: _Signing, source: Path = SOURCE, revision: str | None = REVISION, as_json: bool = JSON_OPTION
) -> None:
    """Sign a directory of data alone, for gateways that have their rules from another bundle."""

    def work() -> BuiltBundle:
        return build_data_bundle(source, key=signing.key, out=signing.out, options=signing.options(revision))

    built = guarded(work, as_json)
    document = {
        "path": str(built.path),
        "name": built.name,
        "revision": built.revision,
        "sequence": built.sequence,
        "digest": built.digest,
        "files": built.files_count,
    }
    emit(as_json, document, lambda console: console.print(f"Signed {shown(built.path)}: sequence {built.sequence}"))


@app.command()
@_signs
def sign(signing: _Signing, archive: Path = ARCHIVE, as_json: bool = JSON_OPTION) -> None:
    """Sign an archive anew, after its module came out of its own Rego again."""

    def work() -> dict[str, Any]:
        raw, private = _read(archive), load_private_key(signing.key)
        check_archive(raw)
        options = signing.options()
        key = _trusted(signing.key, signing.keyid, signing.scope)
        trust = TrustPolicy(signing.name, signing.audience, (key,), epoch=signing.epoch)
        wanted = options.sequence if options.sequence is not None else read_sequence(raw, trust)
        signed = sign_archive(raw, private, replace(options, sequence=wanted), opa=find_opa())
        write_durably(signing.out, signed)
        return {"path": str(signing.out), "sequence": wanted, "digest": f"sha256:{sha256_hex(signed)}"}

    done = guarded(work, as_json)
    emit(as_json, done, lambda console: console.print(f"Signed {shown(done['path'])}: sequence {done['sequence']}"))


@app.command()
def verify(
    archive: Path = ARCHIVE,
    key: Path = TRUSTED,
    name: str = NAME,
    audience: str = AUDIENCE,
    keyid: str = KEYID,
    scope: str = SCOPE,
    epoch: int = EPOCH,
    minimum: int = MINIMUM,
    rebuild: bool = REBUILD,
    cosigner: list[str] = COSIGNERS,
    as_json: bool = JSON_OPTION,
) -> None:
    """Check an archive as the gateway does; with co-signers, that each of them signed it too."""

    def work() -> TrustedBundle:
        team = tuple(_cosigner(named, scope) for named in cosigner)
        trust = TrustPolicy(name, audience, (_trusted(key, keyid, scope),), epoch=epoch)
        raw = _read(archive)
        now = int(time.time())
        trusted = verify_bundle(raw, trust, now=now, highest_sequence=minimum)
        check_connectors(trusted.data)
        if team:
            keyids = check_cosignatures(envelope_of(archive), team, name, trusted.digest, threshold=len(team))
            trusted = replace(trusted, keyids=(keyid, *keyids))
        if rebuild:
            check_rebuild(trusted, opa=find_opa())
        return trusted

    trusted = guarded(work, as_json)
    document = {
        "verified": True,
        "rebuilt": rebuild,
        "name": trusted.name,
        "revision": trusted.revision,
        "sequence": trusted.sequence,
        "digest": trusted.digest,
        "expires_at": trusted.expires_at,
        "profile": trusted.profile,
        "keyids": list(trusted.keyids),
    }

    def words(console: Console) -> None:
        signers = shown(", ".join(trusted.keyids))
        console.print(f"{shown(archive)} is {shown(trusted.name)}, sequence {trusted.sequence}, signed by {signers}.")
        console.print(f"revision {shown(trusted.revision)}, {trusted.digest}")
        if rebuild:
            console.print("The module is what OPA compiles from the Rego inside.")

    emit(as_json, document, words)


@app.command()
def inspect(
    archive: Path | None = OPTIONAL_ARCHIVE,
    remote: str | None = REMOTE,
    token_file: Path | None = TOKEN_FILE,
    as_json: bool = JSON_OPTION,
) -> None:
    """Say what an archive or a delta holds, here or at a bundle service; verifies nothing."""

    def work() -> dict[str, Any]:
        if remote is not None and archive is None:
            return inspect_remote(remote, token_file)
        if archive is None or remote is not None:
            raise BundleMisuse("archive_missing", "name an archive, or --remote and its address")
        raw = _read(archive)
        return dict(inspect_delta(raw) if raw.startswith(b"{") else inspect_bundle(raw))

    document = guarded(work, as_json)

    emit(as_json, document, lambda out: _say_inspected(out, document))


def _say_inspected(out: Console, document: dict[str, Any]) -> None:
    for field, value in document.items():
        if isinstance(value, dict) and len(value) <= LISTED_MAX:
            out.print(f"{shown(field)}:")
            for name, one in value.items():
                out.print(f"  {shown(name)}: {shown(_listed(one))}")
        elif isinstance(value, dict):
            out.print(f"{shown(field)}: {len(value)} (--json lists them)")
        else:
            out.print(f"{shown(field)}: {shown(_listed(value))}")


def _listed(value: Any) -> Any:
    return ", ".join(map(str, value)) if isinstance(value, list) else value


class _Steps:
    """A progress bar on a terminal, nothing in a pipe."""

    def __init__(self) -> None:
        columns = (TextColumn("{task.description}"), BarColumn())
        self._bar = Progress(*columns, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty())
        self._task = self._bar.add_task("", total=len(STEPS))

    def __enter__(self) -> _Steps:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def begin(self, step: str) -> None:
        """Show that a step begins."""
        self._bar.update(self._task, description=step, completed=STEPS.index(step))


def _agreement(
    files: Mapping[str, bytes],
    data: Mapping[str, JsonValue],
    wasm: bytes,
    inputs: Sequence[Mapping[str, JsonValue]],
) -> list[Difference]:
    return agree(files, data, wasm, inputs, find_opa())


def _cosigner(named: str, scope: str) -> TrustedKey:
    """A trusted key from ``KEYID=FILE``."""
    keyid, separator, path = named.partition("=")
    if not separator or not keyid or not path:
        raise BundleMisuse("cosigner_invalid", f"{named!r} is not KEYID=FILE")
    return _trusted(Path(path), keyid, scope)


def _trusted(key: Path, keyid: str, scope: str) -> TrustedKey:
    """A trusted key from a PEM file of either half."""
    algorithm, pem = load_verifying_key(key)
    return TrustedKey(keyid, algorithm, scope, pem)


def _read(archive: Path) -> bytes:
    """The archive's bytes, never more than the limit and one."""
    try:
        with archive.open("rb") as file:
            return file.read(ArchiveLimits().archive_max_bytes + 1)
    except OSError as missing:
        raise BundleUnavailable("bundle_missing", f"{archive}: {missing.strerror}") from missing


register(app)
