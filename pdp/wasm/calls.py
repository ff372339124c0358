"""Calling a module's functions in a few microseconds, and knowing that it is safe to.

Guarantees that a call either returns the function's result or raises: a trap is never a value. The quick way writes the
arguments straight into wasmtime's raw slots and leaves out wasmtime-py's conversions (19 against 78 µs a decision).
It rests on wasmtime-py's private module, so ``unchecked_calls_work`` tries it on a module made for the purpose, and
whoever calls uses the typed way when that fails.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Callable
from typing import Any, Protocol

import wasmtime
from wasmtime import _ffi as ffi
from wasmtime import _func

from pdp.errors import EngineFailed

ARGUMENTS = 7
"""``opa_eval`` takes a reserved word, entry point, data, input, input length, heap pointer and format."""

_WORD = (1 << 32) - 1


class ModuleCall(Protocol):
    """A function of one instance that takes 32-bit integers and gives one, as ``opa_eval`` takes seven."""

    def __call__(self, *arguments: int) -> int:
        """Call it and get its word, an address in general; raises ``EngineFailed``."""


class TypedCall:
    """The way wasmtime-py documents."""

    def __init__(self, store: wasmtime.Store, function: wasmtime.Func, count: int) -> None:
        """``count`` is how many arguments the function takes; wasmtime-py counts them itself."""
        self._store = store
        self._function = function

    def __call__(self, *arguments: int) -> int:
        """Call through wasmtime-py's conversions."""
        try:
            result = self._function(self._store, *arguments)
        except (wasmtime.Trap, wasmtime.WasmtimeError) as failed:
            raise EngineFailed(describe(failed)) from failed
        if not isinstance(result, int):
            raise EngineFailed("a function of the module did not return an address")
        return result & _WORD


class UncheckedCall:
    """The quick way: raw slots, no conversions."""

    def __init__(self, store: wasmtime.Store, function: wasmtime.Func, count: int) -> None:
        """``count`` is how many arguments the function takes."""
        slot_bytes = ctypes.sizeof(ffi.wasmtime_val_raw_t)
        self._slots = (ffi.wasmtime_val_raw_t * count)()
        self._write = struct.Struct("=" + f"I{slot_bytes - 4}x" * count).pack_into
        self._words = (ctypes.c_uint32 * (slot_bytes // 4 * count)).from_buffer(self._slots)
        self._count = count
        self._kept = (store, function)
        self._context = place_of(store)
        self._function = ctypes.addressof(function._func)
        self._first = ctypes.addressof(self._slots)
        self._trap = ctypes.c_void_p()
        self._trap_out = ctypes.addressof(self._trap)
        self._call = native("wasmtime_func_call_unchecked")

    def __call__(self, *arguments: int) -> int:
        """Call with the arguments as they are."""
        self._write(self._slots, 0, *arguments)
        error = self._call(self._context, self._function, self._first, self._count, self._trap_out)
        if error or self._trap.value:
            raise self._failure(error)
        return self._words[0]

    def _failure(self, error: int | None) -> EngineFailed:
        # What a callback raised was left for the typed call to raise; the trap says enough.
        _func.LAST_EXCEPTION = None
        trap, self._trap.value = self._trap.value or 0, None
        if error:
            return engine_error(error)
        return EngineFailed(describe(wasmtime.Trap._from_ptr(ctypes.cast(trap, ctypes.POINTER(ffi.wasm_trap_t)))))


def unchecked_callback(
    store: wasmtime.Store, kind: wasmtime.FuncType, answer: ModuleCall
) -> tuple[wasmtime.Func, object]:
    """A function of the host that takes 32-bit integers and gives one, called without conversions.

    What ``answer`` raises stops the module. The second of the pair has to live as long as ``store``.
    """
    count = len(kind.params)
    slot_bytes = ctypes.sizeof(ffi.wasmtime_val_raw_t)
    words = ctypes.c_int32 * (slot_bytes // 4 * max(count, 1))
    step = slot_bytes // 4

    def called(_: int, __: int, slots: int, ___: int) -> int:
        try:
            at = words.from_address(slots)
            at[0] = answer(*at[: count * step : step])
        except BaseException:
            # Whoever gave ``answer`` knows why; here it only has to stop, as no exception passes through C.
            return ctypes.cast(wasmtime.Trap("stopped by the host")._consume(), ctypes.c_void_p).value or 0
        return 0

    kept = _CALLBACK(called)
    function = ffi.wasmtime_func_t()
    make = ffi.dll["wasmtime_func_new_unchecked"]
    make.argtypes = [ctypes.c_void_p, ctypes.c_void_p, _CALLBACK, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p]
    make.restype = None
    make(store._context(), kind.ptr(), kept, None, None, ctypes.byref(function))
    return wasmtime.Func._from_raw(function), kept


_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_size_t, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)


def native(name: str) -> Any:
    """A function of wasmtime's C API that takes and gives addresses as plain integers, which spares a call half a microsecond
    of ctypes' pointer objects. Whoever passes an address keeps what lies there."""
    declared = getattr(ffi, "_" + name, None) or getattr(ffi.dll, name)
    prototype = ctypes.CFUNCTYPE(_plain(declared.restype), *map(_plain, declared.argtypes))
    return prototype((name, ffi.dll))


def _plain(kind: Any) -> Any:
    return ctypes.c_void_p if isinstance(kind, type) and issubclass(kind, ctypes._Pointer) else kind


def place_of(store: wasmtime.Store) -> int:
    """The address of a store's context, good for as long as the store is open."""
    return ctypes.cast(store._context(), ctypes.c_void_p).value or 0


def engine_error(address: int) -> EngineFailed:
    """What an error of wasmtime's says, which is freed with it."""
    error = ctypes.cast(address, ctypes.POINTER(ffi.wasmtime_error_t))
    return EngineFailed(describe(wasmtime.WasmtimeError._from_ptr(error)))


def describe(failed: Exception) -> str:
    """A short, stable reason for records: what stopped the engine, without addresses or names of functions."""
    code = failed.trap_code if isinstance(failed, wasmtime.Trap) else None
    if code is not None:
        return _TRAPS.get(code, code.name.lower().replace("_", " "))
    text = str(failed)
    for sign, reason in _SIGNS:
        if sign in text:
            return reason
    return "the engine stopped"


_TRAPS = {
    wasmtime.TrapCode.OUT_OF_FUEL: "out of fuel",
    wasmtime.TrapCode.STACK_OVERFLOW: "stack exhausted",
    wasmtime.TrapCode.MEMORY_OUT_OF_BOUNDS: "memory out of bounds",
    wasmtime.TrapCode.UNREACHABLE: "unreachable code",
}
_SIGNS = (("all fuel consumed", "out of fuel"), ("call stack exhausted", "stack exhausted"))

_SELF_TEST = """
(module
  (import "env" "tell" (func $tell (param i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (func (export "weigh") (param i32 i32 i32 i32 i32 i32 i32) (result i32)
    (i32.add (local.get 0) (i32.add (i32.mul (local.get 1) (i32.const 3)) (i32.add (i32.mul (local.get 2) (i32.const 9))
      (i32.add (i32.mul (local.get 3) (i32.const 27)) (i32.add (i32.mul (local.get 4) (i32.const 81))
        (i32.add (i32.mul (local.get 5) (i32.const 243)) (i32.mul (local.get 6) (i32.const 729)))))))))
  (func (export "ask") (param i32 i32 i32 i32 i32 i32 i32) (result i32)
    (call $tell (local.get 6) (local.get 0) (local.get 1)))
  (func (export "stop") (param i32 i32 i32 i32 i32 i32 i32) (result i32) unreachable)
  (func (export "spin") (param i32 i32 i32 i32 i32 i32 i32) (result i32) (loop (br 0)) unreachable))
"""


def unchecked_calls_work(
    engine: wasmtime.Engine,
    call: Callable[[wasmtime.Store, wasmtime.Func, int], ModuleCall] = UncheckedCall,
    callback: Callable[
        [wasmtime.Store, wasmtime.FuncType, ModuleCall], tuple[wasmtime.Func, object]
    ] = unchecked_callback,
) -> bool:
    """Whether the quick ways pass arguments in order, return the result, and report traps and spent fuel."""
    store = wasmtime.Store(engine)
    told: list[tuple[int, ...]] = []
    try:
        store.set_fuel(100_000)
        module = wasmtime.Module(engine, _SELF_TEST)
        kind = module.imports[0].type
        tell, kept = callback(store, kind, lambda *words: _told(told, words))  # type: ignore[arg-type]
        exports = wasmtime.Instance(store, module, [tell]).exports(store)
        weigh, ask, stop, spin = (exports[name] for name in ("weigh", "ask", "stop", "spin"))
        for arguments in ((1, 2, 3, 4, 5, 6, 7), (0xFFFFFFFF, 0, 0, 0, 0, 0, 0), (7, 6, 5, 4, 3, 2, 1)):
            weight = sum(word * 3**place for place, word in enumerate(arguments)) & _WORD
            if call(store, weigh, ARGUMENTS)(*arguments) != weight:  # type: ignore[arg-type]
                return False
        answers = [call(store, ask, ARGUMENTS)(first, 5, 0, 0, 0, 0, 9) for first in (1, 2)]  # type: ignore[arg-type]
        if answers != [1, 2] or told != [(9, 1, 5), (9, 2, 5)]:
            return False
        asks_in_vain = _raises(call(store, ask, ARGUMENTS), 0)  # type: ignore[arg-type]
        stops = all(_raises(call(store, trap, ARGUMENTS), 1) for trap in (stop, spin))  # type: ignore[arg-type]
        return asks_in_vain and stops and kept is not None
    except (AttributeError, TypeError, ValueError, struct.error, ctypes.ArgumentError, EngineFailed):
        return False
    finally:
        store.close()


def _told(told: list[tuple[int, ...]], words: tuple[int, ...]) -> int:
    """Note what was told; the second word is the answer, and 0 raises."""
    if words[1] == 0:
        raise ValueError("asked to stop")
    told.append(words)
    return words[1]


def _raises(call: ModuleCall, first: int) -> bool:
    try:
        call(first, *range(ARGUMENTS - 1))
    except EngineFailed:
        return True
    return False
