"""One instance of a compiled policy, with its data loaded, answering questions through OPA's one-shot ABI.

Guarantees that loading and every single decision run under fuel and a memory cap, the start function included, and
that no address the module gives is followed outside its memory. An instance that raised must not be asked again:
whoever owns it discards it. It belongs to one thread at a time.

**Source**: OPA's WebAssembly ABI 1.2 and later: ``opa_eval`` resets the heap to the pointer it is given.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from typing import Any

import orjson
import wasmtime

from pdp.errors import EngineFailed, PolicyRefused
from pdp.wasm.builtins.table import find
from pdp.wasm.calls import (
    ARGUMENTS,
    TypedCall,
    UncheckedCall,
    describe,
    engine_error,
    native,
    place_of,
    unchecked_callback,
)
from pdp.wasm.host_calls import EXPORTS, IMPORTS, HostCalls, Stopped
from pdp.wasm.limits import WasmLimits
from pdp.wasm.memory import SandboxMemory
from pdp.wasm.yielding import yielding

ABI = (1, 2)
PAGE_BYTES = 65_536
_HEADROOM_BYTES = 256 << 10
_TEXT_MAX_BYTES = 1 << 20
_ALIGNMENT = 8
_MESSAGE_MAX_BYTES = 256
_JSON_FORMAT = 0
_LARGE_BYTES = 1 << 20
"""Of data: parsing less takes below 20 ms."""
_EXPORTS = (
    "opa_eval",
    "opa_malloc",
    "opa_json_parse",
    "opa_json_dump",
    "opa_heap_ptr_get",
    "opa_heap_ptr_set",
    "builtins",
    "entrypoints",
)


class PolicyInstance:
    """A sandbox holding one policy and its data."""

    def __init__(
        self,
        engine: wasmtime.Engine,
        module: wasmtime.Module,
        data: Sequence[bytes],
        limits: WasmLimits,
        *,
        unchecked: bool,
        gives_way: bool = False,
    ) -> None:
        """Instantiate and load; raises ``PolicyRefused`` for what is not admitted, ``EngineFailed`` for traps.

        ``gives_way`` is for instances that nobody waits for: large data is parsed at a low priority.
        """
        self._limits = limits
        self._aborted: str | None = None
        self._host_calls: HostCalls | None = None
        self._kept: list[object] = []
        self._imported: wasmtime.Memory | None = None
        self._functions: dict[str, wasmtime.Func] = {}
        self._entrypoints: dict[str, Any] = {}
        self._store = wasmtime.Store(engine)
        self._context = place_of(self._store)
        self._set_fuel = native("wasmtime_context_set_fuel")
        try:
            self._start(module, unchecked)
            self._admit()
            self._load(data, gives_way)
        except (wasmtime.Trap, wasmtime.WasmtimeError, Stopped) as failed:
            self.close()
            raise EngineFailed(self._abort_reason() or describe(failed)) from failed
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Free the instance's memory; a store left to the garbage collector would keep it for long."""
        self._store.close()

    def _abort_reason(self) -> str | None:
        """What a callback left behind when it stopped the sandbox."""
        return self._aborted

    def evaluate(self, entrypoint: int, input_bytes: bytes) -> bytes:
        """The raw answer to one encoded input document; raises ``EngineFailed``."""
        length, heap = len(input_bytes), self._heap
        fuel = self._fuel(length)
        if length > self._room:
            self._make_room(length, fuel)
        ctypes.memmove(self._memory.base + heap, input_bytes, length)  # nothing ran since the last look
        error = self._set_fuel(self._context, fuel)
        if error:
            raise engine_error(error)
        after_input = heap + length + -length % _ALIGNMENT
        try:
            address = self._eval(0, entrypoint, self._data, heap, length, after_input, _JSON_FORMAT)
        except EngineFailed as failed:
            raise EngineFailed(self._aborted or failed.detail) from failed
        except Stopped as failed:
            raise EngineFailed(self._abort_reason() or "aborted") from failed
        if self._aborted is not None:
            raise EngineFailed(self._aborted)
        return self._memory.text(address, self._limits.answer_max_bytes)

    def _fuel(self, length: int) -> int:
        return self._limits.decision_fuel + length * self._limits.input_fuel_per_byte

    def entrypoint(self, name: str) -> int | None:
        """The number of an entry point, if the module has it."""
        number = self._entrypoints.get(name)
        return number if isinstance(number, int) else None

    def _start(self, module: wasmtime.Module, unchecked: bool) -> None:
        """Create the memory the module imports and run its start function, both already bounded."""
        limits = self._limits
        self._store.set_limits(memory_size=limits.load_memory_max_bytes, instances=1, memories=1, tables=4)
        self._store.set_fuel(limits.load_fuel)
        self._call = UncheckedCall if unchecked else TypedCall
        imports = [self._import(wanted) for wanted in module.imports]
        if self._imported is None:
            raise PolicyRefused("the module imports no memory", code="policy_wasm_invalid")
        self._memory = SandboxMemory(self._store, self._imported)
        exports = wasmtime.Instance(self._store, module, imports).exports(self._store)
        self._check_abi(exports)
        self._exports = exports
        for name in _EXPORTS:
            self._functions[name] = self._exported(name)
        self._eval = self._call(self._store, self._functions["opa_eval"], ARGUMENTS)

    def _exported(self, name: str) -> wasmtime.Func:
        function = self._exports.get(name)
        if not isinstance(function, wasmtime.Func):
            raise PolicyRefused(f"the module does not export {name}", code="policy_wasm_invalid")
        return function

    def _import(self, wanted: wasmtime.ImportType) -> Any:
        """What the host gives the module: a memory, a way to abort, and the builtins that it answers."""
        kind = wanted.type
        if wanted.module == "env" and wanted.name == "memory" and isinstance(kind, wasmtime.MemoryType):
            pages = min(kind.limits.max or PAGE_BYTES, self._limits.load_memory_max_bytes // PAGE_BYTES)
            if kind.limits.min > pages:
                raise PolicyRefused("the module asks for more memory than allowed", code="policy_wasm_invalid")
            first = min(kind.limits.min + self._limits.start_memory_bytes // PAGE_BYTES, pages)
            self._imported = wasmtime.Memory(self._store, wasmtime.MemoryType(wasmtime.Limits(first, pages)))
            return self._imported
        if wanted.module == "env" and isinstance(kind, wasmtime.FuncType):
            words = [str(word) for word in kind.params]
            if wanted.name in ("opa_abort", "opa_println") and words == ["i32"] and not kind.results:
                return wasmtime.Func(self._store, kind, self._abort if wanted.name == "opa_abort" else _ignore)
            if words == ["i32"] * IMPORTS.get(wanted.name or "", -1):
                return self._host_function(kind)
        raise PolicyRefused(f"the module imports {wanted.module}.{wanted.name}", code="policy_import_unknown")

    def _host_function(self, kind: wasmtime.FuncType) -> wasmtime.Func:
        if self._call is TypedCall:
            return wasmtime.Func(self._store, kind, self._builtin)
        function, kept = unchecked_callback(self._store, kind, self._builtin)
        self._kept.append(kept)
        return function

    def _abort(self, address: int) -> None:
        self._aborted = "aborted"
        message = self._memory.text(address & 0xFFFFFFFF, _MESSAGE_MAX_BYTES, strict=False)
        self._aborted = f"aborted: {message.decode('utf-8', 'replace')}"
        raise Stopped(self._aborted)

    def _builtin(self, *words: int) -> int:
        if self._host_calls is None:
            self._aborted = "aborted: a builtin was called before the module was loaded"
            raise Stopped(self._aborted)
        try:
            return self._host_calls.answer(words[0], words[2:])
        except Stopped as stopped:
            self._aborted = str(stopped)
            raise

    def _check_abi(self, exports: Mapping[str, object]) -> None:
        versions = []
        for name in ("opa_wasm_abi_version", "opa_wasm_abi_minor_version"):
            value = exports.get(name)
            versions.append(value.value(self._store) if isinstance(value, wasmtime.Global) else None)
        if versions[0] != ABI[0] or not isinstance(versions[1], int) or versions[1] < ABI[1]:
            raise PolicyRefused(f"the module's ABI is {versions}, {list(ABI)} is needed", code="policy_wasm_invalid")

    def _admit(self) -> None:
        """Refuse a module that would call builtins which the host does not have; get the others ready."""
        numbers = self._object("builtins")
        found = find(numbers)
        unknown = sorted(numbers.keys() - found.keys())
        if unknown:
            names = ", ".join(unknown[:8])
            raise PolicyRefused(f"builtins outside the profile: {names}", code="policy_builtin_unknown")
        if found:
            named = {number: (name, found[name]) for name, number in numbers.items()}
            calls = {name: self._call(self._store, self._exported(name), count) for name, count in EXPORTS.items()}
            self._host_calls = HostCalls(self._store, self._memory, calls, named, self._limits)
        self._entrypoints = self._object("entrypoints")

    def _object(self, export: str) -> dict[str, Any]:
        address = self._word("opa_json_dump", self._word(export))
        try:
            value = orjson.loads(self._memory.text(address, _TEXT_MAX_BYTES))
        except orjson.JSONDecodeError as refused:
            raise PolicyRefused(f"the module's {export} are not JSON", code="policy_wasm_invalid") from refused
        if not isinstance(value, dict):
            raise PolicyRefused(f"the module's {export} are not an object", code="policy_wasm_invalid")
        return value

    def _load(self, data: Sequence[bytes], gives_way: bool) -> None:
        """Parse data once; what it leaves on the heap is the floor that every decision starts from.

        Every long step is a foreign call, in which the interpreter's lock is free.
        """
        length = sum(map(len, data))
        address = self._word("opa_malloc", length)
        place = address
        for piece in data:
            self._memory.write(place, piece)
            place += len(piece)

        def parsed() -> int:
            return self._word("opa_json_parse", address, length)

        self._data = yielding(parsed) if gives_way and length > _LARGE_BYTES else parsed()
        if self._data == 0:
            raise PolicyRefused("the bundle's data does not parse", code="policy_data_invalid")
        floor = self._word("opa_heap_ptr_get")
        self._heap = floor + -floor % _ALIGNMENT
        self._memory.look()
        self._store.set_limits(
            memory_size=self._memory.size + _HEADROOM_BYTES + self._limits.decision_memory_max_bytes,
            instances=1,
            memories=1,
            tables=4,
        )
        self._room = 0
        self._make_room(_HEADROOM_BYTES, self._limits.load_fuel)

    def _make_room(self, length: int, fuel: int) -> None:
        """Let the module itself grow its heap for an input of ``length``.

        Growing the memory from outside would leave the allocator's idea of its end behind, and every later allocation
        of a decision would then grow the memory by a page.
        """
        try:
            self._store.set_fuel(fuel)
            self._word("opa_heap_ptr_set", self._heap)
            self._word("opa_malloc", length + _ALIGNMENT)
            self._word("opa_heap_ptr_set", self._heap)
        except (wasmtime.Trap, wasmtime.WasmtimeError, Stopped) as failed:
            raise EngineFailed(self._aborted or describe(failed)) from failed
        self._memory.look()
        if self._heap + length > self._memory.size:
            raise EngineFailed("no room for the input document")
        self._room = length

    def _word(self, name: str, *arguments: int) -> int:
        result = self._functions[name](self._store, *arguments)
        return result & 0xFFFFFFFF if isinstance(result, int) else 0


def _ignore(_: int) -> None:
    """A policy's ``print`` goes nowhere: it could carry arguments into a log."""
