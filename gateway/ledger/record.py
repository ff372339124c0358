"""The ledger record: what it says, its one canonical form, and its hash.

Guarantees: `freeze` accepts only the restricted profile (no floats, integers within ±(2^53−1), ASCII keys, depth ≤ 16,
no lone surrogates), so that the bytes made by `seal` are RFC 8785 canonical JSON; members may come as bytes that passed
before. Those bytes are made once, hashed, stored and verified later. Everything that is known before the transaction is
encoded outside it; `seal` only splices in `seq`, `prev`, `hlc` and `wall`. Leaves to `gateway.ledger.writer` when a
record is durable, and to the store driver which `seq` and `prev` it gets.

**Source**: RFC 8785 (JCS); RFC 6962 §2.1 (leaf prefix 0x00).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, Final, Literal, Never

import orjson

from gateway.errors import GateMisuse
from pdp.value import Value

LogId = tuple[str, str]
"""(tenant, workspace): each has its own chain."""

RecordKind = Literal[
    "intent",
    "outcome",
    "call",
    "approval",
    "vote",
    "switch",
    "refusal",
    "response_began",
    "bundle",
    "evaluation",
    "opa_decision",
    "opa_status",
]

RECORD_VERSION: Final = 1
RECORD_MAX_BYTES: Final = 48 * 1024
DEPTH_MAX: Final = 16
INTEGER_MAX: Final = 2**53 - 1
LOG_NAME_MAX_BYTES: Final = 256
GENESIS_HASH: Final = "0" * 64
_SPLICE_MAX_BYTES: Final = 256


class RecordMalformed(GateMisuse):
    """A draft is outside the restricted profile or too large; `code` is stable, nothing was written."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail


class Canonical(bytes):
    """Canonical JSON of a value that passed the profile of a record's members; `canonical` makes it."""


Part = Mapping[str, object] | Canonical
"""A member of a record: a value, or the bytes it has in every record."""


class RecordDraft(Value, frozen=True):
    """What the caller says; the writer adds `v`, `seq`, `prev`, `hlc`, `wall` and `node`.

    `ids` holds `call`, `approval`, `dispatch`, `attempt` as far as they exist, `call` is the first of them again, for
    drafts whose `ids` are encoded already. By agreement an `outcome` or `call`
    record says how the call ended in `action`: `{"name", "mode", "instance", …, "status": 200, "code": null}`.
    Bodies and guessable values go in only as digests (`keyed_digest`).
    """

    log: LogId
    kind: RecordKind
    ids: Part
    subject: Part
    action: Part
    decision: Part | None
    policy: Part
    digests: Part
    actor: str
    mode: str = "enforce"
    call: str = ""


class FrozenRecord(Value, frozen=True):
    """A draft that passed the profile, encoded but for the four members that the transaction decides."""

    log: LogId
    kind: RecordKind
    call: str
    head: bytes
    middle: bytes
    tail: bytes


class Position(Value, frozen=True):
    """Where a record stands: its number and predecessor in the log, hybrid clock (ms, counter) and wall time (ms)."""

    seq: int
    prev: str
    hlc: tuple[int, int]
    wall: int


class Appended(Value, frozen=True):
    """A durable record: its log, number (from 0) and leaf hash (hex)."""

    log: LogId
    seq: int
    hash: str


def check_profile(value: object) -> None:
    """Refuse anything outside the restricted profile; level by level, without recursion.

    Errors: `RecordMalformed` with code `record_float`, `record_integer`, `record_key`, `record_depth`,
    `record_text` or `record_type`.
    """
    _check_values((value,), 0)


def _check_values(values: Iterable[Any], depth: int) -> None:
    """`values` lie inside `depth` containers."""
    level: list[Iterable[Any]] = [values]
    while level:
        following: list[Iterable[Any]] = []
        for inside in level:
            for item in inside:
                kind = type(item)
                if kind is str:
                    if not item.isascii():
                        _check_text(item)
                elif kind is dict:
                    _check_keys(item)
                    following.append(item.values())
                elif kind is list or kind is tuple:
                    following.append(item)
                elif kind is int:
                    if not -INTEGER_MAX <= item <= INTEGER_MAX:
                        raise RecordMalformed("record_integer", "an integer is outside ±(2^53−1)")
                elif item is not None and kind is not bool:
                    _refuse_type(item)
        if following and depth >= DEPTH_MAX:
            raise RecordMalformed("record_depth", f"nested deeper than {DEPTH_MAX}")
        depth += 1
        level = following


def canonical_record_json(value: object) -> bytes:
    """RFC 8785 bytes of a value of the restricted profile (`check_profile` first; with ASCII keys and without
    floats orjson's sorted output is RFC 8785's)."""
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)


def freeze(draft: RecordDraft, *, node: str) -> FrozenRecord:
    """Check a draft and encode all of it that is known before the transaction. Errors: `RecordMalformed`."""
    log, kind, ids, call, decision = draft.log, draft.kind, draft.ids, draft.call, draft.decision
    if not call and not isinstance(ids, Canonical):
        named = ids.get("call", "")
        call = named if isinstance(named, str) else ""
    head = b'{"action":%b,"actor":%b,"decision":%b,"digests":%b' % (
        canonical(draft.action),
        canonical_text(draft.actor),
        b"null" if decision is None else canonical(decision),
        canonical(draft.digests),
    )
    place, policy = _place(log, kind, draft.mode, node), canonical(draft.policy)
    middle = b'"ids":%b,%b,"policy":%b' % (canonical(ids), place, policy)
    frozen = FrozenRecord(log, kind, call, head, middle, b'"subject":' + canonical(draft.subject))
    size = len(frozen.head) + len(frozen.middle) + len(frozen.tail) + _SPLICE_MAX_BYTES
    if size > RECORD_MAX_BYTES:
        raise RecordMalformed("record_too_large", f"{size} of {RECORD_MAX_BYTES} bytes")
    return frozen


def canonical(part: object) -> Canonical:
    """The canonical bytes of one member of a record, or of what lies in one. Errors: those of `check_profile`."""
    if type(part) is Canonical:
        return part
    _check_values((part,), 1)
    return Canonical(canonical_record_json(part))


def canonical_text(text: str) -> bytes:
    """A text as it stands in canonical JSON. Errors: `RecordMalformed` with code `record_text`."""
    try:
        return orjson.dumps(text)
    except TypeError as error:
        raise RecordMalformed("record_text", "a lone surrogate has no UTF-8 form") from error


@lru_cache(maxsize=1024)
def _place(log: LogId, kind: RecordKind, mode: str, node: str) -> bytes:
    """Which log a record belongs to, and from whom: the same bytes for many."""
    for name in log:
        if not name or len(name.encode("utf-8", "surrogatepass")) > LOG_NAME_MAX_BYTES:
            raise RecordMalformed("record_log", f"tenant and workspace have 1 to {LOG_NAME_MAX_BYTES} bytes")
    place = {"kind": kind, "log": list(log), "mode": mode, "node": node}
    _check_values((place,), 0)
    return canonical_record_json(place)[1:-1]


def seal(frozen: FrozenRecord, position: Position) -> bytes:
    """The canonical bytes of a record at its position in the log."""
    return b'%b,"hlc":[%d,%d],%b,"prev":"%b","seq":%d,%b,"v":%d,"wall":%d}' % (
        frozen.head,
        position.hlc[0],
        position.hlc[1],
        frozen.middle,
        position.prev.encode("ascii"),
        position.seq,
        frozen.tail,
        RECORD_VERSION,
        position.wall,
    )


def leaf_hash(record: bytes) -> str:
    """Hex SHA-256 of 0x00 and the record's bytes (RFC 6962 leaf)."""
    return hashlib.sha256(b"\x00" + record).hexdigest()


def next_hlc(last: tuple[int, int], wall: int) -> tuple[int, int]:
    """The hybrid clock after `last` at wall time `wall` (ms); it never goes back, whatever the wall does."""
    return (wall, 0) if wall > last[0] else (last[0], last[1] + 1)


def keyed_digest(data: bytes, key: bytes) -> dict[str, object]:
    """The digest form of a guessable value: `{hmac, length}` under the tenant's key, so that nobody without the key
    can try values against the record."""
    return {"hmac": _keyed(data, key), "length": len(data)}


def keyed_digest_json(data: bytes, key: bytes) -> bytes:
    """`keyed_digest` as canonical JSON."""
    return b'{"hmac":"%b","length":%d}' % (_keyed(data, key).encode("ascii"), len(data))


def _keyed(data: bytes, key: bytes) -> str:
    begun_inside, begun_outside = _keyed_states(key)
    inner, outer = begun_inside.copy(), begun_outside.copy()
    inner.update(data)
    outer.update(inner.digest())
    return outer.hexdigest()


@lru_cache(maxsize=64)
def _keyed_states(key: bytes) -> tuple[hashlib._Hash, hashlib._Hash]:
    """HMAC-SHA-256 with `key` begun twice, inside and outside. **Source**: RFC 2104 §2 and §4."""
    block = (key if len(key) <= 64 else hashlib.sha256(key).digest()).ljust(64, b"\0")
    return hashlib.sha256(block.translate(_INNER_PAD)), hashlib.sha256(block.translate(_OUTER_PAD))


_INNER_PAD: Final = bytes(octet ^ 0x36 for octet in range(256))
_OUTER_PAD: Final = bytes(octet ^ 0x5C for octet in range(256))


def _check_keys(value: dict[str, object]) -> None:
    try:
        if "".join(value).isascii():
            return
    except TypeError as error:
        raise RecordMalformed("record_key", "keys are text") from error
    raise RecordMalformed("record_key", "keys are ASCII text")


def _refuse_type(value: object) -> Never:
    if isinstance(value, float):
        raise RecordMalformed("record_float", "a record holds no floats")
    raise RecordMalformed("record_type", f"{type(value).__name__} has no canonical form")


def _check_text(value: str) -> None:
    """Refuse text beyond ASCII that has no UTF-8 form."""
    if any("\ud800" <= character <= "\udfff" for character in value):
        raise RecordMalformed("record_text", "a lone surrogate has no UTF-8 form")
