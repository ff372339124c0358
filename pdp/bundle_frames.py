"""What a gate and the process that checks its large bundles say to each other: one question, one answer, as frames of bytes.

Guarantees: a frame is a short JSON document and parts of bytes with their sizes told before; what is read back is what was
written, or :class:`FrameMalformed`. Leaves moving the bytes to ``pdp.bundle_child`` and ``pdp.bundle_verifier``.

**Security**: both ends are this program and this user, and a pipe joins them. Reading is careful all the same, because
an answer cut short must be no answer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Final, TypeVar

import orjson

from bundles.archive import ArchiveLimits
from bundles.canonical import JsonValue
from bundles.errors import BundleRefused
from bundles.trusted_set import Probe, TrustedBundle, TrustedKey, TrustPolicy

MAGIC: Final = b"tidegate-bundle1"
PREFIX_BYTES: Final = len(MAGIC) + 4
DOCUMENT_MAX_BYTES: Final = 256 << 20
PARTS_MAX_COUNT: Final = 16_384
PARTS_MAX_BYTES: Final = 512 << 20
"""What a frame may hold. Text of data can be longer here than in its file: `1e15` is written out."""

_NUMBERS: Final = ("sequence", "epoch")
_TEXTS: Final = ("name", "revision", "digest")

T = TypeVar("T")


class FrameMalformed(ValueError):
    """Bytes that are no frame, or a frame that says something else than was asked."""


@dataclass(frozen=True, slots=True)
class Question:
    """Everything that checking a bundle depends on; ``at`` in Unix seconds."""

    archive: bytes
    trust: TrustPolicy
    at: int
    highest_sequence: int
    cosignatures: bytes | None


def frame(document: Mapping[str, Any], parts: Sequence[bytes]) -> tuple[bytes, ...]:
    """One frame, as pieces to be written one after the other: 20 MB are not copied for it."""
    head = orjson.dumps({"document": document, "sizes": [len(part) for part in parts]})
    return (MAGIC + len(head).to_bytes(4, "big") + head, *parts)


def document_size(prefix: bytes) -> int:
    """How long the document after the first ``PREFIX_BYTES`` is."""
    size = int.from_bytes(prefix[len(MAGIC) :], "big")
    if len(prefix) != PREFIX_BYTES or not prefix.startswith(MAGIC) or size > DOCUMENT_MAX_BYTES:
        raise FrameMalformed("not the beginning of a frame")
    return size


def read_document(raw: bytes) -> tuple[dict[str, Any], tuple[int, ...]]:
    """The document and the sizes of the parts that follow it."""
    try:
        head = orjson.loads(raw)
    except orjson.JSONDecodeError as refused:
        raise FrameMalformed("the document is not JSON") from refused
    sizes = _typed(_member(head, "sizes"), list)
    if len(sizes) > PARTS_MAX_COUNT or not all(type(size) is int and size >= 0 for size in sizes):
        raise FrameMalformed("the sizes are no sizes")
    if sum(sizes) > PARTS_MAX_BYTES:
        raise FrameMalformed(f"more than {PARTS_MAX_BYTES} bytes are announced")
    return _typed(_member(head, "document"), dict), tuple(sizes)


def question_frame(question: Question) -> tuple[bytes, ...]:
    """A question as a frame."""
    trust = question.trust
    document = {
        "name": trust.name,
        "audience": trust.audience,
        "threshold": trust.threshold,
        "epoch": trust.epoch,
        "limits": asdict(trust.limits),
        "keys": [[key.keyid, key.algorithm, key.scope] for key in trust.keys],
        "now": question.at,
        "highest_sequence": question.highest_sequence,
    }
    cosignatures = () if question.cosignatures is None else (question.cosignatures,)
    return frame(document, (question.archive, *(key.public_pem for key in trust.keys), *cosignatures))


def read_question(document: Mapping[str, Any], parts: Sequence[bytes]) -> Question:
    """The question of a frame."""
    keys = _typed(_member(document, "keys"), list)
    if len(parts) not in (1 + len(keys), 2 + len(keys)):
        raise FrameMalformed("an archive, the keys and perhaps co-signatures are expected")
    limits = _limits(document)
    trusted = []
    for described, pem in zip(keys, parts[1:], strict=False):
        named = _texts(described)
        if len(named) != 3:
            raise FrameMalformed("a key has an id, an algorithm and a scope")
        trusted.append(TrustedKey(named[0], named[1], named[2], pem))
    trust = TrustPolicy(
        _typed(_member(document, "name"), str),
        _typed(_member(document, "audience"), str),
        tuple(trusted),
        _number(document, "threshold"),
        _number(document, "epoch"),
        limits,
    )
    cosignatures = parts[-1] if len(parts) == 2 + len(keys) else None
    now, highest = _number(document, "now"), _number(document, "highest_sequence")
    return Question(parts[0], trust, now, highest, cosignatures)


def _limits(document: Mapping[str, Any]) -> ArchiveLimits:
    limits = _typed(_member(document, "limits"), dict)
    if set(limits) != {field.name for field in fields(ArchiveLimits)}:
        raise FrameMalformed("the limits are of another version")
    return ArchiveLimits(**{name: _number(limits, name) for name in limits})


REBUILD: Final = "rebuild"
"""What a document is about that brings a base and a delta in place of an archive to check."""


def rebuild_frame(base: bytes, delta: bytes, limits: ArchiveLimits) -> tuple[bytes, ...]:
    """A base and the delta to apply to it, as a frame."""
    return frame({"about": REBUILD, "limits": asdict(limits)}, (base, delta))


def read_rebuild(document: Mapping[str, Any], parts: Sequence[bytes]) -> tuple[bytes, bytes, ArchiveLimits]:
    """Base, delta and limits of a frame."""
    if len(parts) != 2:
        raise FrameMalformed("a base and a delta are expected")
    return parts[0], parts[1], _limits(document)


def archive_frame(archive: bytes) -> tuple[bytes, ...]:
    """An archive that a delta led to, as a frame."""
    return frame({"about": REBUILD}, (archive,))


def read_archive_answer(document: Mapping[str, Any], parts: Sequence[bytes]) -> bytes:
    """The archive of an answer; raises what `apply_delta` raises, and :class:`FrameMalformed`."""
    if set(document) == {"refused"}:
        code, detail = _pair(_texts(document["refused"]))
        raise BundleRefused(code, detail)
    if document != {"about": REBUILD} or len(parts) != 1:
        raise FrameMalformed("the answer is no archive")
    return parts[0]


def refusal_frame(refused: BundleRefused) -> tuple[bytes, ...]:
    """A refusal as a frame."""
    return frame({"refused": [refused.code, refused.detail]}, ())


def answer_frame(bundle: TrustedBundle) -> tuple[bytes, ...]:
    """A bundle that passed every check as a frame."""
    document = {
        "name": bundle.name,
        "revision": bundle.revision,
        "digest": bundle.digest,
        "sequence": bundle.sequence,
        "epoch": bundle.epoch,
        "expires_at": bundle.expires_at,
        "keyids": bundle.keyids,
        "manifest": bundle.manifest,
        "data": bundle.data,
        "probes": [[probe.name, probe.input, probe.decision] for probe in bundle.probes],
        "profile": bundle.profile,
        "entrypoints": bundle.entrypoints,
        "cacheable": bundle.cacheable,
        "rego": list(bundle.rego),
        "texts": list(bundle.texts),
    }
    wasm = () if bundle.wasm is None else (bundle.wasm,)
    return frame(document, (*bundle.rego.values(), *bundle.texts.values(), *wasm))


def read_answer(document: Mapping[str, Any], parts: Sequence[bytes], *, about: Question, digest: str) -> TrustedBundle:
    """The bundle of an answer to the question ``about``; ``digest`` is of the archive that was asked about.

    Raises what :func:`bundles.trusted_set.verify_bundle` raises, and :class:`FrameMalformed`.
    """
    if set(document) == {"refused"}:
        code, detail = _pair(_texts(document["refused"]))
        raise BundleRefused(code, detail)
    bundle = _bundle(document, parts)
    expected = (about.trust.name, about.trust.epoch, digest)
    if (bundle.name, bundle.epoch, bundle.digest) != expected or bundle.sequence < about.highest_sequence:
        raise FrameMalformed("the answer is about another bundle")
    return bundle


def _bundle(document: Mapping[str, Any], parts: Sequence[bytes]) -> TrustedBundle:
    rego, texts = _texts(_member(document, "rego")), _texts(_member(document, "texts"))
    named = len(rego) + len(texts)
    if len(parts) not in (named, named + 1):
        raise FrameMalformed("there are more or fewer parts than names")
    name, revision, digest = (_typed(_member(document, text), str) for text in _TEXTS)
    sequence, epoch = (_number(document, number) for number in _NUMBERS)
    expires_at = _member(document, "expires_at")
    return TrustedBundle(
        name=name,
        revision=revision,
        sequence=sequence,
        epoch=epoch,
        digest=digest,
        expires_at=None if expires_at is None else _typed(expires_at, int),
        keyids=tuple(_texts(_member(document, "keyids"))),
        manifest=_typed(_member(document, "manifest"), dict),
        data=_typed(_member(document, "data"), dict),
        rego=dict(zip(rego, parts, strict=False)),
        wasm=parts[named] if len(parts) > named else None,
        probes=tuple(_probes(_typed(_member(document, "probes"), list))),
        profile=_optional_text(_member(document, "profile")),
        entrypoints=tuple(_texts(_member(document, "entrypoints"))),
        cacheable=_typed(_member(document, "cacheable"), bool),
        texts=dict(zip(texts, parts[len(rego) : named], strict=True)),
    )


def _probes(described: Sequence[JsonValue]) -> Iterator[Probe]:
    for entry in described:
        probe = _typed(entry, list)
        if len(probe) != 3:
            raise FrameMalformed("a probe has a name, an input and a decision")
        yield Probe(_typed(probe[0], str), _typed(probe[1], dict), _typed(probe[2], dict))


def _member(document: Any, name: str) -> Any:
    if not isinstance(document, Mapping) or name not in document:
        raise FrameMalformed(f"{name} is missing")
    return document[name]


def _typed(value: Any, kind: type[T]) -> T:
    if type(value) is not kind:
        raise FrameMalformed(f"{kind.__name__} was expected")
    return value


def _number(document: Any, name: str) -> int:
    return _typed(_member(document, name), int)


def _optional_text(value: Any) -> str | None:
    return None if value is None else _typed(value, str)


def _texts(value: Any) -> list[str]:
    return [_typed(item, str) for item in _typed(value, list)]


def _pair(values: list[str]) -> tuple[str, str]:
    if len(values) != 2:
        raise FrameMalformed("a refusal has a code and a detail")
    return values[0], values[1]
