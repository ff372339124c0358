"""What a policy asks of its host while it runs: builtins that OPA's compiler does not put into the Wasm.

Guarantees that every such call ends in OPA's own answer, in undefined where OPA reports an error, or in the end of the
decision; and that the host's work is paid from the decision's fuel, so that a decision that asks much ends no later than
one that calculates much. What a builtin answers is ``pdp.wasm.builtins``' own matter.

**Source**: OPA's WebAssembly ABI: ``opa_builtin0`` to ``opa_builtin4`` take a builtin's number, a context that nobody
reads, and addresses of values; they return an address, or 0 for undefined.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping

import wasmtime

from pdp.errors import EngineFailed
from pdp.wasm.builtins.table import Builtin
from pdp.wasm.builtins.values import Declined, Undefined, read_value, write_value
from pdp.wasm.calls import ModuleCall, engine_error, native, place_of
from pdp.wasm.limits import WasmLimits
from pdp.wasm.memory import SandboxMemory

EXPORTS = {"opa_value_dump": 1, "opa_value_parse": 2, "opa_malloc": 1}
"""What of the module is called meanwhile, and how many words each takes."""
IMPORTS = {f"opa_builtin{count}": count + 2 for count in range(5)}
"""The imports and how many words each takes."""


class Stopped(Exception):
    """Raised inside a callback so that the sandbox stops; the text is the reason for records."""


class HostCalls:
    """Answers one instance's calls; used while that instance runs, by its thread."""

    def __init__(
        self,
        store: wasmtime.Store,
        memory: SandboxMemory,
        calls: Mapping[str, ModuleCall],
        builtins: Mapping[int, tuple[str, Builtin]],
        limits: WasmLimits,
    ) -> None:
        """``calls`` are the module's ``EXPORTS``, ``builtins`` says which number stands for what."""
        self._memory = memory
        self._dump, self._parse, self._malloc = (calls[name] for name in EXPORTS)
        self._builtins = builtins
        self._limits = limits
        self._context = place_of(store)
        self._kept = store
        self._fuel = ctypes.c_uint64()
        self._fuel_out = ctypes.addressof(self._fuel)
        self._get_fuel = native("wasmtime_context_get_fuel")
        self._set_fuel = native("wasmtime_context_set_fuel")

    def answer(self, number: int, addresses: tuple[int, ...]) -> int:
        """The address of the value that a builtin gives for the values at ``addresses``; raises ``Stopped``."""
        name, builtin = self._builtins.get(number, ("", None))
        if builtin is None:
            raise Stopped("a builtin that the module does not list was called")
        try:
            texts = [self._memory.text(self._dump(address), self._limits.host_value_max_bytes) for address in addresses]
            self._pay(self._limits.host_call_fuel + self._limits.host_fuel_per_byte * sum(map(len, texts)))
            result = write_value(builtin(*map(read_value, texts)))
            self._pay(self._limits.host_fuel_per_byte * len(result))
            address = self._malloc(len(result))
            self._memory.write(address, result)
            value = self._parse(address, len(result))
        except Undefined:
            return 0
        except Declined as declined:
            raise Stopped(f"{name}: {declined}") from declined
        except EngineFailed as failed:
            raise Stopped(failed.detail) from failed
        except Exception as failed:
            raise Stopped(f"{name} failed: {type(failed).__name__}") from failed
        if value == 0:
            raise Stopped(f"{name}: the module does not read the answer")
        return value

    def _pay(self, fuel: int) -> None:
        """Take ``fuel`` from what the decision has left."""
        for error in (
            self._get_fuel(self._context, self._fuel_out),
            self._set_fuel(self._context, max(self._fuel.value - fuel, 0)),
        ):
            if error:
                raise engine_error(error)
        if self._fuel.value <= fuel:
            raise EngineFailed("out of fuel")
