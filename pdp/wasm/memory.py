"""The memory of a sandbox, read and written without following an address out of it.

Guarantees that an address the module gives is looked at inside its memory alone, and that no text is read past
the bound its reader names. It belongs to one thread at a time.
"""

from __future__ import annotations

import ctypes

import wasmtime

from pdp.errors import EngineFailed
from pdp.wasm.calls import native, place_of

_FIRST_READ_BYTES = 2_048


class SandboxMemory:
    """``base`` and ``size`` are where it lay and how large it was at the last ``look``."""

    __slots__ = ("_address_of", "_bytes_of", "_context", "_kept", "_reference", "base", "size")

    def __init__(self, store: wasmtime.Store, memory: wasmtime.Memory) -> None:
        self._kept = (store, memory)
        self._context = place_of(store)
        self._reference = ctypes.addressof(memory._memory)
        self._address_of = native("wasmtime_memory_data")
        self._bytes_of = native("wasmtime_memory_data_size")
        self.base = self.size = 0

    def look(self) -> None:
        """See where it lies and how large it is: it moves only when it grows, and only while the module runs."""
        size = self._bytes_of(self._context, self._reference)
        if size != self.size:
            self.size, self.base = size, self._address_of(self._context, self._reference)

    def write(self, address: int, data: bytes) -> None:
        """Put ``data`` at an address the module gave; raises ``EngineFailed``."""
        self.look()
        if address == 0 or address + len(data) > self.size:
            raise EngineFailed("the module gave an address outside its memory")
        ctypes.memmove(self.base + address, data, len(data))

    def text(self, address: int, most: int, *, strict: bool = True) -> bytes:
        """The bytes from ``address`` to the next NUL, never past the memory's end or ``most``."""
        self.look()
        if not 0 < address < self.size:
            raise EngineFailed("the module gave an address outside its memory")
        available = min(most + 1, self.size - address)
        chunk = min(_FIRST_READ_BYTES, available)
        while True:
            read = ctypes.string_at(self.base + address, chunk)
            end = read.find(b"\0")
            if end >= 0:
                return read[:end]
            if chunk == available:
                break
            chunk = min(chunk * 8, available)
        if strict:
            raise EngineFailed("the engine's answer has no end")
        return read
