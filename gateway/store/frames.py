"""What goes over the link between the gate and the process that owns the store's file.

Guarantees: what arrives is what was sent, in order and whole; the owner's process takes nothing but values of the port,
whatever its bytes name; the gate reads answers as JSON. Leaves to `process_client` and `process_driver` the two ends.

**Security**: both ends are this program and the link is a socket pair that nobody else holds, so pickle's usual danger
(bytes from a stranger) does not arise; that only the port's own types can be named is a second fence.
"""

from __future__ import annotations

import io
import pickle
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson
from msgspec.structs import astuple

from gateway.approvals import model
from gateway.errors import GateMisuse
from gateway.ledger.record import Appended, FrozenRecord
from gateway.store import port
from gateway.store.port import BatchItem, BatchResult, StoreConflict, StoreEffect, StoreUnavailable

_LENGTH: Final = struct.Struct("<I")
FRAME_MAX_BYTES: Final = 1 << 30
_MODULES: Final = {model.__name__: model, port.__name__: port}


@dataclass(frozen=True, slots=True)
class Opening:
    """What the owner's process needs to know: the file, the secret that values are sealed under, whether to flush
    (not flushing is for measurements), and how long it waits idle before it looks after the file."""

    path: str
    secret: bytes
    flush: bool = True
    idle_seconds: float = 1.0


class FrameReader:
    """Cuts a stream of bytes into frames."""

    __slots__ = ("_held",)

    def __init__(self) -> None:
        self._held = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """The frames that are whole now. Raises `GateMisuse` for a length that no end writes.

        What is not whole yet is gathered in place: a batch of large answers comes in thousands of pieces.
        """
        held = self._held
        held += data
        found: list[bytes] = []
        at, size = 0, len(held)
        while size - at >= _LENGTH.size:
            end = at + _LENGTH.size + _LENGTH.unpack_from(held, at)[0]
            if end - at > FRAME_MAX_BYTES:
                raise GateMisuse("a frame of the store's link is longer than any")
            if end > size:
                break
            found.append(bytes(memoryview(held)[at + _LENGTH.size : end]))
            at = end
        del held[:at]
        return found


def framed(payload: bytes) -> bytes:
    """A payload as it goes over the link."""
    return _LENGTH.pack(len(payload)) + payload


# -- to the owner ------------------------------------------------------------------------------------------------------


def encode_opening(opening: Opening) -> bytes:
    """The first frame."""
    return framed(pickle.dumps((opening.path, opening.secret, opening.flush, opening.idle_seconds), 5))


def decode_opening(payload: bytes) -> Opening:
    """Errors: `pickle.UnpicklingError`."""
    return Opening(*_Values(io.BytesIO(payload)).load())


def encode_batch(items: Sequence[BatchItem]) -> bytes:
    """A frame of records and effects; a record goes as a plain tuple."""
    return framed(pickle.dumps([(astuple(item.record), item.effects) for item in items], 5))


def decode_batch(payload: bytes) -> list[BatchItem]:
    """Errors: `pickle.UnpicklingError` for a type that is none of the port's."""
    parts: list[tuple[Any, tuple[StoreEffect, ...]]] = _Values(io.BytesIO(payload)).load()
    return [BatchItem(FrozenRecord(*record), effects) for record, effects in parts]


class _Values(pickle.Unpickler):
    """Values of the port, built of plain ones."""

    def find_class(self, module_name: str, name: str) -> Any:
        module = _MODULES.get(module_name)
        found = getattr(module, name, None)
        if isinstance(found, type) and found.__module__ == module_name and not issubclass(found, BaseException):
            return found
        raise pickle.UnpicklingError(f"{module_name}.{name} is no value of the store's port")


# -- from the owner ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Opened:
    """The file is open, and the tail of each log verifies."""


@dataclass(frozen=True, slots=True)
class Noted:
    """What the owner found while nothing was asked of it: what is wrong, or that nothing is."""

    failure: str | None


@dataclass(frozen=True, slots=True)
class Answered:
    """What became of each item of a batch, in order."""

    results: tuple[Any, ...]

    def of(self, items: Sequence[BatchItem]) -> list[BatchResult]:
        """The results of these items. Raises `GateMisuse` when there are more or fewer."""
        if len(items) != len(self.results):
            raise GateMisuse("the store answered for other items than were sent")
        return [_result(item, result) for item, result in zip(items, self.results, strict=True)]


Reply = Opened | Noted | Answered | StoreUnavailable


def encode_reply(reply: Opened | Noted | StoreUnavailable | Sequence[BatchResult]) -> bytes:
    """A frame of what the owner says; results go as a list."""
    if isinstance(reply, Opened):
        document: Any = {"opened": True}
    elif isinstance(reply, Noted):
        document = {"noted": reply.failure}
    elif isinstance(reply, StoreUnavailable):
        document = {"failed": [reply.code, reply.detail, reply.fatal]}
    else:
        document = [_told(result) for result in reply]
    return framed(orjson.dumps(document))


def decode_reply(payload: bytes) -> Reply:
    """Raises `GateMisuse` for what no owner says."""
    document = orjson.loads(payload)
    if isinstance(document, list):
        return Answered(tuple(document))
    match document:
        case {"opened": True}:
            return Opened()
        case {"noted": failure}:
            return Noted(failure)
        case {"failed": [code, detail, fatal]}:
            return StoreUnavailable(code, detail, fatal=fatal)
    raise GateMisuse("the store's process said something that means nothing")


def _told(result: BatchResult) -> object:
    if isinstance(result, Appended):
        return [result.seq, result.hash]
    if isinstance(result, StoreConflict):
        return {"conflict": [result.code, result.detail], "call": result.call}
    return {"unavailable": [result.code, result.detail]}


def _result(item: BatchItem, told: Any) -> BatchResult:
    if isinstance(told, list):
        return Appended(item.record.log, told[0], told[1])
    if "conflict" in told:
        return StoreConflict(*told["conflict"], call=told["call"])
    return StoreUnavailable(*told["unavailable"])
