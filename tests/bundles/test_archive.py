"""Archives: what the reader refuses, at each limit and one past it, and that writing is deterministic."""

from __future__ import annotations

import gzip
import tarfile
import time
import zlib
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bundles.archive import ArchiveLimits, read_archive, unpacks_beyond, write_archive
from bundles.errors import BundleMisuse, BundleRefused
from tests.bundles.parts import link, tarred

GOOD = ("a.rego", b"package a")


def _header_changed(position: int, byte: int) -> bytes:
    tar = bytearray(gzip.decompress(tarred(GOOD)))
    tar[position] = byte
    return gzip.compress(bytes(tar))


def _rechecked(position: int, content: bytes) -> bytes:
    """A header field replaced and the checksum made right again."""
    tar = bytearray(gzip.decompress(tarred(GOOD)))
    tar[position : position + len(content)] = content
    tar[148:156] = b" " * 8
    tar[148:156] = f"{sum(tar[:512]):06o}\0 ".encode()
    return gzip.compress(bytes(tar))


def _bomb(total: int) -> bytes:
    """A gzip stream of ``total`` zeros, made of one compressed block repeated."""
    chunk = bytes(64 << 20)
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    block = packer.compress(chunk) + packer.flush(zlib.Z_FULL_FLUSH)
    return b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x02\xff" + block * (total // len(chunk))


REFUSED: dict[str, Callable[[], bytes]] = {
    "not gzip": lambda: b"PK\x03\x04",
    "nothing": lambda: b"",
    "cut in the middle": lambda: tarred(GOOD)[:-12],
    "followed by more data": lambda: tarred(GOOD) + b"x",
    "followed by a second gzip member": lambda: tarred(GOOD) + tarred(("b.rego", b"")),
    "an empty gzip": lambda: gzip.compress(b""),
    "without an end mark": lambda: gzip.compress(gzip.decompress(tarred(GOOD))[:1024]),
    "cut inside a file": lambda: gzip.compress(gzip.decompress(tarred(("a", b"x" * 2000)))[:1024]),
    "hiding a member behind the end mark": lambda: gzip.compress(
        gzip.decompress(tarred(GOOD))[:2048] + gzip.decompress(tarred(("b", b"y")))
    ),
    "a symlink": lambda: tarred(link("a", tarfile.SYMTYPE)),
    "a hard link": lambda: tarred(link("a", tarfile.LNKTYPE)),
    "a device": lambda: tarred(link("a", tarfile.CHRTYPE)),
    "a folder": lambda: tarred(link("a", tarfile.DIRTYPE)),
    "a pipe": lambda: tarred(link("a", tarfile.FIFOTYPE)),
    "a pax header": lambda: tarred(("é" * 80, b""), form=tarfile.PAX_FORMAT),
    "a GNU long name": lambda: tarred(("a" * 150, b""), form=tarfile.GNU_FORMAT),
    "a climb": lambda: tarred(("../a", b"")),
    "a climb inside": lambda: tarred(("a/../../b", b"")),
    "a single dot": lambda: tarred(("./a", b"")),
    "two leading slashes": lambda: tarred(("//etc/passwd", b"")),
    "an empty segment": lambda: tarred(("a//b", b"")),
    "a backslash": lambda: tarred(("a\\b", b"")),
    "a drive": lambda: tarred(("c:a", b"")),
    "a space": lambda: tarred(("a b", b"")),
    "a control character": lambda: tarred(("a\x01", b"")),
    "no ASCII": lambda: tarred(("é", b"")),
    "no name": lambda: tarred(("/", b"")),
    "a name twice": lambda: tarred(GOOD, GOOD),
    "a name twice, once with a leading slash": lambda: tarred(GOOD, ("/a.rego", b"")),
    "two manifests": lambda: tarred((".manifest", b"{}"), (".manifest", b"{}")),
    "two names that differ in case only": lambda: tarred(GOOD, ("A.rego", b"")),
    "a wrong checksum": lambda: _header_changed(0, ord("b")),
    "no ustar mark": lambda: _rechecked(257, b"xxxxx"),
    "a size that is not octal": lambda: _rechecked(124, b"9"),
    "a size in base 256": lambda: _rechecked(124, b"\x80" + bytes(11)),
    "bytes behind a name's end": lambda: _rechecked(50, b"hidden"),
}  # fmt: skip


@pytest.mark.parametrize("make", REFUSED.values(), ids=REFUSED.keys())
def test_archive_is_refused_when_it_is_or_holds(make: Callable[[], bytes]) -> None:
    with pytest.raises(BundleRefused) as refused:
        read_archive(make())
    assert refused.value.code == "bundle_archive_invalid"


def test_bomb_is_refused_early_when_it_holds_ten_gigabytes_of_zeros() -> None:
    raw = _bomb(10 << 30)
    assert len(raw) < 12 << 20
    began = time.process_time()
    with pytest.raises(BundleRefused) as refused:
        read_archive(raw)
    assert refused.value.code == "bundle_too_large"
    assert time.process_time() - began < 2


LIMITS = {
    "files": (ArchiveLimits(files_max_count=2), lambda extra: tarred(*((f"f{n}", b"") for n in range(2 + extra)))),
    "a file": (ArchiveLimits(file_max_bytes=1000), lambda extra: tarred(("a", bytes(1000 + extra)))),
    "a name": (ArchiveLimits(name_max_bytes=20), lambda extra: tarred(("a" * (20 + extra), b""))),
    "all": (ArchiveLimits(total_max_bytes=10240), lambda extra: tarred(("a", bytes(7000 + 2000 * extra)))),
    "the ratio": (ArchiveLimits(ratio_max=1), lambda extra: tarred(("a", bytes((1 << 20) - 10240 + 8192 * extra)))),
}  # fmt: skip


@pytest.mark.parametrize(("limits", "make"), LIMITS.values(), ids=LIMITS.keys())
def test_archive_is_refused_when_one_past_the_limit_of(limits: ArchiveLimits, make: Callable[[int], bytes]) -> None:
    assert read_archive(make(0), limits)
    with pytest.raises(BundleRefused) as refused:
        read_archive(make(1), limits)
    assert refused.value.code == "bundle_too_large"


def test_archive_is_refused_when_its_own_size_is_one_past_the_limit() -> None:
    raw = tarred(GOOD)
    assert read_archive(raw, ArchiveLimits(archive_max_bytes=len(raw)))
    with pytest.raises(BundleRefused) as refused:
        read_archive(raw, ArchiveLimits(archive_max_bytes=len(raw) - 1))
    assert refused.value.code == "bundle_too_large"


NAMES = st.from_regex(r"[a-z0-9_.-]{1,30}(/[a-z0-9_-]{1,30}){0,5}", fullmatch=True).filter(
    lambda name: not {".", ".."} & set(name.split("/"))
)


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(NAMES, st.binary(max_size=1500), max_size=5))
def test_archive_comes_back_when_written_and_read(files: dict[str, bytes]) -> None:
    raw = write_archive(files)
    assert read_archive(raw) == files
    assert raw == write_archive(dict(reversed(files.items())))
    assert gzip.decompress(raw) and raw[4:8] == bytes(4)


def test_long_name_is_split_when_it_has_folders_and_refused_when_not() -> None:
    name = "/".join(["a" * 60, "b" * 60, "c"])
    assert read_archive(write_archive({name: b"x"})) == {name: b"x"}
    for bad in ("a" * 101, "../a", "a b", ""):
        with pytest.raises(BundleMisuse):
            write_archive({bad: b""})


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=600), st.integers(0, 2000))
def test_archive_is_read_or_refused_when_bytes_are_any(noise: bytes, position: int) -> None:
    tar = bytearray(gzip.decompress(tarred(GOOD, ("b", b"x" * 700))))
    tar[position : position + len(noise)] = noise
    for raw in (noise, gzip.compress(noise), gzip.compress(bytes(tar))):
        try:
            read_archive(raw)
        except BundleRefused as refused:
            assert refused.code in ("bundle_archive_invalid", "bundle_too_large")


PACKED = write_archive({"a.rego": b"package a\n" * 4_000})
UNPACKED_BYTES = len(gzip.decompress(PACKED))


@pytest.mark.parametrize(
    ("raw", "size_bytes", "beyond"),
    [
        pytest.param(PACKED, UNPACKED_BYTES, False, id="exactly as large"),
        pytest.param(PACKED, UNPACKED_BYTES - 1, True, id="one byte larger"),
        pytest.param(PACKED, len(PACKED) - 1, True, id="larger even packed"),
        pytest.param(PACKED[:-30], UNPACKED_BYTES, False, id="cut off"),
        pytest.param(b"no archive", 100, False, id="no archive"),
        pytest.param(b"", 0, False, id="nothing"),
    ],
)
def test_archive_unpacks_beyond_a_size_when_it_is_larger(raw: bytes, size_bytes: int, beyond: bool) -> None:
    assert unpacks_beyond(raw, size_bytes) is beyond
