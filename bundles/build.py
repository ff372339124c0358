"""From a source directory to a signed bundle, and back: build, assemble, sign, verify, inspect.

Guarantees: a bundle is written only after OPA's strict check, the profile's lint, the policies' own tests, their cases
and the agreement of both engines all passed, and the same source gives the same files; the sequence rises. Leaves to
``trusted_set``: what a reader may believe.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, Protocol

import orjson

import rego
from bundles.archive import ArchiveLimits, read_archive, write_archive
from bundles.canonical import JsonValue, canonical_json, sha256_hex
from bundles.claims import MANIFEST_FILE, SIGNATURES_FILE, list_files
from bundles.compiler import Evaluated, Opa, find_opa
from bundles.content import METADATA_VERSION, PROBES_FOLDER, WASM_FILE, BundleContent, Probe, package_of, read_content
from bundles.errors import BundleMisuse, BundleRefused, BundleUnavailable
from bundles.jws import PrivateKey, default_algorithm, sign_jws
from bundles.keys import load_private_key, public_pem
from bundles.manifest import load_manifests
from bundles.merged import RULEBOOK_ROOTS
from bundles.profile import PROFILE, Finding, check_data_shapes, is_cacheable, lint, lint_tests, string_literals
from bundles.samples import compared_texts, sample_inputs
from bundles.sequence import SequenceFile, write_durably
from bundles.source import read_data_source, read_source
from bundles.source_layout import BundleSource, sources_digest
from bundles.trusted_set import TrustedKey, TrustPolicy, read_sequence, read_unverified, verify_bundle

ENTRYPOINT: Final = "tidegate/decision"
SAMPLE_PROBES_COUNT: Final = 64
STEPS: Final = ("read", "check", "lint", "test", "compile", "decide", "agree", "sign")

Progress = Callable[[str], None]


class Agreement(Protocol):
    """Decides every input with OPA's engine and with the Wasm and returns the differences; handed in by ``cli``."""

    def __call__(
        self,
        files: Mapping[str, bytes],
        data: Mapping[str, JsonValue],
        wasm: bytes,
        inputs: Sequence[Mapping[str, JsonValue]],
    ) -> Sequence[object]: ...


@dataclass(frozen=True, slots=True)
class SigningOptions:
    """What a signature says besides the files; ``None`` for a sequence means the next one."""

    name: str = "main"
    audience: str = "tidegate"
    keyid: str = "bundle"
    scope: str = "write"
    epoch: int = 0
    sequence: int | None = None
    issued_at: int | None = None
    expires_at: int | None = None
    revision: str | None = None


@dataclass(frozen=True, slots=True)
class CompiledPolicy:
    """A checked and compiled source: every file of the bundle but manifest and signature."""

    files: dict[str, bytes]
    cacheable: bool
    tests_passed: int
    inputs_agreed: int
    warnings: tuple[Finding, ...]


@dataclass(frozen=True, slots=True)
class BuiltBundle:
    """A bundle that was written to ``path``."""

    path: Path
    name: str
    revision: str
    sequence: int
    digest: str
    files_count: int
    policy: CompiledPolicy = field(repr=False)


def build_bundle(
    source: Path,
    *,
    key: Path | PrivateKey,
    out: Path,
    options: SigningOptions | None = None,
    agreement: Agreement | None = None,
    progress: Progress | None = None,
) -> BuiltBundle:
    """Build, prove, sign and write; nothing is written unless every step passed.

    Raises :class:`BundleRefused` (``rego_invalid``, ``profile_violated``, ``tests_failed``, ``case_failed``,
    ``engines_disagree``, …) and :class:`BundleUnavailable` ``opa_missing``.
    """
    step = progress or _silent
    signer = _private(key)
    policy = compile_policy(source, opa=find_opa(), agreement=agreement, progress=step)
    step("sign")
    return write_bundle(policy, signer, out, options or SigningOptions())


def compile_policy(source: Path, *, opa: Opa, agreement: Agreement | None, progress: Progress) -> CompiledPolicy:
    """Everything of a build that needs OPA: check, lint, test, compile, decide, agree."""
    progress("read")
    sources = read_source(source)
    data = _data_of(sources)
    capabilities = rego.root() / "capabilities.json"
    progress("check")
    opa.check(sources.rego, capabilities=capabilities)
    progress("lint")
    trees = opa.parse(sources.rego)
    tests = {name: text for name, text in sources.tests.items() if name.startswith("policies/")}
    findings = lint(trees, data) + lint_tests(opa.parse(tests)) + check_data_shapes(data)
    errors = [str(finding) for finding in findings if finding.severity == "error"]
    if errors:
        raise BundleRefused("profile_violated", "\n".join(errors))
    progress("test")
    report = opa.test({**sources.rego, **sources.tests}, data)
    if report.failed:
        raise BundleRefused("tests_failed", ", ".join(report.failed))
    progress("compile")
    wasm = opa.build_wasm(sources.rego, entrypoints=[ENTRYPOINT], capabilities=capabilities)
    progress("decide")
    samples = sample_inputs(load_manifests(data), string_literals(trees), compared_texts(trees))
    inputs = [dict(case.input) for case in sources.cases] + samples
    answers = opa.eval(sources.rego, data, inputs, entrypoint=ENTRYPOINT)
    probes = _probes(sources.cases, samples, answers)
    if agreement is not None:
        progress("agree")
        _agree(agreement, (sources.rego, data, wasm), inputs)
    return CompiledPolicy(
        files={**sources.rego, **sources.data_files, **probes, WASM_FILE: wasm},
        cacheable=is_cacheable(trees),
        tests_passed=report.passed,
        inputs_agreed=len(inputs) if agreement is not None else 0,
        warnings=tuple(_untested(sources) + [finding for finding in findings if finding.severity == "warning"]),
    )


def assemble_starter(
    source: Path,
    wasm: bytes,
    probes: Mapping[str, bytes],
    key: Path | PrivateKey,
    out: Path,
    options: SigningOptions | None = None,
) -> BuiltBundle:
    """Sign a source whose Rego was compiled before, without OPA.

    **Security**: the shipped module stands for the Rego beside it only while both digests are the shipped ones; an
    edited policy is refused (``starter_changed``) rather than signed with a module that decides something else.
    """
    sources = read_source(source)
    shipped = _shipped_digests()
    if shipped.get(WASM_FILE) != sha256_hex(wasm):
        raise BundleRefused("starter_changed", "the compiled module is not the shipped one")
    if shipped.get("sources") != sources_digest(sources.rego):
        raise BundleRefused("starter_changed", "the Rego is not the shipped one; `tidegate bundle build` compiles it")
    files = {**sources.rego, **sources.data_files, WASM_FILE: wasm}
    files.update({f"{PROBES_FOLDER}{name.rpartition('/')[2]}": content for name, content in probes.items()})
    policy = CompiledPolicy(files, shipped.get("cacheable") == "yes", 0, 0, ())
    return write_bundle(policy, _private(key), out, options or SigningOptions())


def build_data_bundle(
    source: Path, *, key: Path | PrivateKey, out: Path, options: SigningOptions | None = None
) -> BuiltBundle:
    """Sign a directory of data alone, for a gateway that has its rules from another bundle; needs no OPA.

    Raises :class:`BundleRefused` ``source_invalid`` or ``profile_violated`` (a key that reads as a number).
    """
    files = read_data_source(source)
    policy = CompiledPolicy(files, False, 0, 0, ())
    content = read_content({**files, MANIFEST_FILE: _manifest(policy, "")})
    taken = RULEBOOK_ROOTS & content.data.keys()
    if taken:
        raise BundleRefused("source_invalid", f"{min(taken)!r} is only a full bundle's")
    findings = [str(finding) for finding in check_data_shapes(content.data)]
    if findings:
        raise BundleRefused("profile_violated", "\n".join(findings))
    return write_bundle(policy, _private(key), out, options or SigningOptions())


def shipped_parts(built: Path | None = None) -> tuple[bytes, dict[str, bytes]]:
    """The compiled module and the probes that ship with the starter policies."""
    built = built or rego.root() / "built"
    try:
        probes = {path.name: path.read_bytes() for path in sorted((built / "probes").glob("*.json"))}
        return (built / WASM_FILE).read_bytes(), probes
    except OSError as missing:
        raise BundleUnavailable("starter_missing", f"{missing.filename}: {missing.strerror}") from missing


def write_bundle(policy: CompiledPolicy, key: PrivateKey, out: Path, options: SigningOptions) -> BuiltBundle:
    """Add manifest and signature, check the result as a reader would, and write it."""
    revision = options.revision or sources_digest(policy.files)
    files = {**policy.files, MANIFEST_FILE: _manifest(policy, revision)}
    content = read_content(files)
    load_manifests(content.data)
    sequences = SequenceFile(out.parent / "state" / "sequence")
    if options.sequence is None:
        known = max(sequences.highest(options.name), _sequence_of(out, key, options))
        options = replace(options, sequence=known + 1)
    raw = sign_files(files, key, options)
    trusted = verify_bundle(raw, _own_trust(key, options), now=options.issued_at or 0, highest_sequence=0)
    write_durably(out, raw)
    return BuiltBundle(out, trusted.name, trusted.revision, trusted.sequence, trusted.digest, len(files), policy)


def sign_files(files: Mapping[str, bytes], key: PrivateKey, options: SigningOptions) -> bytes:
    """The signed archive of ``files``."""
    if options.sequence is None or options.sequence < 1:
        raise BundleMisuse("bundle_sequence_invalid", "a sequence is a whole number from 1")
    payload: dict[str, JsonValue] = {
        "files": list_files(files),
        "scope": options.scope,
        "keyid": options.keyid,
        "aud": [options.audience],
        "tidegate_name": options.name,
        "tidegate_seq": options.sequence,
        "tidegate_epoch": options.epoch,
    }
    for claim, instant in (("iat", options.issued_at), ("exp", options.expires_at)):
        if instant is not None:
            payload[claim] = instant
    token = sign_jws(payload, key=key, algorithm=default_algorithm(key), keyid=options.keyid)
    return write_archive({**files, SIGNATURES_FILE: canonical_json({"signatures": [token]})})


def sign_archive(raw: bytes, key: Path | PrivateKey, options: SigningOptions, *, opa: Opa) -> bytes:
    """Sign an archive anew, after its module was compiled again from its Rego and came out the same.

    **Security**: so every signer signs the Rego that was read, not a module somebody else made.
    """
    files = read_archive(raw, ArchiveLimits())
    files.pop(SIGNATURES_FILE, None)
    check_rebuild(read_content(files), opa=opa)
    return sign_files(files, _private(key), options)


def check_rebuild(content: BundleContent, *, opa: Opa) -> None:
    """Compile a bundle's Rego again and raise ``rebuild_differs`` unless the module is the same, byte for byte."""
    if content.wasm is None:
        raise BundleRefused("rebuild_differs", "the bundle has no module to compare")
    entrypoints = content.entrypoints or (ENTRYPOINT,)
    capabilities = rego.root() / "capabilities.json"
    if opa.build_wasm(content.rego, entrypoints=entrypoints, capabilities=capabilities) != content.wasm:
        raise BundleRefused("rebuild_differs", "the module is not what OPA compiles from the Rego beside it")


def inspect_bundle(raw: bytes) -> dict[str, JsonValue]:
    """What an archive says about itself; nothing of it was verified."""
    files = read_archive(raw, ArchiveLimits())
    signatures = files.pop(SIGNATURES_FILE, None)
    content = read_content(files)
    actions: list[JsonValue] = [
        action.name for manifest in load_manifests(content.data).values() for action in manifest.actions
    ]
    return {
        "digest": f"sha256:{sha256_hex(raw)}",
        "revision": content.revision,
        "signed": signatures is not None,
        "verified": False,
        "signature": read_unverified(signatures) if signatures is not None else None,
        "profile": content.profile,
        "cacheable": content.cacheable,
        "entrypoints": list(content.entrypoints),
        "data": [*sorted(content.data)],
        "actions": actions,
        "probes": len(content.probes),
        "files": {name: len(files[name]) for name in sorted(files)},
    }


def _silent(step: str) -> None:
    """No progress wanted."""


def _private(key: Path | PrivateKey) -> PrivateKey:
    return load_private_key(key) if isinstance(key, Path) else key


def _own_trust(key: PrivateKey, options: SigningOptions) -> TrustPolicy:
    own = TrustedKey(options.keyid, default_algorithm(key), options.scope, public_pem(key))
    return TrustPolicy(options.name, options.audience, (own,), epoch=options.epoch)


def _sequence_of(out: Path, key: PrivateKey, options: SigningOptions) -> int:
    """The sequence of the bundle that stands at ``out``; 0 when none of ours does."""
    if not out.exists():
        return 0
    try:
        return read_sequence(out.read_bytes(), _own_trust(key, options))
    except BundleRefused:
        return 0  # Not signed with this key, so its sequence binds nobody.


def _manifest(policy: CompiledPolicy, revision: str) -> bytes:
    roots = {package_of(name, content)[0] for name, content in policy.files.items() if name.endswith(".rego")}
    roots |= {name.split("/")[0] for name in policy.files if name.endswith("/data.json")}
    metadata: dict[str, JsonValue] = {
        "version": METADATA_VERSION,
        "profile": PROFILE,
        "entrypoints": [ENTRYPOINT],
        "cacheable": policy.cacheable,
    }
    return canonical_json(
        {"revision": revision, "roots": [*sorted(roots)], "rego_version": 1, "metadata": {"tidegate": metadata}}
    )


def source_data(source: Path) -> dict[str, JsonValue]:
    """The data of a source directory as its bundle would have it. Raises :class:`BundleRefused`."""
    return _data_of(read_source(source))


def _data_of(sources: BundleSource) -> dict[str, JsonValue]:
    empty = CompiledPolicy({**sources.rego, **sources.data_files}, False, 0, 0, ())
    return read_content({**empty.files, MANIFEST_FILE: _manifest(empty, "")}).data


def _probes(
    cases: Sequence[Probe], samples: Sequence[dict[str, JsonValue]], answers: Sequence[Evaluated]
) -> dict[str, bytes]:
    """The probe files; a case whose recorded decision is not OPA's refuses the build."""
    probes: dict[str, bytes] = {}
    for case, answer in zip(cases, answers, strict=False):
        if answer.state != "defined" or not _matches(case.decision, answer.value):
            given = canonical_json(answer.value).decode() if answer.state == "defined" else answer.state
            raise BundleRefused("case_failed", f"{case.name}: decided {given}")
        probes[f"{PROBES_FOLDER}{case.name}.json"] = canonical_json({"input": case.input, "decision": answer.value})
    stride = max(1, len(samples) // SAMPLE_PROBES_COUNT)
    for index in range(0, len(samples), stride):
        answer = answers[len(cases) + index]
        if answer.state == "defined":
            name = f"{PROBES_FOLDER}sample-{index:04d}.json"
            probes[name] = canonical_json({"input": samples[index], "decision": answer.value})
    return probes


def _matches(expected: Mapping[str, JsonValue], given: JsonValue) -> bool:
    """Whether the decision is the expected one; a case may leave out what it is not about."""
    return isinstance(given, dict) and all(given.get(name) == value for name, value in expected.items())


def _agree(
    agreement: Agreement,
    built: tuple[Mapping[str, bytes], Mapping[str, JsonValue], bytes],
    inputs: Sequence[Mapping[str, JsonValue]],
) -> None:
    files, data, wasm = built
    differences = agreement(files, data, wasm, inputs)
    if differences:
        raise BundleRefused("engines_disagree", f"{len(differences)} of {len(inputs)} inputs, first: {differences[0]}")


def _untested(sources: BundleSource) -> list[Finding]:
    tested = {name.rpartition("/")[0] for name in sources.tests}
    folders = {name.rpartition("/")[0]: name for name in sorted(sources.rego)}
    return [
        Finding(name, 1, "untested", f"no {folder}/*_test.rego", "warning")
        for folder, name in folders.items()
        if folder not in tested
    ]


def _shipped_digests() -> dict[str, str]:
    path = rego.root() / "built" / "digests.json"
    try:
        document = orjson.loads(path.read_bytes())
    except (OSError, orjson.JSONDecodeError) as missing:
        raise BundleUnavailable("starter_missing", f"{path} cannot be read") from missing
    return {str(name): str(value) for name, value in document.items()}
