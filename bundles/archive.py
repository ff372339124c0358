"""Bundle archives: a gzip-compressed tar of plain files, read with limits and written deterministically.

Guarantees: ``read_archive`` returns only regular files with plain relative names, each name once, never more bytes than
the limits allow, and stops unpacking as soon as a limit is passed; ``write_archive`` gives the same bytes for the same
files. Leaves to its callers: what the files mean and whether anybody signed them.

The tar reader is our own and knows one dialect (POSIX ustar, regular files), because the dialects are where two readers
of one archive see different files.
"""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from bundles.errors import BundleMisuse, BundleRefused

_BLOCK: Final = 512
_CHUNK: Final = 1 << 16
_RATIO_GRACE_BYTES: Final = 1 << 20
_NAME = re.compile(r"[A-Za-z0-9._@+=~-]+(?:/[A-Za-z0-9._@+=~-]+)*")
_REGULAR: Final = (b"0", b"\0")


@dataclass(frozen=True, slots=True)
class ArchiveLimits:
    """What an archive may cost before anything in it is believed; sizes in bytes."""

    archive_max_bytes: int = 16 << 20
    total_max_bytes: int = 48 << 20
    file_max_bytes: int = 32 << 20
    files_max_count: int = 4096
    name_max_bytes: int = 200
    ratio_max: int = 200


def read_archive(raw: bytes, limits: ArchiveLimits | None = None) -> dict[str, bytes]:
    """Unpack ``raw`` into ``{name: content}``, or raise :class:`BundleRefused`.

    Codes: ``bundle_too_large`` for every limit, ``bundle_archive_invalid`` for everything else. One leading slash of a
    name is dropped, as OPA writes it.

    **Security**: decompresses in small steps and stops at the first step past a limit, so a bomb costs one step.
    **Source**: RFC 1952; POSIX.1-1988 ustar.
    """
    limits = limits or ArchiveLimits()
    if len(raw) > limits.archive_max_bytes:
        raise BundleRefused("bundle_too_large", f"the archive has more than {limits.archive_max_bytes} bytes")
    files: dict[str, bytes] = {}
    folded: set[str] = set()
    for raw_name, content in _members(_inflate(raw, limits), limits):
        name = _check_name(raw_name, limits)
        if name.lower() in folded:
            raise BundleRefused("bundle_archive_invalid", f"two members are named {name!r}")
        folded.add(name.lower())
        files[name] = content
    return files


def unpacks_beyond(raw: bytes, size_bytes: int) -> bool:
    """Whether an archive unpacks to more than ``size_bytes``; bytes that are no archive do not. Costs one such step."""
    if len(raw) > size_bytes:
        return True
    try:
        return len(zlib.decompressobj(wbits=31).decompress(raw, size_bytes + 1)) > size_bytes
    except zlib.error:
        return False


def write_archive(files: Mapping[str, bytes]) -> bytes:
    """Pack ``files`` so that the same files always give the same bytes (sorted, no times, no owners)."""
    out = bytearray()
    for name in sorted(files):
        if not _is_plain(name):
            raise BundleMisuse("bundle_name_invalid", f"{name!r} cannot be a name in a bundle")
        content = files[name]
        out += _header(name, len(content))
        out += content
        out += bytes(-len(content) % _BLOCK)
    out += bytes(2 * _BLOCK)
    # The gzip header's time and system bytes are fixed so that two builds are equal.
    packed = bytearray(gzip.compress(bytes(out), compresslevel=9, mtime=0))
    packed[9] = 255
    return bytes(packed)


def _inflate(raw: bytes, limits: ArchiveLimits) -> bytes:
    """Decompress one gzip member, never holding more than the limits allow plus one step."""
    engine = zlib.decompressobj(wbits=31)
    out = bytearray()
    pending = raw
    allowed = min(limits.total_max_bytes, max(_RATIO_GRACE_BYTES, len(raw) * limits.ratio_max))
    try:
        while not engine.eof:
            step = engine.decompress(pending, _CHUNK)
            pending = engine.unconsumed_tail
            if not step and not pending and not engine.eof:
                raise BundleRefused("bundle_archive_invalid", "the compressed data ends early")
            out += step
            if len(out) > allowed:
                raise BundleRefused("bundle_too_large", f"unpacks to more than {allowed} bytes")
    except zlib.error as refused:
        raise BundleRefused("bundle_archive_invalid", "not a gzip file") from refused
    if engine.unused_data:
        raise BundleRefused("bundle_archive_invalid", "data follows the compressed archive")
    return bytes(out)


def _members(tar: bytes, limits: ArchiveLimits) -> Iterator[tuple[bytes, bytes]]:
    position = 0
    count = 0
    while True:
        header = tar[position : position + _BLOCK]
        if len(header) < _BLOCK:
            raise BundleRefused("bundle_archive_invalid", "the tar ends without its end mark")
        if not any(header):
            break
        name, size = _read_header(header)
        count += 1
        if count > limits.files_max_count:
            raise BundleRefused("bundle_too_large", f"more than {limits.files_max_count} files")
        if size > limits.file_max_bytes:
            raise BundleRefused("bundle_too_large", f"a file has more than {limits.file_max_bytes} bytes")
        start = position + _BLOCK
        if start + size > len(tar):
            raise BundleRefused("bundle_archive_invalid", "the tar ends inside a file")
        yield name, tar[start : start + size]
        position = start + size + (-size % _BLOCK)
    if any(tar[position:]):
        raise BundleRefused("bundle_archive_invalid", "data follows the end of the tar")


def _read_header(header: bytes) -> tuple[bytes, int]:
    if header[257:263] not in (b"ustar\0", b"ustar "):
        raise BundleRefused("bundle_archive_invalid", "not a ustar header")
    total = sum(header) - sum(header[148:156]) + 8 * 0x20
    if _octal(header[148:156]) != total:
        raise BundleRefused("bundle_archive_invalid", "a tar header's checksum is wrong")
    if header[156:157] not in _REGULAR:
        raise BundleRefused("bundle_archive_invalid", f"a member is not a regular file (type {header[156:157]!r})")
    name = _text(header[0:100])
    prefix = _text(header[345:500]) if header[257:263] == b"ustar\0" else b""
    return (prefix + b"/" + name if prefix else name), _octal(header[124:136])


def _text(field: bytes) -> bytes:
    text, _, rest = field.partition(b"\0")
    if any(rest):
        raise BundleRefused("bundle_archive_invalid", "bytes hide behind a name's end")
    return text


def _octal(field: bytes) -> int:
    digits = field.strip(b"\0 ")
    if not re.fullmatch(rb"[0-7]+", digits):
        raise BundleRefused("bundle_archive_invalid", "a tar number is not octal")
    return int(digits, 8)


def _check_name(raw_name: bytes, limits: ArchiveLimits) -> str:
    if len(raw_name) > limits.name_max_bytes:
        raise BundleRefused("bundle_too_large", f"a name has more than {limits.name_max_bytes} bytes")
    name = raw_name.decode("latin-1").removeprefix("/")
    if not _is_plain(name):
        raise BundleRefused("bundle_archive_invalid", f"{raw_name!r} is not a plain relative name")
    return name


def _is_plain(name: str) -> bool:
    return _NAME.fullmatch(name) is not None and not {".", ".."} & set(name.split("/"))


def _header(name: str, size: int) -> bytes:
    raw = name.encode("ascii")
    prefix = b""
    if len(raw) > 100:
        cut = raw.rfind(b"/", 0, 156)
        prefix, raw = raw[:cut], raw[cut + 1 :]
        if cut <= 0 or len(raw) > 100:
            raise BundleMisuse("bundle_name_invalid", f"{name!r} is too long for a bundle")
    fields = b"".join(
        (
            raw.ljust(100, b"\0"), b"0000644\0", b"0000000\0", b"0000000\0", f"{size:011o}\0".encode(),
            b"00000000000\0", b" " * 8, b"0", bytes(100), b"ustar\0", b"00", bytes(32), bytes(32),
            b"0000000\0", b"0000000\0", prefix.ljust(155, b"\0"), bytes(12),
        )
    )  # fmt: skip
    return fields[:148] + f"{sum(fields):06o}\0 ".encode() + fields[156:]
