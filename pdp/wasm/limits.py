"""The bounds of the embedded engine.

Guarantees only that every bound has a name, a unit and a default. The deadline is counted in instructions (wasmtime's
fuel), so the same question gives the same answer on a loaded and on an idle machine, and in a replay.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class WasmLimits:
    """What one decision and one load may use."""

    decision_fuel: int = 50_000_000
    """Instructions of one decision, about 14 ms; an ordinary one needs under 100,000."""
    input_fuel_per_byte: int = 200
    """Added for each byte of the input document: reading it costs up to 140, whatever the policy does."""
    host_call_fuel: int = 100_000
    """What one builtin of the host costs, about 30 us: a decision has room for some hundreds."""
    host_fuel_per_byte: int = 1_000
    """Added for each byte of a builtin's operands and result."""
    host_value_max_bytes: int = 1 << 20
    """An operand or a result of the host's builtins, in Rego's notation."""
    decision_memory_max_bytes: int = 96 << 20
    """What a decision may add to the memory that loading left behind; an input takes up to 60 times its size."""
    load_fuel: int = 20_000_000_000
    """Instructions of the start function and of parsing data, about 5 s; 20 MB of data need 2,000,000,000."""
    load_memory_max_bytes: int = 1 << 30
    """Memory after loading; data takes about 18 times its size."""
    start_memory_bytes: int = 1 << 20
    """Beyond the least that the module asks for, before its start; the module's own size is added."""
    wasm_max_bytes: int = 64 << 20
    answer_max_bytes: int = 1 << 20
    stack_max_bytes: int = 512 << 10
