"""A stored answer, and a kept question with what was decided, as bytes.

Guarantees: what goes in comes out; a body above the bound is never stored, and the caller is told by getting no effect.
"""

from __future__ import annotations

import orjson

from gateway.errors import GateUnavailable
from gateway.ledger.record import LogId
from gateway.store.port import ANSWER_MAX_BYTES, KEPT_INPUT_MAX_BYTES, KeepInput, SaveAnswer, StoredAnswer


class AnswerBroken(GateUnavailable):
    """Stored bytes are no answer."""


def save_answer_effects(log: LogId, call: str, answer: StoredAnswer) -> tuple[SaveAnswer, ...]:
    """The effect that keeps an answer, or none when its body is larger than `ANSWER_MAX_BYTES`."""
    return () if len(answer.body) > ANSWER_MAX_BYTES else (SaveAnswer(log, call, answer),)


def encode_answer(answer: StoredAnswer) -> bytes:
    """One line of JSON (status, headers), then the body as it came."""
    return orjson.dumps({"status": answer.status, "headers": answer.headers}) + b"\n" + answer.body


def decode_answer(data: bytes) -> StoredAnswer:
    """The answer of `encode_answer`'s bytes. Errors: `AnswerBroken`."""
    head, mark, body = data.partition(b"\n")
    try:
        members = orjson.loads(head)
        headers = tuple((str(name), str(value)) for name, value in members["headers"])
        status = members["status"]
    except (ValueError, TypeError, KeyError) as error:
        raise AnswerBroken("a stored answer cannot be read") from error
    if not mark or type(status) is not int:
        raise AnswerBroken("a stored answer cannot be read")
    return StoredAnswer(status=status, headers=headers, body=body)


def encode_kept(about: bytes, document: bytes) -> bytes:
    """The length of `about` in eight hexadecimal digits, then both as they came."""
    return b"%08x" % len(about) + about + document


def decode_kept(data: bytes) -> tuple[bytes, bytes]:
    """The two parts of `encode_kept`'s bytes. Errors: `AnswerBroken`."""
    try:
        end = 8 + int(data[:8], 16)
    except ValueError as error:
        raise AnswerBroken("a kept input cannot be read") from error
    if not 8 <= end <= len(data):
        raise AnswerBroken("a kept input cannot be read")
    return data[8:end], data[end:]


def keep_input_effects(kept: KeepInput) -> tuple[KeepInput, ...]:
    """The effect, or none when it is larger than `KEPT_INPUT_MAX_BYTES`."""
    return () if len(kept.about) + len(kept.document) > KEPT_INPUT_MAX_BYTES else (kept,)
