"""The embedded engine: OPA's own compiler, run in process by wasmtime.

Guarantees an answer only from exactly one result of a policy that was compiled under the profile; every trap, abort,
spent fuel, exhausted memory or undefined decision raises, and the instance it happened in is never asked again.
Leaves the meaning of the answer to ``pdp.decision_document`` and swapping to ``pdp.prepared``.

**Security**: the rules come from measurements of OPA's WebAssembly runtime: an instance that trapped answers wrongly
later, data under a package's path replaces rules, and some of its builtins lose a denial, so a bundle without the
profile is refused.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import wasmtime

from pdp.engine import ENTRYPOINT
from pdp.errors import EngineFailed, PolicyRefused
from pdp.wasm.answer import single_result
from pdp.wasm.calls import unchecked_calls_work
from pdp.wasm.data import check_names, data_pieces
from pdp.wasm.instance import PolicyInstance
from pdp.wasm.limits import WasmLimits
from pdp.wasm.module_cache import ModuleCache
from pdp.wasm.packages import check_apart, check_texts_apart, package_paths

if TYPE_CHECKING:
    from bundles.canonical import JsonValue
    from bundles.content import BundleContent

PROFILES = frozenset(("1",))
ENGINE_NAME = "wasm"


class WasmEngine:
    """Prepares bundles for evaluation in process."""

    def __init__(
        self,
        cache_dir: Path | None = None,
        cache_key: bytes | None = None,
        limits: WasmLimits | None = None,
        *,
        unchecked: bool = True,
        self_test: Callable[[wasmtime.Engine], bool] = unchecked_calls_work,
    ) -> None:
        """Without a directory and a key nothing is cached. ``unchecked`` False takes the slower, documented call."""
        self._limits = limits if limits is not None else WasmLimits()
        self._cache = ModuleCache(cache_dir, cache_key) if cache_dir is not None and cache_key is not None else None
        config = wasmtime.Config()
        config.consume_fuel = True
        config.wasm_threads = False
        config.wasm_memory64 = False
        config.wasm_multi_memory = False
        config.max_wasm_stack = self._limits.stack_max_bytes
        self._engine = wasmtime.Engine(config)
        self._settings = f"wasmtime {version('wasmtime')} stack {self._limits.stack_max_bytes} fuel"
        self.cache_failures = 0
        """Modules that could not be stored, which only makes the next start slower."""
        self._unchecked = unchecked and self_test(self._engine)

    @property
    def name(self) -> str:
        """``wasm``."""
        return ENGINE_NAME

    @property
    def unchecked(self) -> bool:
        """Whether the quick call passed its self-test and is used."""
        return self._unchecked

    def prepare(self, bundle: BundleContent) -> WasmPolicy:
        """Compile and load a bundle; raises ``PolicyRefused``. Takes up to seconds: call it in a thread."""
        if bundle.profile not in PROFILES:
            raise PolicyRefused(f"the bundle's profile is {bundle.profile!r}", code="policy_profile_missing")
        if ENTRYPOINT not in bundle.entrypoints:
            raise PolicyRefused(f"the bundle has no entry point {ENTRYPOINT}", code="policy_entrypoint_missing")
        packages = package_paths(bundle.rego)
        check_apart(bundle.data, packages)
        check_texts_apart(bundle, packages)
        check_names(bundle.data)
        return self.prepare_parts(bundle.wasm, bundle.data, bundle.texts)

    def prepare_parts(
        self, wasm: bytes | None, data: Mapping[str, JsonValue], texts: Mapping[str, bytes] | None = None
    ) -> WasmPolicy:
        """Load a module and data that are not yet a bundle, as the build does to prove that both engines agree."""
        if wasm is None:
            raise PolicyRefused("the bundle has no policy.wasm", code="policy_wasm_missing")
        if len(wasm) > self._limits.wasm_max_bytes:
            raise PolicyRefused(f"policy.wasm has {len(wasm)} bytes", code="policy_wasm_invalid")
        pieces = data_pieces(data, texts or {})
        # What the compiler counts as the least memory leaves out the policy's texts, which are a part of these bytes.
        limits = replace(self._limits, start_memory_bytes=self._limits.start_memory_bytes + len(wasm))
        policy = WasmPolicy(self._engine, self._module(wasm), pieces, limits, unchecked=self._unchecked)
        try:
            policy.renew()
        except EngineFailed as failed:
            raise PolicyRefused(f"loading failed: {failed.detail}", code="policy_load_failed") from failed
        return policy

    def cache_name(self, wasm: bytes) -> str:
        """What a module compiled from these bytes is cached by: everything its code depends on."""
        return f"{self._settings} {hashlib.sha256(wasm).hexdigest()}"

    def _module(self, wasm: bytes) -> wasmtime.Module:
        name = self.cache_name(wasm)
        stored = self._cache.get(name) if self._cache is not None else None
        try:
            if stored is not None:
                return wasmtime.Module.deserialize(self._engine, stored)
        except wasmtime.WasmtimeError:
            # Ours, but made by another build of wasmtime: compile, and store what this one makes.
            stored = None
        try:
            module = wasmtime.Module(self._engine, wasm)
        except wasmtime.WasmtimeError as refused:
            raise PolicyRefused("policy.wasm is not a valid module", code="policy_wasm_invalid") from refused
        if self._cache is not None:
            try:
                self._cache.put(name, bytes(module.serialize()))
            except OSError:
                # The cache saves time, nothing else: a full disk must not keep a sound policy out of force.
                self.cache_failures += 1
        return module


class WasmPolicy:
    """One prepared bundle. Used by one thread at a time."""

    def __init__(
        self,
        engine: wasmtime.Engine,
        module: wasmtime.Module,
        data: tuple[bytes, ...],
        limits: WasmLimits,
        *,
        unchecked: bool,
    ) -> None:
        self._engine = engine
        self._module = module
        self._data = data
        self._limits = limits
        self._unchecked = unchecked
        self._instance: PolicyInstance | None = None
        self._entrypoint = 0
        self._was_ready = self._closed = False

    @property
    def name(self) -> str:
        """``wasm``."""
        return ENGINE_NAME

    @property
    def ready(self) -> bool:
        """Whether an instance stands; False after a failure, until ``renew``."""
        return self._instance is not None

    def decide(self, input_bytes: bytes) -> bytes:
        """The one decision document's bytes; raises ``EngineFailed`` and discards the instance for anything else."""
        instance = self._instance
        if instance is None:
            self.renew()
            return self.decide(input_bytes)
        try:
            return single_result(instance.evaluate(self._entrypoint, input_bytes))
        except EngineFailed:
            self._discard()
            raise
        except Exception as failed:
            self._discard()
            raise EngineFailed("the engine's host failed") from failed

    def renew(self) -> None:
        """Make the instance anew if there is none; raises ``EngineFailed`` or, the first time, ``PolicyRefused``."""
        if self._closed:
            raise EngineFailed("the policy is closed")
        if self._instance is not None:
            return
        instance = PolicyInstance(
            self._engine,
            self._module,
            self._data,
            self._limits,
            unchecked=self._unchecked,
            gives_way=not self._was_ready,  # calls wait for one that failed, for the first nobody waits
        )
        entrypoint = instance.entrypoint(ENTRYPOINT)
        if entrypoint is None:
            instance.close()
            raise PolicyRefused(f"policy.wasm has no entry point {ENTRYPOINT}", code="policy_entrypoint_missing")
        self._entrypoint = entrypoint
        self._instance, self._was_ready = instance, True

    def close(self) -> None:
        """Free the instance; asking afterwards raises ``EngineFailed``."""
        self._closed = True
        self._discard()

    def _discard(self) -> None:
        instance, self._instance = self._instance, None
        if instance is not None:
            instance.close()
