"""Compiled modules on disk: only our own come back."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bundles.trusted_set import TrustedBundle
from pdp.documents import encode_input
from pdp.wasm.host import WasmEngine
from pdp.wasm.module_cache import ModuleCache, ModuleCacheUnusable
from tests.pdp.parts import QUESTION

KEY = b"k" * 32
OTHER_KEY = b"o" * 32


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "modules"


def entry(directory: Path) -> Path:
    """The one file in the cache."""
    (path,) = directory.iterdir()
    return path


def test_get_gives_what_was_put_when_nothing_changed(directory: Path) -> None:
    ModuleCache(directory, KEY).put("a", b"module")
    assert ModuleCache(directory, KEY).get("a") == b"module"
    assert ModuleCache(directory, KEY).get("b") is None
    assert directory.stat().st_mode & 0o777 == 0o700
    assert entry(directory).stat().st_mode & 0o777 == 0o600


def test_put_replaces_when_the_name_is_taken(directory: Path) -> None:
    cache = ModuleCache(directory, KEY)
    cache.put("a", b"old")
    cache.put("a", b"new")
    assert cache.get("a") == b"new"
    entry(directory)


@pytest.mark.parametrize("at", range(38))
def test_get_removes_the_file_when_any_byte_is_flipped(directory: Path, at: int) -> None:
    cache = ModuleCache(directory, KEY)
    cache.put("a", b"module")
    raw = bytearray(entry(directory).read_bytes())
    raw[at] ^= 1
    entry(directory).write_bytes(raw)
    assert cache.get("a") is None
    assert not list(directory.iterdir())


@pytest.mark.parametrize("raw", [b"", b"x", b"x" * 32, b"x" * 40], ids=["empty", "a byte", "only a tag", "a wrong tag"])
def test_get_removes_the_file_when_it_is_not_ours(directory: Path, raw: bytes) -> None:
    cache = ModuleCache(directory, KEY)
    cache.put("a", b"module")
    entry(directory).write_bytes(raw)
    assert cache.get("a") is None
    assert not list(directory.iterdir())


def test_get_removes_the_file_when_another_key_wrote_it(directory: Path) -> None:
    ModuleCache(directory, OTHER_KEY).put("a", b"module")
    assert ModuleCache(directory, KEY).get("a") is None


def test_get_refuses_when_a_file_was_renamed_to_another_modules_name(directory: Path) -> None:
    cache = ModuleCache(directory, KEY)
    cache.put("old policy", b"module")
    swapped = entry(directory).read_bytes()
    cache.put("new policy", b"module two")
    for path in directory.iterdir():
        path.write_bytes(swapped)
    assert cache.get("new policy") is None
    assert cache.get("old policy") == b"module"


def test_get_does_not_follow_when_the_file_is_a_link(directory: Path, tmp_path: Path) -> None:
    cache = ModuleCache(directory, KEY)
    cache.put("a", b"module")
    elsewhere = tmp_path / "elsewhere"
    entry(directory).rename(elsewhere)
    made = ModuleCache(directory, KEY)
    made.put("a", b"module")
    path = entry(directory)
    path.unlink()
    path.symlink_to(elsewhere)
    assert cache.get("a") is None
    assert elsewhere.exists()


@pytest.mark.parametrize("mode", [0o701, 0o770, 0o750, 0o755, 0o777, 0o704])
def test_cache_is_unusable_when_others_may_enter(directory: Path, mode: int) -> None:
    directory.mkdir()
    directory.chmod(mode)
    with pytest.raises(ModuleCacheUnusable, match="0700"):
        ModuleCache(directory, KEY)


def test_cache_is_unusable_when_another_user_owns_it(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory.mkdir(mode=0o700)
    monkeypatch.setattr(os, "getuid", lambda: directory.stat().st_uid + 1)
    with pytest.raises(ModuleCacheUnusable):
        ModuleCache(directory, KEY)


def test_cache_is_unusable_when_the_directory_is_a_link(directory: Path, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir(mode=0o700)
    directory.symlink_to(tmp_path / "real")
    with pytest.raises(ModuleCacheUnusable, match="not a directory"):
        ModuleCache(directory, KEY)


def test_cache_is_unusable_when_a_file_is_in_its_place(directory: Path) -> None:
    directory.write_bytes(b"")
    with pytest.raises(ModuleCacheUnusable):
        ModuleCache(directory, KEY)


@pytest.mark.parametrize("key", [b"", b"k" * 31])
def test_cache_is_unusable_when_the_key_is_short(directory: Path, key: bytes) -> None:
    with pytest.raises(ModuleCacheUnusable, match="key"):
        ModuleCache(directory, key)


def test_engine_loads_from_the_cache_when_it_compiled_before(directory: Path, rules: TrustedBundle) -> None:
    question = encode_input(QUESTION)
    first = WasmEngine(directory, KEY).prepare(rules)
    written = entry(directory).stat()
    second = WasmEngine(directory, KEY).prepare(rules)
    assert entry(directory).stat().st_mtime_ns == written.st_mtime_ns
    assert first.decide(question) == second.decide(question)


def test_engine_compiles_again_when_the_cached_module_is_of_another_build(
    directory: Path, rules: TrustedBundle
) -> None:
    question = encode_input(QUESTION)
    engine = WasmEngine(directory, KEY)
    expected = engine.prepare(rules).decide(question)
    written = entry(directory)
    inode = written.stat().st_ino
    ModuleCache(directory, KEY).put(engine.cache_name(rules.wasm or b""), b"made by another build")
    assert written.stat().st_ino != inode
    assert WasmEngine(directory, KEY).prepare(rules).decide(question) == expected
    assert written.stat().st_size > 1_000


def test_engine_goes_on_and_counts_when_the_cache_cannot_be_written(directory: Path, rules: TrustedBundle) -> None:
    engine = WasmEngine(directory, KEY)
    directory.rmdir()
    assert engine.prepare(rules).decide(encode_input(QUESTION))
    assert engine.cache_failures == 1


def test_put_leaves_nothing_behind_when_the_place_is_taken_by_a_directory(directory: Path) -> None:
    cache = ModuleCache(directory, KEY)
    cache.put("a", b"module")
    taken = entry(directory)
    taken.unlink()
    taken.mkdir()
    with pytest.raises(OSError, match="directory"):
        cache.put("a", b"module")
    assert entry(directory) == taken
